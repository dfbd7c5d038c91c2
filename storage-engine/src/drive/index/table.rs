//! Trait [`Table`]: an ordered map with atomic batches, and its kind in memory. Knows nothing of rows.
use super::Error;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock};

/// Changes of one batch: name, and value or `None` to remove. The last one of a name counts.
pub type Rows = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// Name and value of a row.
pub type Pair = (Vec<u8>, Vec<u8>);

/// An ordered map of bytes. Nothing in it is durable; its owner can make it again.
pub trait Table: Send + Sync + 'static {
    /// One value.
    fn get(&self, name: &[u8]) -> Result<Option<Vec<u8>>, Error>;
    /// The first `most` rows in `from..to`, in order, from one snapshot; fewer only at the end.
    fn range(&self, from: &[u8], to: &[u8], most: usize) -> Result<Vec<Pair>, Error>;
    /// All of the rows or none.
    fn commit(&self, rows: Rows) -> Result<(), Error>;
}

/// Rows in memory.
#[derive(Default)]
pub struct Tree(RwLock<BTreeMap<Vec<u8>, Vec<u8>>>);

impl Table for Tree {
    fn get(&self, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned())
    }
    fn range(&self, from: &[u8], to: &[u8], most: usize) -> Result<Vec<Pair>, Error> {
        let tree = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if from >= to {
            return Ok(Vec::new());
        }
        let bounds = (Bound::Included(from), Bound::Excluded(to));
        Ok(tree.range::<[u8], _>(bounds).take(most).map(|(name, value)| (name.clone(), value.clone())).collect())
    }
    fn commit(&self, rows: Rows) -> Result<(), Error> {
        let mut tree = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (name, value) in rows {
            match value {
                Some(value) => tree.insert(name, value),
                None => tree.remove(&name),
            };
        }
        Ok(())
    }
}
