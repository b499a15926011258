//! `rehome hub migrate`: brings the devices of a hub from its file to PostgreSQL.
//!
//! The file is only read, and stays as it was. Devices go over in the order of their ids, a page in
//! each transaction, so that what is there already says where to go on: a migration that was broken
//! off is started again and goes on behind the last device that arrived. Until it is done no hub
//! serves from the database, and a database that holds devices of another origin is not touched.
//!
//! A hub that was started from its file again meanwhile shows by the numbers that it took there, for
//! each process takes new ones before its first write: then what has arrived may be old, and goes.

use std::path::PathBuf;
use std::sync::Arc;

use super::source::{Unopened, open_postgres, read_url};
use super::store::{DurableStore, Migration, PostgresStore, Store, StoreError, Verdict, Write};

/// Devices in one transaction.
const PAGE: usize = 500;

/// Bring the devices of a hub that is stopped from its file to PostgreSQL; started again, it goes on
/// where it was broken off.
#[derive(Debug, clap::Args)]
pub struct MigrateOptions {
    /// Name of the hub, as it is served.
    #[arg(long, env = "REHOME_HUB_HOST_NAME")]
    host_name: String,
    /// File that holds the devices. It is not changed.
    #[arg(long, env = "REHOME_HUB_STORE")]
    store: PathBuf,
    /// File with the connection URL of the PostgreSQL database.
    #[arg(long, env = "REHOME_HUB_STORE_POSTGRES", value_name = "FILE")]
    store_postgres: PathBuf,
}

/// Why devices were not brought over. The file holds all of them, whatever happened.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error("the stores cannot be opened")]
    Open(#[from] Unopened),
    #[error("{} does not exist; --store names the file of the hub that is to be migrated", .0.display())]
    NoFile(PathBuf),
    #[error("the devices were not all brought over; start it again to go on")]
    Store(#[from] StoreError),
    #[error(
        "the database holds devices of hub {0} that did not come from a migration; delete them first \
         (DELETE FROM rehome_devices WHERE host = '{0}'; DELETE FROM rehome_hubs WHERE host = '{0}')"
    )]
    Occupied(String),
    #[error(
        "device {0} is at another revision in the database than the migration left it; somebody else \
         writes there"
    )]
    Changed(Arc<str>),
    #[error(
        "hub {0} has served from the file since its devices were brought over; if it does not matter \
         what changed then, start it with --store-postgres, else delete what was brought over (DELETE \
         FROM rehome_devices WHERE host = '{0}'; DELETE FROM rehome_hubs WHERE host = '{0}') and \
         start this again"
    )]
    Served(String),
    #[error("{arrived} of {expected} devices arrived; start it again")]
    Incomplete { expected: u64, arrived: u64 },
}

/// Runs to the end, or to the first failure.
pub async fn migrate(options: MigrateOptions) -> Result<(), MigrateError> {
    let MigrateOptions {
        host_name,
        store,
        store_postgres,
    } = options;
    if !store.is_file() {
        return Err(MigrateError::NoFile(store));
    }
    let url = read_url(&store_postgres).await?;
    let from = DurableStore::open(&store).map_err(Unopened::Store)?;
    let to = open_postgres(&url, &host_name, Migration::Begin, |_| ()).await?;
    if to.is_migrated() {
        if next(&from).await? > next(&to).await? {
            return Err(MigrateError::Served(host_name));
        }
        tracing::info!(host_name, "every device was brought over before");
        return Ok(());
    }
    copy(&from, &to, &host_name).await
}

async fn copy(from: &DurableStore, to: &PostgresStore, host: &str) -> Result<(), MigrateError> {
    if !to.is_migrating() && to.counts().await?.total > 0 {
        return Err(MigrateError::Occupied(host.to_owned()));
    }
    to.note_migration(false).await?;
    let (given, taken) = (next(from).await?, next(to).await?);
    if given > taken {
        clear(to, host).await?;
    }
    // No number may be given out again that the file gave out.
    to.reserve(given.saturating_sub(taken)).await?;
    let mut last = to.last_id().await?;
    let expected = from.counts().await?.total;
    tracing::info!(
        devices = expected,
        after = last.as_deref(),
        "bringing devices over"
    );
    loop {
        let page = from.scan(last.as_deref(), PAGE).await?;
        let Some((id, _)) = page.last() else { break };
        last = Some(Arc::clone(id));
        let devices = page.len();
        let writes = page.into_iter().map(|(device_id, stored)| Write {
            device_id,
            replaces: None,
            with: Some(stored),
            capacity: u64::MAX,
        });
        write(to, writes.collect()).await?;
        tracing::info!(devices, last = last.as_deref(), "brought over");
    }
    let arrived = to.counts().await?.total;
    if arrived != expected {
        return Err(MigrateError::Incomplete { expected, arrived });
    }
    to.note_migration(true).await?;
    tracing::info!(
        devices = arrived,
        "every device was brought over; the hub can be started"
    );
    Ok(())
}

/// The number that would be given out next.
async fn next(store: &dyn Store) -> Result<u64, StoreError> {
    store.reserve(0).await
}

/// Removes what arrived before the hub served from its file again; nothing, most of the time.
async fn clear(to: &PostgresStore, host: &str) -> Result<(), MigrateError> {
    loop {
        let page = to.scan(None, PAGE).await?;
        if page.is_empty() {
            return Ok(());
        }
        tracing::warn!(
            devices = page.len(),
            "hub {host} has served from its file since these were brought over; they are removed, to \
             be brought over anew"
        );
        let writes = page.into_iter().map(|(device_id, stored)| Write {
            device_id,
            replaces: Some(stored.revision),
            with: None,
            capacity: u64::MAX,
        });
        write(to, writes.collect()).await?;
    }
}

async fn write(to: &PostgresStore, writes: Vec<Write>) -> Result<(), MigrateError> {
    let ids: Vec<_> = writes
        .iter()
        .map(|write| Arc::clone(&write.device_id))
        .collect();
    let verdicts = to.commit(writes).await?;
    let is_refused = |verdict: &Verdict| *verdict != Verdict::Applied;
    match verdicts
        .iter()
        .position(is_refused)
        .and_then(|at| ids.get(at))
    {
        Some(id) => Err(MigrateError::Changed(Arc::clone(id))),
        None => Ok(()),
    }
}
