//! A shard on its way into a file of its own: gathered, written, synced beside the writing, and sealed.
//! It never names a blob: only a record does, and only of a sealed shard. Made by `local.rs` for `object/blob`.
use super::LocalDrive;
use crate::drive::{Error, ShardSink};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use std::io;
use tokio::task::JoinHandle;

/// Bytes gathered before one write to the file.
const WRITE_BYTES: usize = 256 << 10;
/// Bytes written before they are synced while more arrive: at the seal little is left to wait for, and no more than
/// twice as much of a shard waits in the page cache.
const SYNC_BYTES: u64 = 4 << 20;

/// The sink of one shard.
pub(super) struct Sink {
    drive: LocalDrive,
    name: String,
    waiting: BytesMut,
    written: u64,
    /// Up to where a sync was asked for, and that sync: its error counts, a later one would not tell it again.
    asked: u64,
    syncing: Option<JoinHandle<io::Result<()>>>,
    sealed: bool,
}

impl Sink {
    pub(super) fn new(drive: LocalDrive, name: String) -> Sink {
        Sink { drive, name, waiting: BytesMut::new(), written: 0, asked: 0, syncing: None, sealed: false }
    }

    async fn flush(&mut self, bytes: Bytes) -> Result<(), Error> {
        self.drive.online()?;
        let (name, at) = (self.name.clone(), self.written);
        self.written += bytes.len() as u64;
        let done = self.drive.blocking(move |drive| drive.0.disk.write_at(&name, at, &bytes)).await;
        done.map_err(|e| self.drive.write_failed(&e))
    }

    /// Syncs what was written so far, beside what comes next.
    async fn sync_behind(&mut self) -> Result<(), Error> {
        if self.written - self.asked < SYNC_BYTES {
            return Ok(());
        }
        self.synced().await?;
        let (drive, name) = (self.drive.clone(), self.name.clone());
        self.asked = self.written;
        self.syncing = Some(tokio::task::spawn_blocking(move || drive.0.disk.sync(&name)));
        Ok(())
    }

    /// Waits for the sync under way.
    async fn synced(&mut self) -> Result<(), Error> {
        let Some(syncing) = &mut self.syncing else { return Ok(()) };
        let done = syncing.await.expect("a panic ends the process, the runtime outlives its drives");
        self.syncing = None;
        done.map_err(|e| self.drive.write_failed(&e))
    }
}

#[async_trait]
impl ShardSink for Sink {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        // A piece of a full stripe is large enough as it is and is not copied.
        if self.waiting.is_empty() && bytes.len() >= WRITE_BYTES {
            self.flush(bytes).await?;
            return self.sync_behind().await;
        }
        self.waiting.extend_from_slice(&bytes);
        if self.waiting.len() < WRITE_BYTES {
            return Ok(());
        }
        let bytes = self.waiting.split().freeze();
        self.flush(bytes).await?;
        self.sync_behind().await
    }

    /// Durable already on return, so that a commit waits for no shard but its own.
    async fn seal(mut self: Box<Self>) -> Result<(), Error> {
        let bytes = self.waiting.split().freeze();
        self.flush(bytes).await?;
        self.synced().await?;
        let name = self.name.clone();
        let done = self.drive.blocking(move |drive| {
            let disk = &drive.0.disk;
            disk.sync(&name)?;
            disk.sync_folder(name.rsplit_once('/').map_or("", |(folder, _)| folder))
        });
        done.await.map_err(|e| self.drive.write_failed(&e))?;
        self.sealed = true;
        Ok(())
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if !self.sealed {
            // What stays because this failed is an orphan, removed at the next open.
            drop(self.drive.0.disk.remove(&self.name));
        }
    }
}
