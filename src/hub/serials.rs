//! Numbers that are never used twice within a hub's life.
//!
//! They are set aside in blocks, durably and before use; what is left of a block at a restart is
//! never used.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::store::{Store, StoreError};

const BLOCK: u64 = 10_000;

/// Gives out ascending numbers.
#[derive(Default)]
pub(super) struct Serials(Mutex<Range<u64>>);

impl Serials {
    pub(super) async fn next(&self, store: &dyn Store) -> Result<u64, StoreError> {
        loop {
            if let Some(serial) = self.take(None) {
                return Ok(serial);
            }
            let first = store.reserve(BLOCK).await?;
            if let Some(serial) = self.take(Some(first..first + BLOCK)) {
                return Ok(serial);
            }
        }
    }

    /// The next number. A block that another caller made obsolete by a higher one is dropped, so
    /// that numbers only ever rise.
    fn take(&self, block: Option<Range<u64>>) -> Option<u64> {
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(block) = block.filter(|block| block.start >= left.end) {
            *left = block;
        }
        left.next()
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;
    use crate::hub::store::MemoryStore;

    #[tokio::test]
    async fn numbers_are_unique_across_callers_blocks_and_restarts() {
        let store = MemoryStore::new();
        let mut seen = Vec::new();
        for _restart in 0..3 {
            let serials = Serials::default();
            let calls = (0..15_000).map(|_| serials.next(&store));
            seen.extend(join_all(calls).await.into_iter().map(Result::unwrap));
        }
        assert!(seen.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
