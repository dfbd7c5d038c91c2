//! The last good form of each document, in the journal: what holds after a restart while its file is broken.
//!
//! It keeps what the watcher accepted and hands it back before the folder is first read; it judges no document.
use crate::journal::{Error, Journal};
use crate::rule::watch_folder::Accepted;
use std::collections::BTreeMap;

/// What was in force before the process started: generation and spec of each document, for a watcher to restore.
///
/// # Errors
/// Those of the journal.
pub async fn restore(journal: &dyn Journal) -> Result<Vec<(u64, String)>, Error> {
    let kept = journal.accepted_specs().await?;
    Ok(kept.into_iter().map(|(_, generation, spec)| (generation, spec)).collect())
}

/// The documents as this process last wrote them.
#[derive(Debug, Default)]
pub struct Kept(BTreeMap<String, Accepted>);

impl Kept {
    /// Brings the journal to `accepted`: writes what differs, forgets what is gone. Another process' documents, which
    /// this one never had, are left alone.
    ///
    /// # Errors
    /// Those of the journal; what was not written goes with the next call.
    pub async fn keep(&mut self, journal: &dyn Journal, accepted: &BTreeMap<String, Accepted>) -> Result<(), Error> {
        for (name, document) in accepted {
            if self.0.get(name) != Some(document) {
                journal.accept_spec(name, document.generation, &document.spec).await?;
                self.0.insert(name.clone(), document.clone());
            }
        }
        let gone: Vec<String> = self.0.keys().filter(|name| !accepted.contains_key(*name)).cloned().collect();
        for name in gone {
            journal.forget_spec(&name).await?;
            self.0.remove(&name);
        }
        Ok(())
    }
}
