//! Keeps the hub in the hands of this process: takes it, holds it, and takes it again when the
//! database was away.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};
use tokio::sync::{mpsc, watch};

use super::writer::{Request, Writer};
use super::{Migration, OpenError, UNDER_WAY, schema, within};
use crate::hub::store::{Standing, StoreError};

/// Between looks at whether the lock is still ours.
const BEAT: Duration = Duration::from_secs(2);
/// Between tries to take the hub again.
const RETRY: Duration = Duration::from_secs(1);

/// What a process has of a hub that it serves: the lock, as long as that connection lives, and the
/// connection that writes.
pub(super) struct Held {
    lock: PgConnection,
    writer: Writer,
    /// How far a migration into it is.
    pub(super) migration: Option<String>,
}

impl Held {
    /// Takes the hub, making the tables where there are none.
    pub(super) async fn take(
        options: &PgConnectOptions,
        host: &Arc<str>,
        migration: Migration,
    ) -> Result<Self, OpenError> {
        let failed = |why: sqlx::Error| StoreError::new("connect to PostgreSQL", why);
        let unprepared = |why: sqlx::Error| StoreError::new("prepare its tables", why);
        let connection = within(PgConnection::connect_with(options)).await;
        let mut lock = connection.map_err(failed)?;
        let prepared = within(schema::prepare(&mut lock)).await;
        prepared.map_err(unprepared)?;
        let taken = within(schema::take(&mut lock, host)).await;
        let Some((epoch, state)) = taken.map_err(unprepared)? else {
            return Err(OpenError::Held(host.as_ref().to_owned()));
        };
        if migration == Migration::None && state.as_deref() == Some(UNDER_WAY) {
            return Err(OpenError::Unfinished(host.as_ref().to_owned()));
        }
        let connection = within(PgConnection::connect_with(options)).await;
        let mut writing = connection.map_err(failed)?;
        let durable = within(schema::make_durable(&mut writing)).await;
        durable.map_err(failed)?;
        Ok(Self {
            lock,
            writer: Writer::new(writing, Arc::clone(host), epoch),
            migration: state,
        })
    }
}

/// What the store is told, and tells.
pub(super) struct Keeper {
    pub(super) options: PgConnectOptions,
    pub(super) host: Arc<str>,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) standing: watch::Sender<Standing>,
    pub(super) losses: watch::Sender<u64>,
}

impl Keeper {
    /// Serves what it holds, and takes it again whenever it is lost, as long as the store lives.
    pub(super) async fn run(mut self, mut held: Held) {
        loop {
            let Held { lock, writer, .. } = &mut held;
            let why = tokio::select! {
                why = writer.run(&mut self.requests, &self.standing) => why,
                why = hold(lock, &self.host, &self.standing) => why,
            };
            let why = format!("PostgreSQL was lost ({why})");
            tracing::error!("{why}; the hub serves nobody until it is back");
            // First nobody else gets in, then those learn it who count on it.
            self.standing.send_replace(Standing::Away(why));
            self.losses.send_modify(|losses| *losses += 1);
            drop(held);
            held = self.regain().await;
            tracing::info!("PostgreSQL is back; the hub goes on");
            self.standing.send_replace(Standing::Well);
        }
    }

    /// Takes the hub again, however long that takes; who wants to write meanwhile is refused.
    async fn regain(&mut self) -> Held {
        let Self {
            options,
            host,
            requests,
            standing,
            ..
        } = self;
        let mut regained = std::pin::pin!(regain(options, host, standing));
        loop {
            tokio::select! {
                held = &mut regained => return held,
                Some(request) = requests.recv() => {
                    request.refuse(&StoreError::away(&standing.borrow()));
                }
            }
        }
    }
}

async fn regain(
    options: &PgConnectOptions,
    host: &Arc<str>,
    standing: &watch::Sender<Standing>,
) -> Held {
    loop {
        match Held::take(options, host, Migration::None).await {
            Ok(held) => return held,
            Err(why) => {
                let why = match why {
                    OpenError::Store(why) => format!("it could not {}: {}", why.doing, why.why),
                    OpenError::Url
                    | OpenError::Parameter(_)
                    | OpenError::Held(_)
                    | OpenError::Unfinished(_) => why.to_string(),
                };
                let away = Standing::Away(why.clone());
                if *standing.borrow() != away {
                    tracing::warn!("{why}; it is tried again until that has changed");
                    standing.send_replace(away);
                }
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Holds the lock as long as its connection lives; while there is no room, sees whether there is.
async fn hold(
    lock: &mut PgConnection,
    host: &str,
    standing: &watch::Sender<Standing>,
) -> sqlx::Error {
    loop {
        tokio::time::sleep(BEAT).await;
        let is_full = *standing.borrow() == Standing::Full;
        let looked = if is_full {
            within(schema::has_room(lock, host)).await
        } else {
            within(lock.ping()).await.map(|()| false)
        };
        match looked {
            Ok(true) => {
                tracing::info!("PostgreSQL has room again");
                standing.send_replace(Standing::Well);
            }
            Ok(false) => {}
            Err(why) => return why,
        }
    }
}
