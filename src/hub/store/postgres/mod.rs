//! The store in PostgreSQL, for hubs that have outgrown one volume.
//!
//! One hub process writes at a time. It holds a lock in the database (a session-level advisory lock,
//! which ends with its connection) and an epoch, which every transaction compares: a process that
//! lost the lock and does not know yet is refused whatever it writes. Another process of the same
//! hub waits for the lock. So sessions, methods and caches are in one process only, and `If-Match`
//! holds also between two that overlap, since every write is a compare-and-set in SQL.
//!
//! Whatever goes wrong with the connection may have left a write whose fate is unknown. Nothing is
//! read or written after that until the lock is ours again, with a new epoch; [`Store::losses`] counts
//! it. Where the database says that it has no room, the write did not happen, and the connection is
//! as good as before.

mod keeper;
mod schema;
#[cfg(test)]
mod tests;
mod url;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use sqlx::Row as _;
use sqlx::postgres::{PgPool, PgPoolOptions};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Counts, Page, Standing, Store, StoreError, Stored, Verdict, Write};
use keeper::{Held, Keeper};
use writer::{Done, Request};

/// Connections for reads; the writer and the lock have one each besides.
const READERS: u32 = 8;
/// Longest that one statement may take, and a connection to come up.
const WITHIN: Duration = Duration::from_secs(10);
/// Requests (each of up to 100 writes) that may wait for the writer.
const QUEUE: usize = 256;

/// A hub's devices in a database, which several hubs may share.
pub struct PostgresStore {
    readers: PgPool,
    host: Arc<str>,
    queue: mpsc::Sender<Request>,
    keeper: JoinHandle<()>,
    standing: watch::Receiver<Standing>,
    losses: watch::Receiver<u64>,
    migration: Option<String>,
}

/// Why a database is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Migration {
    /// To serve from it, for which a migration into it must be finished.
    None,
    /// To bring devices to it.
    Begin,
}

/// What the column `migration` says.
const UNDER_WAY: &str = "under way";
const DONE: &str = "done";

/// Why a store did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The text is no connection URL. It is not quoted: it holds a password.
    #[error(
        "the connection URL of PostgreSQL cannot be read; expected \
         postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full"
    )]
    Url,
    #[error("the connection URL of PostgreSQL has a parameter that is not known; known are {0}")]
    Parameter(String),
    /// The database is not there, or refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another process of this hub is active.
    #[error("another process serves hub {0} from this database; this one waits for its end")]
    Held(String),
    /// A migration into this database was not finished.
    #[error(
        "the devices of hub {0} were not all brought to this database; run `rehome hub migrate` \
         again to its end"
    )]
    Unfinished(String),
}

impl PostgresStore {
    /// Opens the devices of the hub of that host name, making the tables where there are none.
    pub async fn open(url: &str, host: &str, migration: Migration) -> Result<Self, OpenError> {
        let options = url::parse(url)?;
        let host: Arc<str> = host.into();
        let held = Held::take(&options, &host, migration).await?;
        let readers = PgPoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(WITHIN)
            .connect_lazy_with(options.clone());
        let (queue, requests) = mpsc::channel(QUEUE);
        let (tell_standing, standing) = watch::channel(Standing::Well);
        let (tell_losses, losses) = watch::channel(0);
        let migration = held.migration.clone();
        let keeper = Keeper {
            options,
            host: Arc::clone(&host),
            requests,
            standing: tell_standing,
            losses: tell_losses,
        };
        Ok(Self {
            readers,
            host,
            queue,
            keeper: tokio::spawn(keeper.run(held)),
            standing,
            losses,
            migration,
        })
    }

    /// Whether a migration into it was begun, and not finished.
    pub fn is_migrating(&self) -> bool {
        self.migration.as_deref() == Some(UNDER_WAY)
    }

    /// Whether its devices came by a migration that is finished.
    pub fn is_migrated(&self) -> bool {
        self.migration.as_deref() == Some(DONE)
    }

    /// Notes that a migration is under way, or done.
    pub async fn note_migration(&self, is_done: bool) -> Result<(), StoreError> {
        let state = if is_done { DONE } else { UNDER_WAY };
        let query = sqlx::query("UPDATE rehome_hubs SET migration = $2 WHERE host = $1");
        let query = query.bind(&*self.host).bind(state).execute(&self.readers);
        let noted = within(query).await;
        noted
            .map(|_| ())
            .map_err(|why| StoreError::new("note the migration", why))
    }

    /// The last device in the order of ids.
    pub async fn last_id(&self) -> Result<Option<Arc<str>>, StoreError> {
        let query =
            sqlx::query("SELECT id FROM rehome_devices WHERE host = $1 ORDER BY id DESC LIMIT 1");
        let row = within(query.bind(&*self.host).fetch_optional(&self.readers)).await;
        let id = row.and_then(|row| {
            row.map(|row| Ok(row.try_get::<&str, _>("id")?.into()))
                .transpose()
        });
        id.map_err(|why| StoreError::new("find the last device", why))
    }

    async fn ask(&self, writes: Vec<Write>, reserve: u64) -> Result<Done, StoreError> {
        self.refuse_if_away()?;
        let lost = || StoreError::new("write", "PostgreSQL was lost meanwhile; it may be written");
        let (answer, answered) = oneshot::channel();
        let request = Request {
            writes,
            reserve,
            since: Instant::now(),
            answer,
        };
        self.queue.send(request).await.map_err(|_| lost())?;
        answered.await.map_err(|_| lost())?
    }

    /// What is read from a database that another process may be writing is not acknowledged here.
    fn refuse_if_away(&self) -> Result<(), StoreError> {
        match &*self.standing.borrow() {
            Standing::Well | Standing::Full => Ok(()),
            away @ Standing::Away(_) => Err(StoreError::away(away)),
        }
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Store for PostgresStore {
    fn get<'a>(&'a self, device_id: &'a str) -> BoxFuture<'a, Result<Option<Stored>, StoreError>> {
        async move {
            self.refuse_if_away()?;
            let query = sqlx::query(
                "SELECT revision, enabled, body FROM rehome_devices WHERE host = $1 AND id = $2",
            );
            let query = query.bind(&*self.host).bind(device_id);
            let row = within(query.fetch_optional(&self.readers)).await;
            let found = row.and_then(|row| row.map(|row| stored(&row)).transpose());
            found.map_err(|why| StoreError::new("read a device", why))
        }
        .boxed()
    }

    fn scan<'a>(
        &'a self,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        async move {
            self.refuse_if_away()?;
            let query = sqlx::query(
                "SELECT id, revision, enabled, body FROM rehome_devices \
                 WHERE host = $1 AND id > $2 ORDER BY id LIMIT $3",
            );
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let query = query
                .bind(&*self.host)
                .bind(after.unwrap_or(""))
                .bind(limit);
            let read = within(query.fetch_all(&self.readers))
                .await
                .and_then(|rows| {
                    let rows = rows.iter();
                    rows.map(|row| Ok((row.try_get::<&str, _>("id")?.into(), stored(row)?)))
                        .collect()
                });
            read.map_err(|why| StoreError::new("scan the devices", why))
        }
        .boxed()
    }

    fn commit(&self, batch: Vec<Write>) -> BoxFuture<'_, Result<Vec<Verdict>, StoreError>> {
        async { Ok(self.ask(batch, 0).await?.verdicts) }.boxed()
    }

    fn reserve(&self, count: u64) -> BoxFuture<'_, Result<u64, StoreError>> {
        async move { Ok(self.ask(Vec::new(), count).await?.first_reserved) }.boxed()
    }

    fn counts(&self) -> BoxFuture<'_, Result<Counts, StoreError>> {
        async {
            self.refuse_if_away()?;
            let query = sqlx::query("SELECT total, enabled FROM rehome_hubs WHERE host = $1");
            let row = within(query.bind(&*self.host).fetch_one(&self.readers)).await;
            let counts = row.and_then(|row| {
                Ok(Counts {
                    total: number(&row, "total")?,
                    enabled: number(&row, "enabled")?,
                })
            });
            counts.map_err(|why| StoreError::new("count the devices", why))
        }
        .boxed()
    }

    fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    fn losses(&self) -> watch::Receiver<u64> {
        self.losses.clone()
    }

    /// Not when the database is lost, for it is regained; but nobody writes once its keeper has ended.
    fn broken(&self) -> BoxFuture<'_, ()> {
        let mut standing = self.standing.clone();
        async move { while standing.changed().await.is_ok() {} }.boxed()
    }
}

/// Bounds a statement: a server that is gone may never say so.
async fn within<T>(
    statement: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    let done = tokio::time::timeout(WITHIN, statement).await;
    done.unwrap_or_else(|_| {
        let why = format!("no answer within {} s", WITHIN.as_secs());
        Err(sqlx::Error::Io(std::io::Error::other(why)))
    })
}

fn stored(row: &sqlx::postgres::PgRow) -> Result<Stored, sqlx::Error> {
    Ok(Stored {
        revision: number(row, "revision")?,
        enabled: row.try_get("enabled")?,
        body: Bytes::copy_from_slice(row.try_get("body")?),
    })
}

/// Numbers of ours have 63 bits.
fn number(row: &sqlx::postgres::PgRow, column: &str) -> Result<u64, sqlx::Error> {
    let number: i64 = row.try_get(column)?;
    u64::try_from(number).map_err(|why| sqlx::Error::Decode(why.into()))
}
