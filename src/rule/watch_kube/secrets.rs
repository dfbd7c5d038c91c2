//! The Secrets and ConfigMaps that documents name, written below the folder of references in the shape of a mounted
//! Secret, so that whoever reads certificates knows one way only. Each is watched by its name alone.
//!
//! A Secret that is deleted leaves its files: links that run need them, and a person may have meant to replace it.
use super::cluster::Cluster;
use super::pauses;
use crate::rule::RuleSet;
use crate::rule::refs::{self, Refs};
use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A Secret (true) or ConfigMap, by name.
type RefId = (bool, String);
/// What it holds, by key; `None`: it is not there.
type Data = Option<BTreeMap<String, Vec<u8>>>;

/// All that are watched.
pub struct Secrets {
    refs: Refs,
    watched: BTreeMap<RefId, DropGuard>,
    streams: SelectAll<BoxStream<'static, (RefId, Data)>>,
    /// One is written after the other, also when whoever waited for it was called away.
    writing: Option<JoinHandle<()>>,
}

impl Secrets {
    /// None yet; they are written below `refs`.
    pub fn new(refs: Refs) -> Secrets {
        Secrets { refs, watched: BTreeMap::new(), streams: SelectAll::new(), writing: None }
    }

    /// Watches what the set names, and no longer what it does not.
    pub fn want(&mut self, cluster: &Cluster, set: &RuleSet) {
        let wanted = refs::named(set);
        self.watched.retain(|id, _| wanted.contains(id));
        for id in wanted {
            if self.watched.contains_key(&id) {
                continue;
            }
            let stop = CancellationToken::new();
            self.streams.push(stream(cluster, id.clone()).take_until(stop.clone().cancelled_owned()).boxed());
            self.watched.insert(id, stop.drop_guard());
        }
    }

    /// Waits until one has changed and is written. Cancel-safe.
    pub async fn next(&mut self) {
        if self.writing.is_none() {
            self.begin().await;
        }
        if let Some(writing) = &mut self.writing {
            // It fails only by a panic, which ends the process.
            let _ = writing.await;
            self.writing = None;
        }
    }

    /// Waits until one has changed, and begins to write it.
    async fn begin(&mut self) {
        let Some((id, data)) = self.streams.next().await else { return std::future::pending().await };
        let (is_secret, name) = id;
        let kind = if is_secret { "Secret" } else { "ConfigMap" };
        let Some(data) = data else {
            tracing::warn!(kind, name, "A document refers to it and it is not there; files of it that are here stay.");
            return;
        };
        let Ok(folder) = self.refs.folder(is_secret, &name) else { return };
        self.writing = Some(tokio::task::spawn_blocking(move || match write(&folder, &data) {
            Ok(true) => tracing::info!(kind, name, "Read it from the API server."),
            Ok(false) => {}
            Err(e) => {
                tracing::error!(kind, name, error = %e, "It cannot be written below refs_dir; make room or give the right.")
            }
        }));
    }
}

fn stream(cluster: &Cluster, id: RefId) -> BoxStream<'static, (RefId, Data)> {
    let (is_secret, name) = id.clone();
    let report = move |e: kube::runtime::watcher::Error| {
        tracing::debug!(error = %e, "A Secret or ConfigMap cannot be watched now.");
    };
    let (client, namespace) = (cluster.client.clone(), &cluster.namespace);
    if is_secret {
        let objects = watch_object(Api::<Secret>::namespaced(client, namespace), &name).backoff(pauses());
        let data = |s: Secret| s.data.unwrap_or_default().into_iter().map(|(k, v)| (k, v.0)).collect();
        let all = objects.filter_map(move |read| {
            let read = read.map_err(report).ok().map(|found| (id.clone(), found.map(data)));
            futures::future::ready(read)
        });
        return all.boxed();
    }
    let objects = watch_object(Api::<ConfigMap>::namespaced(client, namespace), &name).backoff(pauses());
    let data = |c: ConfigMap| c.data.unwrap_or_default().into_iter().map(|(k, v)| (k, v.into_bytes())).collect();
    let all = objects.filter_map(move |read| {
        let read = read.map_err(report).ok().map(|found| (id.clone(), found.map(data)));
        futures::future::ready(read)
    });
    all.boxed()
}

/// Swaps the folder of a Secret for one with this data, certificate and key at once; false: it held the same.
fn write(folder: &Path, data: &BTreeMap<String, Vec<u8>>) -> std::io::Result<bool> {
    let is_same = |(key, value): (&String, &Vec<u8>)| std::fs::read(folder.join(key)).is_ok_and(|held| held == *value);
    if folder.exists() && data.iter().all(is_same) {
        return Ok(false);
    }
    let parent = folder.parent().ok_or_else(|| std::io::Error::other("the folder has no parent"))?;
    let name = folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    let version = format!(".{name}.{}", storage_engine::entropy::id().as_simple());
    let fresh = parent.join(&version);
    std::fs::DirBuilder::new().mode(0o700).create(&fresh)?;
    for (key, value) in data.iter().filter(|(key, _)| !key.contains('/') && !key.starts_with('.')) {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600).open(fresh.join(key))?.write_all(value)?;
    }
    let former = std::fs::read_link(folder).ok();
    let link = parent.join(format!(".{name}.link"));
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(&version, &link)?;
    std::fs::rename(&link, folder)?;
    if let Some(former) = former {
        let _ = std::fs::remove_dir_all(parent.join(former));
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_swapped_whole_and_readable_by_its_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("make a directory");
        let folder = dir.path().join("secrets/tls");
        let data = |n: u8| BTreeMap::from([("tls.crt".to_string(), vec![n]), ("tls.key".to_string(), vec![n, n])]);
        assert!(write(&folder, &data(1)).expect("write"));
        assert!(!write(&folder, &data(1)).expect("write the same"), "the same is not written again");
        assert!(write(&folder, &data(2)).expect("write another"));
        assert_eq!(std::fs::read(folder.join("tls.key")).expect("read"), [2, 2]);
        let mode = std::fs::metadata(folder.join("tls.key")).expect("stat").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let left = std::fs::read_dir(dir.path().join("secrets")).expect("list").count();
        assert_eq!(left, 2, "the link and what it points to; the former is gone");
    }
}
