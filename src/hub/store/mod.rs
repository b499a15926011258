//! Where a hub keeps its devices: a sorted map from device id to an opaque body, plus one counter.
//!
//! The store owns durability and compare-and-set, nothing else: it knows neither identities nor
//! twins. A [`Write`] names the revision that it replaces, so a decision made on an older read is
//! refused rather than applied; the caller reads again and decides again.
//!
//! A write is acknowledged only once it would survive the loss of power (the in-memory store, for
//! tests, would not survive anything). [`MemoryStore`], [`DurableStore`] and [`PostgresStore`] pass one
//! test suite.

mod durable;
mod memory;
mod postgres;
mod reserve;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod forgetful;

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::watch;

pub use durable::DurableStore;
pub use memory::MemoryStore;
pub use postgres::{Migration, OpenError, PostgresStore};

/// One device as the store sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Changes with every write and is never used twice within a hub's life.
    pub revision: u64,
    /// Counted for the statistics; the store gives it no other meaning.
    pub enabled: bool,
    /// The device, encoded by the caller.
    pub body: Bytes,
}

/// Replaces, creates or removes one device, provided that it is still as the caller read it.
#[derive(Clone, Debug)]
pub struct Write {
    pub device_id: Arc<str>,
    /// The revision that the caller read; `None` where the device must not exist.
    pub replaces: Option<u64>,
    /// What to store; `None` removes the device.
    pub with: Option<Stored>,
    /// A write that adds a device is refused when this many are stored already.
    pub capacity: u64,
}

/// What became of one [`Write`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Applied,
    /// The device is not (or no longer) at the revision named.
    Stale,
    /// The store holds `capacity` devices.
    Full,
}

/// How many devices there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub total: u64,
    pub enabled: u64,
}

/// Why the store could not answer. A write that failed so may or may not have been stored.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the hub's store could not {doing}: {why}")]
pub struct StoreError {
    doing: &'static str,
    why: String,
}

impl StoreError {
    /// Refused before anything was done, for want of room.
    fn full(what: &str) -> Self {
        let why = format!("{what} is full; nothing was written, and is not until there is room");
        Self::new("write", why)
    }

    fn new(doing: &'static str, why: impl Into<Box<dyn std::error::Error>>) -> Self {
        Self {
            doing,
            why: why.into().to_string(),
        }
    }
}

impl StoreError {
    /// Refused before anything was done, because the store is away.
    fn away(standing: &Standing) -> Self {
        let why = match standing {
            Standing::Away(why) => why.as_str(),
            Standing::Well | Standing::Full => "it was away for a moment",
        };
        Self::new("be reached", why)
    }
}

/// What a store can do at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// All that it is for.
    Well,
    /// It reads, and refuses writes for want of room. A write that needs none may be taken.
    Full,
    /// Neither, for that reason, until it is there again.
    Away(String),
}

/// Devices with their ids, in order.
pub type Page = Vec<(Arc<str>, Stored)>;

/// A durable sorted map with compare-and-set.
pub trait Store: Send + Sync + 'static {
    /// The device as last acknowledged.
    fn get<'a>(&'a self, device_id: &'a str) -> BoxFuture<'a, Result<Option<Stored>, StoreError>>;

    /// Up to `limit` devices in order of their ids, beginning behind `after`.
    fn scan<'a>(
        &'a self,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, StoreError>>;

    /// Applies each write on its own and answers, in the same order, once all are durable.
    fn commit(&self, batch: Vec<Write>) -> BoxFuture<'_, Result<Vec<Verdict>, StoreError>>;

    /// Sets aside `count` numbers that will never be given out again and returns the first.
    fn reserve(&self, count: u64) -> BoxFuture<'_, Result<u64, StoreError>>;

    fn counts(&self) -> BoxFuture<'_, Result<Counts, StoreError>>;

    /// What can be asked of it now.
    fn standing(&self) -> Standing {
        Standing::Well
    }

    /// Counts how often it went away. Writes on their way then may or may not have happened, so
    /// whoever counts on having heard of every write has to ask anew.
    fn losses(&self) -> watch::Receiver<u64> {
        watch::channel(0).1
    }

    /// Resolves once it has failed for good: nothing is read or written any more then.
    fn broken(&self) -> BoxFuture<'_, ()>;
}

/// The rules of [`Store::commit`] for one write, given what is stored now.
fn judge(now: Option<u64>, total: u64, write: &Write) -> Verdict {
    if now != write.replaces {
        return Verdict::Stale;
    }
    if now.is_none() && write.with.is_some() && total >= write.capacity {
        return Verdict::Full;
    }
    Verdict::Applied
}

impl Counts {
    /// These counts after `before` was replaced by `after`.
    fn replace(&mut self, before: Option<bool>, after: Option<bool>) {
        if let Some(enabled) = before {
            self.total -= 1;
            self.enabled -= u64::from(enabled);
        }
        if let Some(enabled) = after {
            self.total += 1;
            self.enabled += u64::from(enabled);
        }
    }
}
