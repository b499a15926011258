//! The one writer, which commits for everybody at once, as that of the store on disk does.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Row as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::{number, schema, within};
use crate::hub::store::{Counts, Standing, StoreError, Stored, Verdict, Write, judge};

/// Most writes in one transaction.
const GROUP: usize = 1000;

/// Longest wait for a turn: clients reckon with a bound on how long after their own time limit a write
/// can still happen, and to write takes its time, too.
const TURN: Duration = Duration::from_secs(5);

/// What one caller waits for.
pub(super) struct Request {
    pub(super) writes: Vec<Write>,
    /// How many numbers to set aside.
    pub(super) reserve: u64,
    pub(super) since: Instant,
    pub(super) answer: oneshot::Sender<Result<Done, StoreError>>,
}

impl Request {
    fn is_late(&self) -> bool {
        self.since.elapsed() > TURN
    }

    pub(super) fn refuse(self, why: &StoreError) {
        let _ = self.answer.send(Err(why.clone()));
    }
}

pub(super) struct Done {
    pub(super) verdicts: Vec<Verdict>,
    pub(super) first_reserved: u64,
}

pub(super) struct Writer {
    connection: PgConnection,
    host: Arc<str>,
    epoch: i64,
}

/// A device as it is in the course of a transaction.
#[derive(Default)]
struct Touched {
    /// Revision, and whether it is enabled.
    now: Option<(u64, bool)>,
    change: Change,
}

/// What is to be written of a device.
#[derive(Default)]
enum Change {
    #[default]
    Nothing,
    Remove,
    Put(Stored),
}

impl Writer {
    pub(super) fn new(connection: PgConnection, host: Arc<str>, epoch: i64) -> Self {
        Self {
            connection,
            host,
            epoch,
        }
    }

    /// Writes until the fate of a write is unknown; why that is.
    pub(super) async fn run(
        &mut self,
        requests: &mut mpsc::Receiver<Request>,
        standing: &watch::Sender<Standing>,
    ) -> sqlx::Error {
        loop {
            // The store outlives this: who drops it ends this, too.
            let Some(group) = gather(requests).await else {
                return std::future::pending().await;
            };
            if let Err(why) = self.serve(group, standing).await {
                return why;
            }
        }
    }

    /// Writes a group and answers it. Where there is no room for all of it, each of it is tried: a
    /// removal must not fail for what is added by others.
    async fn serve(
        &mut self,
        group: Vec<Request>,
        standing: &watch::Sender<Standing>,
    ) -> Result<(), sqlx::Error> {
        let refused = self.attempt(group).await?;
        let is_one = refused.len() == 1;
        for request in refused {
            let one = vec![request];
            let refused = if is_one {
                one
            } else {
                self.attempt(one).await?
            };
            for request in refused {
                if standing.send_replace(Standing::Full) != Standing::Full {
                    tracing::error!(
                        "PostgreSQL has no room for a write; the hub reads on, and refuses what \
                         does not fit"
                    );
                }
                request.refuse(&StoreError::full("the disk of PostgreSQL"));
            }
        }
        Ok(())
    }

    /// Writes a group and answers it, unless there is no room: then it is given back.
    async fn attempt(&mut self, group: Vec<Request>) -> Result<Vec<Request>, sqlx::Error> {
        let (late, group): (Vec<_>, Vec<_>) = group.into_iter().partition(Request::is_late);
        for request in late {
            let why = "it waited too long for its turn; nothing was written";
            request.refuse(&StoreError::new("write", why));
        }
        if group.is_empty() {
            return Ok(group);
        }
        match within(self.write(&group)).await {
            Ok(done) => {
                for (request, done) in group.into_iter().zip(done) {
                    // A writer that no longer waits has lost its answer, not its write.
                    let _ = request.answer.send(Ok(done));
                }
                Ok(Vec::new())
            }
            Err(why) if schema::is_full(&why) => Ok(group),
            Err(why) => {
                let failed = StoreError::new("write", why.to_string());
                for request in group {
                    request.refuse(&failed);
                }
                Err(why)
            }
        }
    }

    /// Applies a group in one transaction; durable when this returns.
    async fn write(&mut self, group: &[Request]) -> Result<Vec<Done>, sqlx::Error> {
        let host = Arc::clone(&self.host);
        let mut transaction = self.connection.begin().await?;
        let hub = sqlx::query(
            "SELECT epoch, reserved, total, enabled FROM rehome_hubs WHERE host = $1 FOR UPDATE",
        );
        let hub = hub.bind(&*host).fetch_one(&mut *transaction).await?;
        if hub.try_get::<i64, _>("epoch")? != self.epoch {
            let why = "another process has taken this hub over";
            return Err(sqlx::Error::Protocol(why.to_owned()));
        }
        let mut counts = Counts {
            total: number(&hub, "total")?,
            enabled: number(&hub, "enabled")?,
        };
        let mut reserved = number(&hub, "reserved")?;
        let mut touched = read(&mut transaction, &host, group).await?;
        let mut done = Vec::with_capacity(group.len());
        for request in group {
            let first_reserved = reserved + 1;
            reserved += request.reserve;
            let writes = request.writes.iter();
            let verdicts = writes.map(|write| {
                let device = touched.entry(Arc::clone(&write.device_id)).or_default();
                device.apply(&mut counts, write)
            });
            done.push(Done {
                verdicts: verdicts.collect(),
                first_reserved,
            });
        }
        put(&mut transaction, &host, &touched).await?;
        sqlx::query(
            "UPDATE rehome_hubs SET reserved = $2, total = $3, enabled = $4 WHERE host = $1",
        )
        .bind(&*host)
        .bind(signed(reserved)?)
        .bind(signed(counts.total)?)
        .bind(signed(counts.enabled)?)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(done)
    }
}

/// The next request and those that wait behind it; `None` once there will be no more.
async fn gather(requests: &mut mpsc::Receiver<Request>) -> Option<Vec<Request>> {
    let first = requests.recv().await?;
    let mut size = first.writes.len();
    let mut group = vec![first];
    while size < GROUP
        && let Ok(next) = requests.try_recv()
    {
        size += next.writes.len();
        group.push(next);
    }
    Some(group)
}

impl Touched {
    fn apply(&mut self, counts: &mut Counts, write: &Write) -> Verdict {
        let verdict = judge(self.now.map(|(revision, _)| revision), counts.total, write);
        if verdict == Verdict::Applied {
            let next = write
                .with
                .as_ref()
                .map(|with| (with.revision, with.enabled));
            counts.replace(
                self.now.map(|(_, enabled)| enabled),
                next.map(|(_, enabled)| enabled),
            );
            self.now = next;
            self.change = write.with.clone().map_or(Change::Remove, Change::Put);
        }
        verdict
    }
}

type Devices = HashMap<Arc<str>, Touched>;

/// The devices of the group as they are.
async fn read(
    transaction: &mut PgConnection,
    host: &str,
    group: &[Request],
) -> Result<Devices, sqlx::Error> {
    let ids = group.iter().flat_map(|request| &request.writes);
    let ids: Vec<&str> = ids.map(|write| &*write.device_id).collect();
    let mut devices = Devices::new();
    if ids.is_empty() {
        return Ok(devices);
    }
    let query = sqlx::query(
        "SELECT id, revision, enabled FROM rehome_devices WHERE host = $1 AND id = ANY($2)",
    );
    for row in query
        .bind(host)
        .bind(&ids[..])
        .fetch_all(transaction)
        .await?
    {
        let now = Some((number(&row, "revision")?, row.try_get("enabled")?));
        devices.insert(
            row.try_get::<&str, _>("id")?.into(),
            Touched {
                now,
                change: Change::Nothing,
            },
        );
    }
    Ok(devices)
}

/// Writes what has changed.
async fn put(
    transaction: &mut PgConnection,
    host: &str,
    devices: &Devices,
) -> Result<(), sqlx::Error> {
    let mut gone: Vec<&str> = Vec::new();
    let (mut ids, mut revisions, mut enabled, mut bodies) = (vec![], vec![], vec![], vec![]);
    for (id, device) in devices {
        match &device.change {
            Change::Nothing => {}
            Change::Remove => gone.push(id),
            Change::Put(stored) => {
                ids.push(&**id);
                revisions.push(signed(stored.revision)?);
                enabled.push(stored.enabled);
                bodies.push(&stored.body[..]);
            }
        }
    }
    if !gone.is_empty() {
        sqlx::query("DELETE FROM rehome_devices WHERE host = $1 AND id = ANY($2)")
            .bind(host)
            .bind(&gone[..])
            .execute(&mut *transaction)
            .await?;
    }
    if !ids.is_empty() {
        sqlx::query(
            "INSERT INTO rehome_devices (host, id, revision, enabled, body) \
             SELECT $1, * FROM unnest($2::text[], $3::bigint[], $4::boolean[], $5::bytea[]) \
             ON CONFLICT (host, id) DO UPDATE SET revision = excluded.revision, \
             enabled = excluded.enabled, body = excluded.body",
        )
        .bind(host)
        .bind(&ids[..])
        .bind(&revisions[..])
        .bind(&enabled[..])
        .bind(&bodies[..])
        .execute(transaction)
        .await?;
    }
    Ok(())
}

fn signed(number: u64) -> Result<i64, sqlx::Error> {
    i64::try_from(number).map_err(|why| sqlx::Error::Encode(why.into()))
}
