//! The store on disk: one `redb` file and one writer that commits for everybody at once.
//!
//! A durable commit costs a sync of the disk, so concurrent writers share it: the writer thread
//! takes whatever is waiting (up to [`GROUP`] writes), applies it in one transaction and answers
//! each writer only after that transaction is durable. While it syncs, the next group gathers.
//! The queue is bounded: writers wait for room instead of filling the memory.
//!
//! A volume that is full is no failure: [`super::reserve`] keeps room back, and writes are refused
//! before they begin. After a failed write nothing can be read or written any more until the file is
//! opened again, so whoever runs the store watches [`Store::broken`] and starts afresh.

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table,
    TableDefinition,
};
use tokio::sync::{mpsc, oneshot, watch};

use super::reserve::{Reserve, ReservedFile};
use super::{Counts, Page, Standing, Store, StoreError, Stored, Verdict, Write, judge};

/// Most writes in one transaction: bounds how long the first of a group waits for the last, and with
/// [`GROUP_BYTES`] how much room it takes.
const GROUP: usize = 2048;
/// No more is added to a transaction that writes so much.
const GROUP_BYTES: usize = 4 << 20;
/// Requests (each of up to 100 writes) that may wait for the writer.
const QUEUE: usize = 256;
/// Pages of the file kept in memory.
const CACHE_BYTES: usize = 128 << 20;

/// Device id → revision, enabled, body.
const DEVICES: TableDefinition<&str, (u64, bool, &[u8])> = TableDefinition::new("devices");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const RESERVED: &str = "reserved";
const ENABLED: &str = "enabled";

/// A store in one file that only one process can open at a time.
pub struct DurableStore {
    database: Arc<Database>,
    /// None over a disk of a test.
    reserve: Option<Arc<Reserve>>,
    /// `None` only while dropping.
    queue: Option<mpsc::Sender<Request>>,
    writer: Option<JoinHandle<()>>,
    is_broken: watch::Receiver<bool>,
}

/// What one caller waits for.
struct Request {
    writes: Vec<Write>,
    /// How many numbers to set aside.
    reserve: u64,
    answer: oneshot::Sender<Result<Done, StoreError>>,
}

impl Request {
    fn bytes(&self) -> usize {
        let stored = self.writes.iter().filter_map(|write| write.with.as_ref());
        stored.map(|stored| stored.body.len()).sum()
    }
}

struct Done {
    verdicts: Vec<Verdict>,
    first_reserved: u64,
}

impl DurableStore {
    /// Opens the file, creating it where there is none.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |why: &dyn std::fmt::Display| {
            StoreError::new("open its file", format!("{} ({why})", path.display()))
        };
        let reserve = Arc::new(Reserve::beside(path).map_err(|why| failed(&why))?);
        let file = ReservedFile::open(path, Arc::clone(&reserve)).map_err(|why| failed(&why))?;
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(file)
            .map_err(|why| failed(&why))?;
        Self::with_reserve(database, Some(reserve))
    }

    #[cfg(test)]
    pub(super) fn over(database: Database) -> Result<Self, StoreError> {
        Self::with_reserve(database, None)
    }

    fn with_reserve(database: Database, reserve: Option<Arc<Reserve>>) -> Result<Self, StoreError> {
        prepare(&database).map_err(|why| StoreError::new("prepare its file", why))?;
        let database = Arc::new(database);
        let (queue, requests) = mpsc::channel(QUEUE);
        let (broken, is_broken) = watch::channel(false);
        let (writing, room) = (Arc::clone(&database), reserve.clone());
        let writer = std::thread::Builder::new()
            .name("hub-store-writer".into())
            .spawn(move || write_groups(&writing, room.as_deref(), requests, &broken))
            .map_err(|why| StoreError::new("start its writer", why))?;
        Ok(Self {
            database,
            reserve,
            queue: Some(queue),
            writer: Some(writer),
            is_broken,
        })
    }

    /// The number that would be given out next.
    fn next_number(&self) -> Result<u64, StoreError> {
        let read = || -> Result<_, redb::Error> {
            let meta = self.database.begin_read()?.open_table(META)?;
            Ok(read_number(&meta, RESERVED)? + 1)
        };
        read().map_err(|why| StoreError::new("read its numbers", why))
    }

    async fn ask(&self, writes: Vec<Write>, reserve: u64) -> Result<Done, StoreError> {
        let gone = || StoreError::new("write", "its writer has ended");
        let (answer, answered) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or_else(gone)?;
        queue
            .send(Request {
                writes,
                reserve,
                answer,
            })
            .await
            .map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

impl Drop for DurableStore {
    /// Lets the writer finish what it has accepted, so that the file can be opened again at once.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the hub's store writer panicked");
        }
    }
}

impl Store for DurableStore {
    fn get<'a>(&'a self, device_id: &'a str) -> BoxFuture<'a, Result<Option<Stored>, StoreError>> {
        let read = || -> Result<_, redb::Error> {
            let devices = self.database.begin_read()?.open_table(DEVICES)?;
            Ok(devices.get(device_id)?.map(|row| decode(row.value())))
        };
        let found = read().map_err(|why| StoreError::new("read a device", why));
        std::future::ready(found).boxed()
    }

    fn scan<'a>(
        &'a self,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        let (database, after) = (Arc::clone(&self.database), after.map(str::to_owned));
        let read = move || -> Result<_, redb::Error> {
            let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let devices = database.begin_read()?.open_table(DEVICES)?;
            devices
                .range::<&str>((from, Bound::Unbounded))?
                .take(limit)
                .map(|row| row.map(|(id, row)| (Arc::from(id.value()), decode(row.value()))))
                .collect::<Result<Vec<_>, _>>()
                .map_err(redb::Error::from)
        };
        async move {
            let scanned = tokio::task::spawn_blocking(read).await;
            let scanned = scanned.map_err(|why| StoreError::new("scan the devices", why))?;
            scanned.map_err(|why| StoreError::new("scan the devices", why))
        }
        .boxed()
    }

    fn commit(&self, batch: Vec<Write>) -> BoxFuture<'_, Result<Vec<Verdict>, StoreError>> {
        async { Ok(self.ask(batch, 0).await?.verdicts) }.boxed()
    }

    fn reserve(&self, count: u64) -> BoxFuture<'_, Result<u64, StoreError>> {
        async move {
            if count == 0 {
                // Sets nothing aside, so nothing is to be written.
                return self.next_number();
            }
            Ok(self.ask(Vec::new(), count).await?.first_reserved)
        }
        .boxed()
    }

    fn counts(&self) -> BoxFuture<'_, Result<Counts, StoreError>> {
        let read = || -> Result<_, redb::Error> {
            let transaction = self.database.begin_read()?;
            let devices = transaction.open_table(DEVICES)?;
            let enabled = transaction
                .open_table(META)?
                .get(ENABLED)?
                .map_or(0, |row| row.value());
            Ok(Counts {
                total: devices.len()?,
                enabled,
            })
        };
        std::future::ready(read().map_err(|why| StoreError::new("count the devices", why))).boxed()
    }

    fn standing(&self) -> Standing {
        let has_room = self
            .reserve
            .as_ref()
            .is_none_or(|reserve| reserve.restore());
        if has_room {
            Standing::Well
        } else {
            Standing::Full
        }
    }

    fn broken(&self) -> BoxFuture<'_, ()> {
        let mut is_broken = self.is_broken.clone();
        async move {
            let _ = is_broken.wait_for(|broken| *broken).await;
        }
        .boxed()
    }
}

/// Makes the tables where there are none; else nothing is written, for which there may be no room.
fn prepare(database: &Database) -> Result<(), redb::Error> {
    let reading = database.begin_read()?;
    if reading.open_table(DEVICES).is_ok() && reading.open_table(META).is_ok() {
        return Ok(());
    }
    let transaction = database.begin_write()?;
    transaction.open_table(DEVICES)?;
    transaction.open_table(META)?;
    Ok(transaction.commit()?)
}

fn decode((revision, enabled, body): (u64, bool, &[u8])) -> Stored {
    Stored {
        revision,
        enabled,
        body: Bytes::copy_from_slice(body),
    }
}

fn write_groups(
    database: &Database,
    reserve: Option<&Reserve>,
    mut requests: mpsc::Receiver<Request>,
    broken: &watch::Sender<bool>,
) {
    while let Some(first) = requests.blocking_recv() {
        let (mut size, mut bytes) = (first.writes.len(), first.bytes());
        let mut group = vec![first];
        while size < GROUP
            && bytes < GROUP_BYTES
            && let Ok(next) = requests.try_recv()
        {
            size += next.writes.len();
            bytes += next.bytes();
            group.push(next);
        }
        if reserve.is_some_and(|reserve| !reserve.restore()) {
            refuse(group, &StoreError::full("its volume"));
            continue;
        }
        match write_group(database, &group) {
            Ok(done) => {
                for (request, done) in group.into_iter().zip(done) {
                    // A writer that no longer waits has lost its answer, not its write.
                    let _ = request.answer.send(Ok(done));
                }
            }
            Err(why) => {
                tracing::error!(%why, writes = size, "the hub's store could not write");
                broken.send_replace(true);
                refuse(group, &StoreError::new("write", why));
            }
        }
    }
}

fn refuse(group: Vec<Request>, why: &StoreError) {
    for request in group {
        let _ = request.answer.send(Err(why.clone()));
    }
}

/// Applies a group in one transaction; durable when this returns.
fn write_group(database: &Database, group: &[Request]) -> Result<Vec<Done>, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    let mut done = Vec::with_capacity(group.len());
    {
        let mut devices = transaction.open_table(DEVICES)?;
        let mut meta = transaction.open_table(META)?;
        let mut counts = Counts {
            total: devices.len()?,
            enabled: read_number(&meta, ENABLED)?,
        };
        let mut reserved = read_number(&meta, RESERVED)?;
        for request in group {
            let first_reserved = reserved + 1;
            reserved += request.reserve;
            let verdicts = request
                .writes
                .iter()
                .map(|write| apply(&mut devices, &mut counts, write));
            done.push(Done {
                verdicts: verdicts.collect::<Result<_, _>>()?,
                first_reserved,
            });
        }
        meta.insert(ENABLED, counts.enabled)?;
        meta.insert(RESERVED, reserved)?;
    }
    transaction.commit()?;
    Ok(done)
}

fn read_number(
    meta: &impl ReadableTable<&'static str, u64>,
    name: &str,
) -> Result<u64, redb::Error> {
    Ok(meta.get(name)?.map_or(0, |row| row.value()))
}

fn apply(
    devices: &mut Table<'_, &str, (u64, bool, &[u8])>,
    counts: &mut Counts,
    write: &Write,
) -> Result<Verdict, redb::Error> {
    let now = devices
        .get(&*write.device_id)?
        .map(|row| (row.value().0, row.value().1));
    let verdict = judge(now.map(|(revision, _)| revision), counts.total, write);
    if verdict == Verdict::Applied {
        counts.replace(
            now.map(|(_, enabled)| enabled),
            write.with.as_ref().map(|it| it.enabled),
        );
        match &write.with {
            Some(it) => devices.insert(&*write.device_id, (it.revision, it.enabled, &*it.body))?,
            None => devices.remove(&*write.device_id)?,
        };
    }
    Ok(verdict)
}
