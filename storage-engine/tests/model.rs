//! A reference model of buckets, versions and lists beside the store: random requests must answer the
//! same, with one drive of four away now and then.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use std::collections::BTreeMap;
use std::sync::Arc;
use storage_engine::clock::SystemClock;
use storage_engine::drive::Drive;
use storage_engine::drive::memory::MemoryDrive;
use storage_engine::object::{Conditions, Error, List, Objects, Page, Put, Versioning};
use storage_engine::version::{Origin, VersionId};

const BUCKETS: [&str; 2] = ["first", "second"];
const KEYS: [&str; 13] =
    ["a", "a/", "a/b", "a/b/c", "a/\0", "a/\u{10ffff}z", "a0", "ab", "b", "../a", " ", "é", "\u{10ffff}"];
const PREFIXES: [&str; 7] = ["", "a", "a/", "a/b", "b", "é", "nothing"];
const DELIMITERS: [Option<&str>; 4] = [None, Some("/"), Some("b"), Some("a/")];

#[derive(Clone, Debug)]
enum Op {
    Put(&'static str),
    Delete(&'static str),
    DeleteVersion(&'static str, Index),
    Open(&'static str),
    List {
        prefix: &'static str,
        delimiter: Option<&'static str>,
        limit: usize,
        versions: bool,
    },
    SetVersioning(Versioning),
    /// Ends the bucket if it is empty, makes it if it is not there.
    DeleteBucket,
    CreateBucket(Versioning),
    /// One drive goes, the others are back.
    Away(Option<usize>),
}

fn op() -> impl Strategy<Value = (&'static str, Op)> {
    let key = || select(&KEYS[..]);
    let list = (select(&PREFIXES[..]), select(&DELIMITERS[..]), prop_oneof![1..4usize, Just(1_000)], any::<bool>());
    let op = prop_oneof![
        8 => key().prop_map(Op::Put),
        4 => key().prop_map(Op::Delete),
        4 => (key(), any::<Index>()).prop_map(|(key, nth)| Op::DeleteVersion(key, nth)),
        3 => key().prop_map(Op::Open),
        6 => list.prop_map(|(prefix, delimiter, limit, versions)| Op::List { prefix, delimiter, limit, versions }),
        1 => select(vec![Versioning::Enabled, Versioning::Suspended]).prop_map(Op::SetVersioning),
        1 => Just(Op::DeleteBucket),
        1 => select(vec![Versioning::Enabled, Versioning::Unversioned]).prop_map(Op::CreateBucket),
        1 => proptest::option::of(0..4usize).prop_map(Op::Away),
    ];
    (select(&BUCKETS[..]), op)
}

#[derive(Clone, Debug, PartialEq)]
struct ModelVersion {
    id: VersionId,
    is_marker: bool,
    body: Bytes,
}

#[derive(Debug)]
struct ModelBucket {
    versioning: Versioning,
    /// Versions newest first; no key without one.
    keys: BTreeMap<String, Vec<ModelVersion>>,
}

impl ModelBucket {
    fn add(&mut self, key: &str, version: ModelVersion) {
        self.remove(key, VersionId::NULL, version.id);
        self.keys.entry(key.to_owned()).or_default().insert(0, version);
    }
    /// Removes `id`, when `because` (another id) is not what brings a version of its own.
    fn remove(&mut self, key: &str, id: VersionId, because: VersionId) {
        if id != because {
            return;
        }
        if let Some(versions) = self.keys.get_mut(key) {
            versions.retain(|v| v.id != id);
        }
        self.keys.retain(|_, versions| !versions.is_empty());
    }
    /// What a list shows: (key, id, is latest, is marker) and common prefixes, each in order.
    fn list(
        &self,
        prefix: &str,
        delimiter: Option<&str>,
        all: bool,
    ) -> (Vec<(String, VersionId, bool, bool)>, Vec<String>) {
        let (mut entries, mut prefixes) = (Vec::new(), Vec::new());
        for (key, versions) in self.keys.iter().filter(|(key, _)| key.starts_with(prefix)) {
            let shown: Vec<_> = if all {
                versions.iter().enumerate().map(|(at, v)| (key.clone(), v.id, at == 0, v.is_marker)).collect()
            } else {
                versions.iter().take(1).filter(|v| !v.is_marker).map(|v| (key.clone(), v.id, true, false)).collect()
            };
            let at = delimiter.and_then(|d| key[prefix.len()..].find(d).map(|at| prefix.len() + at + d.len()));
            match at {
                Some(at) if !shown.is_empty() => {
                    if prefixes.last() != Some(&key[..at].to_owned()) {
                        prefixes.push(key[..at].to_owned());
                    }
                }
                Some(_) => {}
                None => entries.extend(shown),
            }
        }
        (entries, prefixes)
    }
}

struct World {
    drives: Vec<Arc<MemoryDrive>>,
    objects: Objects,
    model: BTreeMap<&'static str, ModelBucket>,
    /// Makes every body another one.
    count: u64,
}

impl World {
    fn new() -> Self {
        let drives: Vec<Arc<MemoryDrive>> = (0..4).map(|slot| Arc::new(MemoryDrive::new(slot))).collect();
        let as_drives = drives.iter().map(|d| d.clone() as Arc<dyn Drive>).collect();
        let objects = Objects::new(as_drives, 2, Arc::new(SystemClock), Origin::new("here"));
        World { drives, objects, model: BTreeMap::new(), count: 0 }
    }

    async fn step(&mut self, bucket: &'static str, op: &Op) {
        match op {
            Op::Away(slot) => {
                for (at, drive) in self.drives.iter().enumerate() {
                    drive.set_offline(*slot == Some(at));
                }
            }
            Op::CreateBucket(versioning) => {
                let made = self.objects.create_bucket(bucket, *versioning).await;
                if self.model.contains_key(bucket) {
                    assert!(matches!(made, Err(Error::BucketExists)), "{made:?}");
                } else {
                    made.expect("created");
                    self.model.insert(bucket, ModelBucket { versioning: *versioning, keys: BTreeMap::new() });
                }
            }
            _ if !self.model.contains_key(bucket) => {
                let list = self.objects.list(bucket, List { limit: 1, ..List::default() }).await;
                assert!(matches!(list, Err(Error::NoSuchBucket(_))), "{list:?}");
            }
            Op::DeleteBucket => {
                let deleted = self.objects.delete_bucket(bucket).await;
                if self.model[bucket].keys.is_empty() {
                    deleted.expect("an empty bucket is deleted");
                    self.model.remove(bucket);
                } else {
                    assert!(matches!(deleted, Err(Error::BucketNotEmpty)), "{deleted:?}");
                }
            }
            Op::SetVersioning(versioning) => {
                self.objects.set_versioning(bucket, *versioning).await.expect("set");
                self.model.get_mut(bucket).expect("it is there").versioning = *versioning;
            }
            Op::List { prefix, delimiter, limit, versions } => {
                self.list(bucket, prefix, *delimiter, *limit, *versions).await
            }
            Op::Put(key) => self.put(bucket, key).await,
            Op::Delete(key) => self.delete(bucket, key).await,
            Op::DeleteVersion(key, nth) => self.delete_version(bucket, key, nth).await,
            Op::Open(key) => self.open(bucket, key).await,
        }
    }

    async fn put(&mut self, bucket: &'static str, key: &str) {
        self.count += 1;
        let body = Bytes::from(format!("{key} {}", self.count));
        let bytes = futures::stream::iter([Ok(body.clone())]).boxed();
        let written = self.objects.put(bucket, key, Put::default(), bytes).await.expect("a write quorum");
        let model = self.model.get_mut(bucket).expect("it is there");
        assert_eq!(written.version.id.is_null(), model.versioning != Versioning::Enabled);
        model.add(key, ModelVersion { id: written.version.id, is_marker: false, body });
    }

    async fn delete(&mut self, bucket: &'static str, key: &str) {
        let deleted =
            self.objects.delete(bucket, key, None, Conditions::default(), false).await.expect("a write quorum");
        let model = self.model.get_mut(bucket).expect("it is there");
        if model.versioning == Versioning::Unversioned {
            model.remove(key, VersionId::NULL, VersionId::NULL);
            return;
        }
        assert!(deleted.delete_marker);
        let id = deleted.version_id.expect("a marker has an id");
        assert_eq!(id.is_null(), model.versioning == Versioning::Suspended);
        model.add(key, ModelVersion { id, is_marker: true, body: Bytes::new() });
    }

    async fn delete_version(&mut self, bucket: &'static str, key: &str, nth: &Index) {
        let model = self.model.get_mut(bucket).expect("it is there");
        let Some(versions) = model.keys.get(key) else { return };
        let id = nth.get(versions).id;
        model.remove(key, id, id);
        self.objects.delete(bucket, key, Some(id), Conditions::default(), false).await.expect("a write quorum");
    }

    async fn open(&self, bucket: &'static str, key: &str) {
        let opened = self.objects.open(bucket, key, None).await;
        match self.model[bucket].keys.get(key).map(|versions| &versions[0]) {
            None => assert!(matches!(opened.err(), Some(Error::NoSuchKey))),
            Some(latest) if latest.is_marker => {
                let err = opened.err();
                assert!(
                    matches!(&err, Some(Error::DeleteMarker { version_id, is_latest: true }) if *version_id == latest.id),
                    "{err:?}"
                );
            }
            Some(latest) => {
                let opened = opened.expect("an object");
                assert_eq!((opened.version.id, opened.is_latest), (latest.id, true));
                let size_bytes = opened.version.birth.as_ref().expect("born").size_bytes;
                let read: Vec<Bytes> = opened.read(0..size_bytes).try_collect().await.expect("k shards");
                assert_eq!(read.concat(), latest.body);
            }
        }
    }

    /// Turns all pages and compares them with the model.
    async fn list(&self, bucket: &'static str, prefix: &str, delimiter: Option<&str>, limit: usize, versions: bool) {
        let (mut entries, mut prefixes, mut after) = (Vec::new(), Vec::new(), None);
        loop {
            let list = List { prefix: prefix.into(), delimiter: delimiter.map(Into::into), after, limit, versions };
            let Page { entries: found, common_prefixes, next } =
                self.objects.list(bucket, list).await.expect("a read quorum");
            let count = found.len() + common_prefixes.len();
            assert!(if next.is_some() { count == limit } else { count <= limit }, "{count} of {limit}, next {next:?}");
            entries.extend(found.into_iter().map(|l| {
                let is_marker = l.version.is_delete_marker();
                (l.version.key, l.version.id, l.is_latest, is_marker)
            }));
            prefixes.extend(common_prefixes);
            after = next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!((entries, prefixes), self.model[bucket].list(prefix, delimiter, versions));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn the_store_answers_as_its_model(ops in proptest::collection::vec(op(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut world = World::new();
            for bucket in BUCKETS {
                world.step(bucket, &Op::CreateBucket(Versioning::Enabled)).await;
            }
            for (bucket, op) in &ops {
                world.step(bucket, op).await;
            }
            for bucket in BUCKETS.iter().filter(|b| world.model.contains_key(*b)) {
                for delimiter in DELIMITERS {
                    world.list(bucket, "", delimiter, 3, true).await;
                }
            }
        });
    }
}
