//! A store that lives as long as its last handle: for tests, and for hubs that may forget.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, ready};

use super::{Counts, Page, Store, StoreError, Stored, Verdict, Write, judge};

/// Handles cloned from one another see the same devices, so that a test can "restart" a hub.
#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    devices: BTreeMap<Arc<str>, Stored>,
    counts: Counts,
    reserved: u64,
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `act` on the state. No code that can panic halfway runs under the lock, so the state
    /// is whole even if the lock is poisoned.
    fn with<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut State) -> T,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let answer = act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
        ready(Ok(answer)).boxed()
    }
}

impl Store for MemoryStore {
    fn get<'a>(&'a self, device_id: &'a str) -> BoxFuture<'a, Result<Option<Stored>, StoreError>> {
        self.with(|state| state.devices.get(device_id).cloned())
    }

    fn scan<'a>(
        &'a self,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.with(|state| {
            let behind = state.devices.range::<str, _>((from, Bound::Unbounded));
            behind
                .take(limit)
                .map(|(id, stored)| (Arc::clone(id), stored.clone()))
                .collect()
        })
    }

    fn commit(&self, batch: Vec<Write>) -> BoxFuture<'_, Result<Vec<Verdict>, StoreError>> {
        self.with(|state| batch.into_iter().map(|write| state.apply(write)).collect())
    }

    fn reserve(&self, count: u64) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.with(|state| {
            let first = state.reserved + 1;
            state.reserved += count;
            first
        })
    }

    fn counts(&self) -> BoxFuture<'_, Result<Counts, StoreError>> {
        self.with(|state| state.counts)
    }

    fn broken(&self) -> BoxFuture<'_, ()> {
        futures::future::pending().boxed()
    }
}

impl State {
    fn apply(&mut self, write: Write) -> Verdict {
        let now = self.devices.get(&write.device_id);
        let verdict = judge(now.map(|stored| stored.revision), self.counts.total, &write);
        if verdict == Verdict::Applied {
            let before = now.map(|stored| stored.enabled);
            self.counts
                .replace(before, write.with.as_ref().map(|stored| stored.enabled));
            match write.with {
                Some(stored) => self.devices.insert(write.device_id, stored),
                None => self.devices.remove(&write.device_id),
            };
        }
        verdict
    }
}
