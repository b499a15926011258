//! What every controller is handed: the world as the watches show it, and the means to act.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Client;
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::sync::watch;

use super::counters::Counters;
use super::directory::Directory;
use super::hub::Hosting;
use super::hub::managed::{Memory, Turns};
use super::hub_clients::{HubClients, TransportFactory};
use super::index::Index;
use super::memory::{Backoff, Departed, HomeChecks, Written};
use super::metrics::Metrics;
use super::probes::Probes;
use super::registration::Ledger;
use super::triggers::Triggers;
use super::watches::{Watches, Writers};
use crate::api::v1alpha1::{DeviceRegistration, Enrollment, HubRef, IoTHub};
use crate::clock::Clock;
use crate::cluster::connect::Clients;
use crate::cluster::events::Events;
use crate::cluster::watch::Scope;
use crate::domain::transfer::{Trouble, TroubleKind};
use crate::random::Random;
use crate::registry::HubClient;

/// What may lie between giving up on a hub call and the last moment at which it can act.
const CALL_MARGIN: Duration = Duration::from_secs(5);

/// The parts of a context that tests replace.
pub struct Parts {
    /// Connections to the API server.
    pub clients: Clients,
    /// Namespaces that are served.
    pub scope: Scope,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Makes the transports to hubs.
    pub transports: Arc<dyn TransportFactory>,
    /// Longest that one hub call may take.
    pub call_timeout: Duration,
    /// How managed hubs are run.
    pub hosting: Hosting,
    /// Name of this process, for events and the lease.
    pub instance: String,
}

/// What one life of a process does not share with the next.
#[cfg(feature = "mutants")]
pub struct Life {
    /// Connection to the API server.
    pub client: Client,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Makes the transports to hubs.
    pub transports: Arc<dyn TransportFactory>,
    /// A rule that is broken on purpose.
    pub mutant: Option<crate::domain::transfer::Mutant>,
}

/// What every controller is handed.
pub struct Context {
    /// For reads and writes of single objects.
    pub client: Client,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Monotonic time at which this process began to act.
    pub started: Duration,
    /// How long a move may wait for its target before it is given up.
    pub patience: SignedDuration,
    /// Events.
    pub events: Events,
    /// Counters and such.
    pub metrics: Arc<Metrics>,
    /// Objects as the watches show them.
    pub stores: Stores,
    /// All registrations by what others know of them.
    pub index: Arc<Index>,
    /// Hubs and Enrollments by what others know of them.
    pub directory: Arc<Directory>,
    /// Clients of the hubs.
    pub hubs: HubClients,
    /// How managed hubs are run.
    pub hosting: Hosting,
    /// What was read and written for managed hubs.
    pub(super) memory: Memory,
    /// Whose pod may be changed.
    pub(super) turns: Turns,
    /// When hubs are probed next.
    pub probes: Probes,
    /// Counters as they may be written now.
    pub counters: Counters,
    /// Pauses after failures.
    pub backoff: Backoff,
    /// Registrations whose home should be looked at.
    pub home_checks: HomeChecks,
    /// Registrations that were deleted since this process began.
    pub departed: Departed,
    /// Our own writes that the watch has not shown yet.
    pub written: Written,
    /// Calls to hubs whose fate is not known.
    pub ledger: Ledger,
    /// A rule that is broken on purpose.
    #[cfg(feature = "mutants")]
    pub mutant: Option<crate::domain::transfer::Mutant>,
    /// Wakes controllers.
    pub triggers: Triggers,
    call_timeout: Duration,
    /// Kinds whose first list is in the stores and the indexes.
    pub(super) synced: watch::Sender<usize>,
}

/// Stores that the watches fill.
#[derive(Clone)]
pub struct Stores {
    /// Hubs.
    pub hubs: Store<IoTHub>,
    /// Enrollments.
    pub enrollments: Store<Enrollment>,
    /// Registrations.
    pub registrations: Store<DeviceRegistration>,
    /// Secrets that are labelled for attestation.
    pub secrets: Store<Secret>,
    /// Namespaces; empty in an installation that may not read them.
    pub namespaces: Store<Namespace>,
    /// Of managed hubs, as are those below.
    pub stateful_sets: Store<StatefulSet>,
    /// Their Services.
    pub services: Store<Service>,
    /// Their network policies.
    pub network_policies: Store<NetworkPolicy>,
    /// Their disruption budgets.
    pub disruption_budgets: Store<PodDisruptionBudget>,
    /// Their pods.
    pub pods: Store<Pod>,
}

impl Context {
    /// A context and the watches that keep it current, which the caller must drive
    /// ([`Watches::run`]). The other future writes the events and must be driven, too.
    pub fn new(
        parts: Parts,
        triggers: Triggers,
    ) -> (Arc<Self>, Watches, impl Future<Output = ()> + Send + use<>) {
        let Parts {
            clients,
            scope,
            clock,
            random,
            transports,
            call_timeout,
            hosting,
            instance,
        } = parts;
        let (events, event_writer) =
            Events::new(clients.requests.clone(), clock.clone(), &instance);
        let (stores, writers) = Writers::new();
        let metrics = Arc::new(Metrics::new());
        let context = Arc::new(Self {
            client: clients.requests,
            started: clock.monotonic(),
            patience: SignedDuration::from_mins(2),
            events,
            hubs: HubClients::new(transports, clock.clone(), metrics.clone(), call_timeout),
            metrics,
            stores,
            index: Arc::default(),
            directory: Arc::default(),
            hosting,
            memory: Memory::default(),
            turns: Turns::default(),
            probes: Probes::default(),
            counters: Counters::default(),
            backoff: Backoff::new(random.clone()),
            home_checks: HomeChecks::default(),
            departed: Departed::default(),
            written: Written::default(),
            ledger: Ledger::default(),
            #[cfg(feature = "mutants")]
            mutant: None,
            triggers,
            synced: watch::Sender::new(0),
            call_timeout,
            clock,
            random,
        });
        let watches = Watches::new(context.clone(), clients.watches, scope, writers);
        (context, watches, event_writer)
    }

    /// A context as a process has it that just began, over the stores and indexes of this one:
    /// crash tests live through thousands of processes and watch once.
    #[cfg(feature = "mutants")]
    pub fn reborn(&self, life: Life) -> Arc<Self> {
        let Life {
            client,
            clock,
            random,
            transports,
            mutant,
        } = life;
        let metrics = Arc::new(Metrics::new());
        let calls = metrics.clone();
        let hubs = HubClients::new(transports, clock.clone(), calls, self.call_timeout);
        Arc::new(Self {
            client,
            started: clock.monotonic(),
            patience: self.patience,
            events: self.events.clone(),
            metrics,
            stores: self.stores.clone(),
            index: self.index.clone(),
            directory: self.directory.clone(),
            hubs,
            hosting: self.hosting.clone(),
            memory: Memory::default(),
            turns: Turns::default(),
            probes: Probes::default(),
            counters: Counters::default(),
            backoff: Backoff::new(random.clone()),
            home_checks: HomeChecks::default(),
            departed: Departed::default(),
            written: Written::default(),
            ledger: Ledger::default(),
            mutant,
            triggers: self.triggers.clone(),
            synced: watch::Sender::new(*self.synced.borrow()),
            call_timeout: self.call_timeout,
            clock,
            random,
        })
    }

    /// An Enrollment by name.
    pub fn enrollment(&self, namespace: &str, name: &str) -> Option<Arc<Enrollment>> {
        self.stores
            .enrollments
            .get(&ObjectRef::new(name).within(namespace))
    }

    /// A hub by name.
    pub fn hub(&self, namespace: &str, name: &str) -> Option<Arc<IoTHub>> {
        self.stores
            .hubs
            .get(&ObjectRef::new(name).within(namespace))
    }

    /// Every hub of a namespace.
    pub fn hubs(&self, namespace: &str) -> Vec<Arc<IoTHub>> {
        let names = self.directory.hubs_in(namespace);
        names
            .iter()
            .filter_map(|name| self.hub(namespace, name))
            .collect()
    }

    /// A Secret that is labelled for attestation; others are as if they did not exist.
    pub fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Secret>> {
        self.stores
            .secrets
            .get(&ObjectRef::new(name).within(namespace))
    }

    /// A Namespace, where the installation may read them.
    pub fn namespace(&self, name: &str) -> Option<Arc<Namespace>> {
        self.stores.namespaces.get(&ObjectRef::new(name))
    }

    /// Whether a namespace is being deleted.
    pub fn is_namespace_going(&self, name: &str) -> bool {
        self.namespace(name)
            .is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some())
    }

    /// The client of a hub.
    pub fn hub_client(&self, namespace: &str, hub: &HubRef) -> Result<HubClient, Trouble> {
        let exists = self.directory.hub_name(&hub.uid);
        if exists.is_none_or(|(its_namespace, _)| its_namespace != namespace) {
            return Err(Trouble {
                kind: TroubleKind::Missing,
                message: format!(
                    "IoTHub {} ({}) does not exist any more",
                    hub.name, hub.host_name
                ),
            });
        }
        self.hubs.get(hub)
    }

    /// D: the longest that a hub call can take to act, after which a read shows what it did.
    pub fn call_life(&self) -> Duration {
        self.call_timeout + CALL_MARGIN
    }

    /// A new id that nobody else has: 36 letters, digits and dashes.
    pub fn fresh_id(&self) -> String {
        uuid::Builder::from_random_bytes(self.random.bytes())
            .into_uuid()
            .to_string()
    }
}
