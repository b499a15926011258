//! The self-hosted IoT hub: identity registry and twins behind the IoT Hub service API, and the
//! device side. Knows nothing of Kubernetes; `rehome hub` is this module with sockets.
//!
//! Front ends (`rest`, `device`) call [`Hub`]; `Hub` decides with the pure modules `identity` and
//! `twin` and keeps the outcome in a `store`. A write is answered only once the store has it.
//!
//! # Beyond Azure IoT Hub
//! A client may rely on these when a reply carries [`rest::EXTENSIONS`]:
//! - *etags-unique*: no identity or twin etag is ever used twice, also across deletion,
//!   re-creation and restarts.
//! - *fence*: while an identity is disabled with a statusReason that begins with `rehome `, every
//!   write to its twin is refused with 409 `GenericConflict` (409000); reads and identity writes
//!   work. A device that is disabled for another reason takes service writes to its twin.
//! - *versions*: `POST /devices` with `importMode` `create` takes `properties.reported`, and keeps
//!   `$version` and `$metadata` of both sections; its reply lists
//!   `"devices": [{deviceId, generationId, etag}]` for what it created.
//!
//! Also: `GET /statistics/devices` tells `maxDeviceCount` and `isStoreFull`, `GET /statistics/service` tells
//! `telemetryMessageCount`, and `GET /statistics/devices/{id}` what a device has sent.

mod bulk;
pub mod certificates;
pub mod client;
pub mod device;
pub mod error;
pub mod etag;
mod files;
mod health;
pub mod identity;
mod locks;
pub mod messages;
mod methods;
mod metrics;
mod migrate;
mod modules;
pub mod operations;
mod policy;
mod query;
pub mod record;
pub mod rest;
mod scope;
mod serials;
mod serve;
mod sessions;
mod source;
pub mod store;
mod telemetry;
mod time;
pub mod twin;
mod view;

use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::Timestamp;

use crate::clock::Clock;
use crate::domain::ids::DeviceId;
use certificates::Authorities;
use error::{ErrorCode, Refusal};
use locks::Locks;
use metrics::Metrics;
pub use migrate::{MigrateError, MigrateOptions, migrate};
use record::Record;
use rest::Policies;
use serials::Serials;
pub use serve::{Options, RunError, run};
use sessions::{Notice, Sessions};
use store::{MemoryStore, Store, Verdict, Write};
use telemetry::Tail;

/// Fills a buffer with random bytes. They become keys and generation ids: unpredictable, and never
/// the same for two hubs.
pub type Random = Arc<dyn Fn(&mut [u8]) + Send + Sync>;

/// How many devices a hub takes unless told otherwise, as an IoT Hub does.
pub const DEFAULT_MAX_DEVICES: u64 = 1_000_000;

/// What a hub needs besides its store.
#[derive(Clone)]
pub struct Settings {
    /// The name under which clients and devices know the hub, and sign their tokens for.
    pub host_name: String,
    pub max_devices: u64,
    pub policies: Policies,
    pub clock: Arc<dyn Clock>,
    pub random: Random,
}

/// One hub.
pub struct Hub {
    host_name: String,
    max_devices: u64,
    policies: ArcSwap<Policies>,
    authorities: ArcSwap<Authorities>,
    clock: Arc<dyn Clock>,
    random: Random,
    store: Arc<dyn Store>,
    serials: Serials,
    sessions: Arc<Sessions>,
    tail: Tail,
    locks: Locks,
    metrics: Metrics,
}

/// When a write happens, and the number that makes it unique.
#[derive(Clone, Copy)]
struct Moment {
    now: Timestamp,
    serial: u64,
}

/// What a decision does to a device.
struct Decision<T> {
    /// `None` removes the device.
    record: Option<Record>,
    /// What connections have to be told.
    notice: Option<Notice>,
    answer: T,
}

impl<T> Decision<T> {
    /// A change that no connection is told of.
    fn quiet(record: Record, answer: T) -> Self {
        Self {
            record: Some(record),
            notice: None,
            answer,
        }
    }
}

impl Hub {
    pub fn new(store: Arc<dyn Store>, settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            host_name: settings.host_name,
            max_devices: settings.max_devices,
            policies: ArcSwap::from_pointee(settings.policies),
            metrics: Metrics::new(settings.clock.clone()),
            authorities: ArcSwap::default(),
            clock: settings.clock,
            random: settings.random,
            store,
            serials: Serials::default(),
            sessions: Arc::default(),
            tail: Tail::default(),
            locks: Locks::default(),
        })
    }

    /// A hub that keeps its devices in memory: the same code over a store without a disk.
    pub fn in_memory(
        host_name: impl Into<String>,
        policies: Policies,
        clock: Arc<dyn Clock>,
        random: Random,
    ) -> Arc<Self> {
        let max_devices = DEFAULT_MAX_DEVICES;
        let host_name = host_name.into();
        let settings = Settings {
            host_name,
            max_devices,
            policies,
            clock,
            random,
        };
        Self::new(Arc::new(MemoryStore::new()), settings)
    }

    pub fn host_name(&self) -> &str {
        &self.host_name
    }

    /// Replaces the shared access policies; requests from now on are judged by the new ones.
    pub fn set_policies(&self, policies: Policies) {
        self.policies.store(Arc::new(policies));
    }

    /// Replaces the authorities behind devices' certificates; there are none at the start.
    /// Connections from now on are judged by the new ones.
    pub fn set_authorities(&self, authorities: Authorities) {
        self.authorities.store(Arc::new(authorities));
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn random_hex(&self) -> String {
        let mut bytes = [0; 16];
        (self.random)(&mut bytes);
        format!("{:032x}", u128::from_be_bytes(bytes))
    }

    async fn read(&self, id: &DeviceId) -> Result<Option<Arc<Record>>, Refusal> {
        let stored = self.store.get(id.as_str()).await?;
        stored
            .map(|stored| Record::decode(id.as_str(), &stored))
            .transpose()
    }

    /// Decides on the device as it is and stores the outcome; where another write came in
    /// between, decides again. The answer is given once the outcome is durable.
    async fn change<T>(
        &self,
        id: &DeviceId,
        decide: impl Fn(Option<&Record>, Moment) -> Result<Decision<T>, Refusal>,
    ) -> Result<T, Refusal> {
        loop {
            let stored = self.store.get(id.as_str()).await?;
            let before = stored
                .as_ref()
                .map(|stored| Record::decode(id.as_str(), stored))
                .transpose()?;
            // After the read, so that serials rise along the writes of one device.
            let serial = self.serials.next(&*self.store).await?;
            let now = self.now();
            let now = before
                .as_ref()
                .map_or(now, |before| before.written.max(now));
            let decision = decide(before.as_deref(), Moment { now, serial })?;
            let with = decision
                .record
                .as_ref()
                .map(|record| record.encode(serial))
                .transpose()?;
            let write = Write {
                device_id: Arc::from(id.as_str()),
                replaces: stored.map(|stored| stored.revision),
                with,
                capacity: self.max_devices,
            };
            let verdict = self.commit(write, decision.record, decision.notice).await?;
            match verdict {
                Some(Verdict::Applied) => return Ok(decision.answer),
                Some(Verdict::Stale) => {}
                Some(Verdict::Full) => {
                    let message = format!("the hub holds {} devices already", self.max_devices);
                    return Err(Refusal::new(ErrorCode::TooManyDevices, message));
                }
                None => {
                    let message = "the store did not answer for a write";
                    return Err(Refusal::new(ErrorCode::ServerError, message));
                }
            }
        }
    }

    /// Commits a write and tells the device's connection of it, both or neither even if the caller
    /// goes away: a connection counts on hearing of every version.
    async fn commit(
        &self,
        write: Write,
        record: Option<Record>,
        notice: Option<Notice>,
    ) -> Result<Option<Verdict>, Refusal> {
        let (store, sessions) = (Arc::clone(&self.store), Arc::clone(&self.sessions));
        let committed = tokio::spawn(async move {
            let id = Arc::clone(&write.device_id);
            let verdict = store.commit(vec![write]).await?.first().copied();
            if verdict == Some(Verdict::Applied) {
                sessions.written(&id, record.as_ref(), notice);
            }
            Ok(verdict)
        });
        committed.await.unwrap_or_else(|_| {
            let message = "the hub is shutting down; the write may have happened";
            Err(Refusal::new(ErrorCode::ServiceUnavailable, message))
        })
    }
}
