//! What a client of S3 sees while drives are away, lie or have no room: right bytes or an honest error.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[allow(dead_code)] // of the conformance suite's client only a part is needed here
#[path = "s3_conformance/client.rs"]
mod client;

use client::{ACCESS_KEY, Answer, Call, SECRET_KEY, Store, settings};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use storage_engine::clock::SystemClock;
use storage_engine::drive::Drive;
use storage_engine::drive::disk::Disk;
use storage_engine::drive::memory::MemoryDrive;
use storage_engine::node::StoreNode;
use storage_engine::object::{Error, Objects};
use storage_engine::quorum::Quorum;
use storage_engine::s3::STORAGE_FULL;
use storage_engine::version::Origin;
use uuid::Uuid;

const UNAVAILABLE: &str = "ServiceUnavailable";
/// Below what a drive keeps for deletes.
const NEARLY_FULL: Option<u64> = Some(32 << 20);

struct Set {
    drives: Vec<Arc<MemoryDrive>>,
    store: Store,
    objects: Objects,
    quorum: Quorum,
    /// What was acked, by key.
    acked: BTreeMap<String, Vec<u8>>,
}

fn bytes(len: usize, salt: u64) -> Vec<u8> {
    (0..len as u64).map(|i| ((i + salt).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u8).collect()
}

impl Set {
    async fn new(n: usize) -> Set {
        let drives: Vec<Arc<MemoryDrive>> = (0..n).map(|slot| Arc::new(MemoryDrive::new(slot))).collect();
        let as_drives = drives.iter().map(|d| d.clone() as Arc<dyn Drive>).collect();
        let parity = (n / 2).min(4);
        let dir = tempfile::tempdir().unwrap();
        let users = BTreeMap::from([(ACCESS_KEY.to_owned(), SECRET_KEY.to_owned())]);
        let settings = settings(&dir);
        let node = StoreNode::over(as_drives, parity, &settings, users, Arc::new(SystemClock), Origin::new("here"));
        let objects = node.objects();
        let store = Store::serve(dir, node).await;
        store.call(Call::new("PUT", "/box")).await.expect(200);
        store.versioning("Enabled").await;
        Set { drives, store, objects, quorum: Quorum { n, k: n - parity }, acked: BTreeMap::new() }
    }
    async fn put(&mut self, key: &str, body: Vec<u8>) {
        self.store.put(&format!("/box/{key}"), &body).await;
        self.acked.insert(key.to_owned(), body);
    }
    async fn try_put(&self, key: &str, body: &[u8]) -> Answer {
        self.store.call(Call::new("PUT", &format!("/box/{key}")).body(body)).await
    }
    async fn get(&self, key: &str) -> Answer {
        self.store.get(&format!("/box/{key}")).await
    }
    async fn all_is_there(&self, when: &str) {
        for (key, body) in &self.acked {
            let got = self.get(key).await;
            assert!(got.status == 200 && got.body == *body, "{key} {when}: {} {}", got.status, got.headers.len());
        }
    }
    /// Waits until every drive holds every acked object and knows that it counts.
    async fn until_settled(&self) {
        let bucket = self.objects.bucket("box").await.unwrap().id;
        let settled = async {
            for drive in &self.drives {
                for key in self.acked.keys() {
                    while !drive.read_key(bucket, key).await.unwrap().records.iter().any(|r| r.acked) {
                        tokio::task::yield_now().await;
                    }
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), settled).await.expect("stragglers finish");
    }
    fn away(&self, mask: u32) {
        for (slot, drive) in self.drives.iter().enumerate() {
            drive.set_offline(mask & (1 << slot) != 0);
        }
    }
    fn set_free(&self, slots: impl IntoIterator<Item = usize>, free: Option<u64>) {
        slots.into_iter().for_each(|slot| self.drives[slot].disk().set_free(free));
    }
}

/// Every set of drives away: reads answer with R drives, writes with W; without them it is 503, never 404.
async fn every_loss_of(n: usize) {
    let mut set = Set::new(n).await;
    set.put("small", bytes(10, 1)).await;
    set.put("medium", bytes(100_000, 2)).await;
    set.put("large", bytes(5 << 20, 3)).await;
    set.put("doomed", bytes(10, 4)).await;
    set.until_settled().await;
    let (write, read) = (set.quorum.write(), set.quorum.read());
    let mut unknown = Vec::new();
    for mask in 0..1u32 << n {
        set.away(mask);
        let left = n - mask.count_ones() as usize;
        let when = format!("with {left} of {n} drives ({mask:b} away)");
        if left >= read {
            let keys: &[&str] = if mask % 16 == 15 { &["small", "medium", "large"] } else { &["small", "medium"] };
            for key in keys {
                let got = set.get(key).await.expect(200);
                assert!(got.body == set.acked[*key], "{key} {when}");
            }
            set.get("absent").await.error(404, "NoSuchKey");
        } else {
            for key in ["small", "medium", "large", "absent"] {
                set.get(key).await.error(503, UNAVAILABLE);
            }
        }
        let list = set.store.call(Call::new("GET", "/box").query("list-type", "2").query("prefix", "medium")).await;
        assert_eq!(list.status, if left >= read { 200 } else { 503 }, "{when}: {}", list.text());
        let (key, body) = (format!("written/{mask}"), bytes(5_000, mask.into()));
        let written = set.try_put(&key, &body).await;
        if left >= write {
            written.expect(200);
            set.acked.insert(key, body);
        } else {
            written.error(503, UNAVAILABLE);
            set.store.call(Call::new("DELETE", "/box/doomed")).await.error(503, UNAVAILABLE);
            unknown.push((key, body));
        }
    }
    set.away(0);
    // A DELETE that was answered 503 may have taken effect, once or more; what it hid is still there.
    let latest = set.get("doomed").await;
    let doomed = set.acked.remove("doomed").unwrap();
    assert!(latest.status == 404 || (latest.status == 200 && latest.body == doomed), "{}", latest.text());
    set.all_is_there("when all drives are back").await;
    for (key, body) in unknown {
        let got = set.get(&key).await;
        assert!(got.status == 404 || (got.status == 200 && got.body == body), "{key}: {}", got.text());
    }
}

#[tokio::test]
async fn one_drive_is_all_or_nothing() {
    every_loss_of(1).await;
}
#[tokio::test]
async fn two_drives_read_with_one() {
    every_loss_of(2).await;
}
#[tokio::test]
async fn four_drives_read_with_two_and_write_with_three() {
    every_loss_of(4).await;
}
#[tokio::test]
async fn eight_drives_read_with_four_and_write_with_five() {
    every_loss_of(8).await;
}

/// Files of a drive that hold shards, with their length.
fn shard_files(drive: &MemoryDrive) -> Vec<(String, u64)> {
    let disk = drive.disk();
    let folders = disk.list("data").unwrap().into_iter().map(|f| format!("data/{f}")).chain(["log".to_owned()]);
    let names = folders.flat_map(|f| disk.list(&f).unwrap().into_iter().map(move |n| format!("{f}/{n}")));
    names.map(|name| (name.clone(), disk.len(&name).unwrap().unwrap())).collect()
}

#[tokio::test]
async fn a_flipped_byte_is_never_given() {
    let mut set = Set::new(4).await;
    for (key, len) in [("small", 1_000), ("medium", 50_000), ("large", 2_200_000)] {
        set.put(key, bytes(len, len as u64)).await;
    }
    set.until_settled().await;
    for slot in 0..4 {
        for (name, len) in shard_files(&set.drives[slot]) {
            for at in 0..24 {
                // Odd steps, so that frames, checksums and data of many blocks are met.
                let offset = (at * (len / 24) + at * 7) % len;
                set.drives[slot].disk().flip(&name, offset);
                set.all_is_there(&format!("with byte {offset} of {name} on drive {slot} flipped")).await;
                set.drives[slot].disk().flip(&name, offset);
            }
        }
    }
}

#[tokio::test]
async fn a_block_bad_on_m_drives_is_read_around_and_on_more_it_is_an_error() {
    let mut set = Set::new(4).await;
    for (key, len) in [("small", 1_000), ("medium", 50_000), ("large", 2_200_000)] {
        set.put(key, bytes(len, len as u64)).await;
    }
    set.until_settled().await;
    // Rows of shards in the log and of shard files: a letter and the blob.
    let blobs = |d: &MemoryDrive| -> Vec<Uuid> {
        let rows = d.rows().into_keys().filter(|name| matches!(name.first(), Some(b's' | b'b')));
        rows.map(|name| Uuid::from_slice(&name[1..17]).unwrap()).collect()
    };
    for (count, slot) in [(1, 3), (2, 0)] {
        assert_eq!(blobs(&set.drives[slot]).into_iter().filter(|b| set.drives[slot].corrupt_shard(*b)).count(), 3);
        set.all_is_there(&format!("with every shard bad on {count} drives")).await;
    }
    assert_eq!(blobs(&set.drives[1]).into_iter().filter(|b| set.drives[1].corrupt_shard(*b)).count(), 3);
    for (key, body) in &set.acked {
        // The head may be out before a block turns out bad: then the connection breaks, short of its length.
        let mut stream = tokio::net::TcpStream::connect(set.store.addr).await.unwrap();
        let request = Call::new("GET", &format!("/box/{key}")).sign(set.store.addr);
        tokio::io::AsyncWriteExt::write_all(&mut stream, &request).await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer).await;
        let body_at = answer.windows(4).position(|w| w == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
        let is_ok = answer.starts_with(b"HTTP/1.1 200");
        assert!(answer.len() - body_at < body.len() || !is_ok, "{key} came whole");
        assert!(!is_ok || body.starts_with(&answer[body_at..]), "{key}: a wrong byte");
    }
}

#[tokio::test]
async fn full_drives_refuse_writes_with_one_code_and_keep_what_was_acked() {
    let mut set = Set::new(4).await;
    for (key, len) in [("small", 1_000), ("medium", 50_000), ("large", 2_200_000), ("doomed", 10)] {
        set.put(key, bytes(len, len as u64)).await;
    }
    set.store.call(Call::new("PUT", "/flat")).await.expect(200);
    set.store.put("/flat/null", b"without versions").await;
    let begun = set.store.call(Call::new("POST", "/box/upload").query("uploads", "")).await.expect(200).one("UploadId");
    let part =
        |body: Vec<u8>| Call::new("PUT", "/box/upload").query("partNumber", "1").query("uploadId", &begun).body(&body);

    set.set_free(0..4, NEARLY_FULL);
    for len in [0, 10, 2_300_000] {
        set.try_put("small", &bytes(len, 9)).await.error(503, STORAGE_FULL);
        set.store.call(part(bytes(len, 9))).await.error(503, STORAGE_FULL);
    }
    set.store
        .call(Call::new("PUT", "/box/copy").header("x-amz-copy-source", "/box/medium"))
        .await
        .error(503, STORAGE_FULL);
    let mut elsewhere = set.objects.open("box", "medium", None).await.unwrap().version;
    elsewhere.id = storage_engine::version::VersionId::from_bytes([5; 16]);
    elsewhere.birth.as_mut().unwrap().order.version_id = elsewhere.id;
    let body = Box::pin(futures::stream::iter([Ok(set.acked["medium"].clone().into())]));
    let applied = set.objects.apply("box", elsewhere, Some(body), None).await;
    assert!(matches!(applied, Err(Error::Full)), "{applied:?}");
    set.all_is_there("on full drives").await;

    set.store.call(Call::new("DELETE", "/box/doomed")).await.expect(204);
    set.get("doomed").await.expect(404);
    set.acked.remove("doomed");
    set.store.call(Call::new("DELETE", "/flat/null")).await.expect(204);
    set.store.get("/flat/null").await.error(404, "NoSuchKey");

    set.set_free(0..4, None);
    set.put("small", bytes(10, 9)).await;
    set.store.call(part(bytes(10, 9))).await.expect(200);
    set.all_is_there("when there is room again").await;
}

#[tokio::test]
async fn one_full_drive_of_four_stops_nobody_and_two_do() {
    let mut set = Set::new(4).await;
    set.put("key", bytes(10, 1)).await;
    set.set_free([2], NEARLY_FULL);
    for len in [20, 2_200_000] {
        set.put("key", bytes(len, 2)).await;
        set.all_is_there("with one full drive").await;
    }
    set.set_free([0], NEARLY_FULL);
    for len in [30, 2_300_000] {
        set.try_put("key", &bytes(len, 3)).await.error(503, STORAGE_FULL);
        set.all_is_there("after a write that two drives refused").await;
    }
    set.set_free([0, 2], None);
    set.put("key", bytes(40, 4)).await;
    set.all_is_there("when there is room again").await;
}

#[tokio::test]
async fn a_store_that_fills_up_says_so_and_loses_nothing() {
    let mut set = Set::new(4).await;
    // Room for a few objects above what is kept for deletes.
    set.set_free(0..4, Some(72 << 20));
    let mut refused = None;
    for number in 0..40 {
        let (key, body) = (format!("object/{number}"), bytes(3_000_000, number));
        let answer = set.try_put(&key, &body).await;
        if answer.status != 200 {
            refused = Some(answer);
            break;
        }
        set.acked.insert(key, body);
    }
    refused.expect("40 objects do not fit").error(503, STORAGE_FULL);
    assert!(set.acked.len() > 1, "{} fit", set.acked.len());
    set.all_is_there("on a store that filled up").await;
    set.store.call(Call::new("DELETE", "/box/object/0")).await.expect(204);
    set.get("object/0").await.expect(404);
}
