//! A gateway whose registration records are in memory, and the hand that plays the controller.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use rcgen::{CertificateParams, KeyPair};
use rehome::api::v1alpha1::{
    ATTESTATION_LABEL, Enrollment, HubRef, RegistrationRequest, RegistrationState, Substatus,
};
use rehome::clock::{Clock, SystemClock};
use rehome::domain::attestation::SymmetricKey;
use rehome::domain::ids::RegistrationId;
use rehome::domain::object_name::object_name;
use rehome::domain::sas::SasToken;
use rehome::gateway::amqp::AmqpLimits;
use rehome::gateway::fronts::{Fronts, Listeners};
use rehome::gateway::http::ConnectionLimits;
use rehome::gateway::metrics::Metrics;
use rehome::gateway::mirror::Mirror;
use rehome::gateway::mqtt::{MqttFront, MqttLimits};
use rehome::gateway::record::Record;
use rehome::gateway::registrations::{Registrations, StoreError};
use rehome::gateway::service::{Protocol, Service, Settings};
use rehome::gateway::tenants::{Enrolled, Tenants};
use rehome::wire::tls::{AcceptLimits, Acceptor, Certificates, Peer, Surroundings};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

pub(crate) const SCOPE: &str = "0ne000TEST1";
pub(crate) const NAMESPACE: &str = "plant";
/// 32 × 0x5a.
pub(crate) const KEY: &str = "WlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlo=";

/// What the store does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Works,
    /// Assigns each device as soon as it is written, like a very fast controller.
    Assigns,
    Silent,
    Refuses,
}

/// Registration records in memory.
pub(crate) struct Memory {
    pub(crate) mirror: Mirror,
    pub(crate) mood: Mutex<Mood>,
    /// Writes that were asked for.
    pub(crate) writes: AtomicUsize,
    /// Reads that went past the mirror.
    pub(crate) reads: AtomicUsize,
    /// How long a write takes.
    pub(crate) takes: Mutex<Duration>,
    version: AtomicU64,
    clock: SystemClock,
}

impl Memory {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            mirror: Mirror::default(),
            mood: Mutex::new(Mood::Works),
            writes: AtomicUsize::new(0),
            reads: AtomicUsize::new(0),
            takes: Mutex::new(Duration::ZERO),
            version: AtomicU64::new(0),
            clock: SystemClock::start(),
        })
    }

    pub(crate) fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    pub(crate) fn count(&self) -> usize {
        self.writes.load(Ordering::Relaxed)
    }

    /// Plays the controller: changes a record.
    pub(crate) fn change(&self, id: &str, change: impl FnOnce(&mut Record)) {
        let name = object_name(&id.parse().unwrap());
        let mut record = Record::clone(&self.mirror.get(NAMESPACE, &name).unwrap());
        change(&mut record);
        self.put(record);
    }

    /// Plays the controller: the last request ends in this state.
    pub(crate) fn finish(&self, id: &str, state: RegistrationState) {
        let now = self.clock.now();
        self.change(id, |record| {
            record.operation_id = record.request.as_ref().map(|it| it.operation_id.clone());
            record.state = Some(state);
            record.last_changed = Some(now);
            if state == RegistrationState::Assigned {
                record.substatus = Some(Substatus::InitialAssignment);
                record.assigned_hub = Some("west.test".to_owned());
                record.device_id = Some(id.to_owned());
                record.home = Some(hub());
                record.policy = Some("Default".to_owned());
                record.placement_hash = Some(rehome::domain::allocation::Pool::default().hash());
            }
            if state == RegistrationState::Failed {
                record.error_code = Some(400_208);
                record.error_message = Some("no hub".to_owned());
            }
        });
    }

    fn put(&self, mut record: Record) -> Arc<Record> {
        let version = self.version.fetch_add(1, Ordering::Relaxed) + 1;
        record.resource_version = version.to_string();
        let record = Arc::new(record);
        self.mirror.apply(NAMESPACE, record.clone());
        record
    }

    /// Writes a request, over the record of that version or where there is none.
    async fn write(
        &self,
        name: &str,
        seen: Option<&str>,
        request: RegistrationRequest,
    ) -> Result<Arc<Record>, StoreError> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        let (mood, takes) = (*self.mood.lock().unwrap(), *self.takes.lock().unwrap());
        sleep(takes).await;
        match mood {
            Mood::Silent => return Err(StoreError::Silent(Duration::from_secs(5))),
            Mood::Refuses => {
                return Err(StoreError::Refused(
                    kube::Error::LinesCodecMaxLineLengthExceeded,
                ));
            }
            Mood::Works | Mood::Assigns => {}
        }
        let known = self.mirror.get(NAMESPACE, name);
        if known
            .as_ref()
            .map(|record| record.resource_version.as_str())
            != seen
        {
            return Err(StoreError::Conflict);
        }
        let mut record = known.map_or_else(|| blank(name, &self.clock), |it| Record::clone(&it));
        record.request = Some(request);
        let written = self.put(record);
        if mood == Mood::Assigns {
            self.finish(name, RegistrationState::Assigned);
        }
        Ok(written)
    }
}

fn hub() -> HubRef {
    HubRef {
        name: "west".into(),
        uid: "uid-west".into(),
        host_name: "west.test".into(),
    }
}

fn blank(name: &str, clock: &SystemClock) -> Record {
    Record {
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        resource_version: String::new(),
        deleting: false,
        created: clock.now(),
        request: None,
        state: None,
        substatus: None,
        assigned_hub: None,
        device_id: None,
        home: None,
        operation_id: None,
        policy: None,
        placement_hash: None,
        moving: false,
        cleanup: Vec::new(),
        error_code: None,
        error_message: None,
        history: Vec::new(),
        assigned_first: None,
        last_changed: None,
        home_checked: None,
    }
}

/// The store as the gateway sees it.
pub(crate) struct Store(pub(crate) Arc<Memory>);

impl Registrations for Store {
    fn cached(&self, namespace: &str, id: &RegistrationId) -> Option<Arc<Record>> {
        self.0.mirror.get(namespace, &object_name(id))
    }

    fn count(&self, enrollment_uid: &str) -> u32 {
        self.0.mirror.count(enrollment_uid)
    }

    async fn read(
        &self,
        namespace: &str,
        id: &RegistrationId,
    ) -> Result<Option<Arc<Record>>, StoreError> {
        self.0.reads.fetch_add(1, Ordering::Relaxed);
        Ok(self.0.mirror.get(namespace, &object_name(id)))
    }

    async fn create(
        &self,
        _: &str,
        id: &RegistrationId,
        request: RegistrationRequest,
    ) -> Result<Arc<Record>, StoreError> {
        self.0.write(&object_name(id), None, request).await
    }

    async fn update(
        &self,
        _: &str,
        record: &Record,
        request: RegistrationRequest,
    ) -> Result<Arc<Record>, StoreError> {
        self.0
            .write(&record.name, Some(&record.resource_version), request)
            .await
    }

    async fn until(
        &self,
        namespace: &str,
        id: &RegistrationId,
        at_most: Duration,
        is_it: impl Fn(Option<&Record>) -> bool + Send + Sync,
    ) -> Option<Arc<Record>> {
        let name = object_name(id);
        let waited = timeout(at_most, self.0.mirror.until(namespace, &name, is_it)).await;
        waited.unwrap_or_else(|_| self.0.mirror.get(namespace, &name))
    }
}

/// A gateway.
pub(crate) struct Stage {
    pub(crate) memory: Arc<Memory>,
    pub(crate) tenants: Arc<Tenants>,
    pub(crate) service: Arc<Service<Store>>,
    front: Arc<MqttFront<Store>>,
}

impl Stage {
    /// With one group, `line-3`, in one namespace.
    pub(crate) fn new() -> Self {
        Self::with(Settings::default())
    }

    pub(crate) fn with(settings: Settings) -> Self {
        let tenants = Arc::new(Tenants::default());
        let scope = SCOPE.parse().unwrap();
        tenants.update_scopes(|scopes| scopes.fix([(NAMESPACE.to_owned(), Some(scope))]));
        let memory = Memory::new();
        let clock = Arc::new(SystemClock::start());
        let metrics = Arc::new(Metrics::new(clock.clone()));
        let service = Arc::new(Service::new(
            tenants.clone(),
            Store(memory.clone()),
            clock,
            unique,
            settings,
            metrics,
        ));
        let front = Arc::new(MqttFront::new(service.clone(), MqttLimits::default()));
        let stage = Self {
            memory,
            tenants,
            service,
            front,
        };
        stage.set_keys(Some("true"));
        stage.enroll("line-3", &json!({ "group": {} }));
        stage
    }

    /// Adds an Enrollment whose keys are those of `line-3`.
    pub(crate) fn enroll(&self, name: &str, spec: &Value) {
        let mut spec = spec.clone();
        spec["attestation"] = json!({ "symmetricKey": { "secretRef": { "name": "keys" } } });
        self.enroll_as(name, &spec);
    }

    /// Adds an Enrollment with that attestation and all.
    pub(crate) fn enroll_as(&self, name: &str, spec: &Value) {
        let object: Enrollment = serde_json::from_value(json!({
            "apiVersion": "rehome.dev/v1alpha1",
            "kind": "Enrollment",
            "metadata": { "name": name, "namespace": NAMESPACE, "uid": format!("uid-{name}") },
            "spec": spec,
        }))
        .unwrap();
        self.tenants
            .apply_enrollment(Enrolled::new(&object).unwrap());
    }

    /// The Secret with the keys, labelled or not.
    pub(crate) fn set_keys(&self, label: Option<&str>) {
        let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
        let mut secret = Secret {
            data: Some(BTreeMap::from([
                ("primaryKey".to_owned(), bytes(KEY)),
                (
                    "secondaryKey".to_owned(),
                    bytes(&KEY.replace("Wlpa", "AAAA")),
                ),
            ])),
            ..Secret::default()
        };
        let label = label.map(|value| (ATTESTATION_LABEL.to_owned(), value.to_owned()));
        secret.metadata.labels = Some(label.into_iter().collect());
        self.tenants.set_secret(NAMESPACE, "keys", Some(secret));
    }

    /// A connection to the MQTT front end, without TLS.
    pub(crate) fn mqtt(&self) -> DuplexStream {
        let (client, server) = tokio::io::duplex(256 * 1024);
        let front = self.front.clone();
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(async move {
            let peer = Peer {
                address: ([127, 0, 0, 1], 40_000).into(),
                certificates: Arc::default(),
                server_name: None,
            };
            front.serve(server, Protocol::Mqtt, &peer, stopped).await;
            drop(stop);
        });
        client
    }

    /// All front ends on TLS sockets.
    pub(crate) async fn listen(&self) -> Arc<Sockets> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned()];
        let certificate = CertificateParams::new(names)
            .unwrap()
            .self_signed(&key)
            .unwrap();
        let (chain_file, key_file) = (directory.path().join("crt"), directory.path().join("key"));
        std::fs::write(&chain_file, certificate.pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        let fronts = Fronts {
            service: self.service.clone(),
            certificates: Certificates::load(&chain_file, &key_file).unwrap(),
            acceptor: Acceptor::new(
                AcceptLimits::default(),
                Surroundings::open(self.service.metrics().incidents().clone()),
            ),
            http: ConnectionLimits::default(),
            mqtt: MqttLimits::default(),
            amqp: AmqpLimits::default(),
        };
        let https = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mqtt = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let amqp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (stop, stopped) = watch::channel(false);
        let at = |listener: &TcpListener| listener.local_addr().unwrap();
        let (https_at, mqtt_at, amqp_at) = (at(&https), at(&mqtt), at(&amqp));
        let listeners = Listeners { https, mqtt, amqp };
        let mut tasks = JoinSet::new();
        fronts.listen(&mut tasks, listeners, &stopped).unwrap();
        let certificate = certificate.der().clone();
        Arc::new(Sockets {
            https: https_at,
            mqtt: mqtt_at,
            amqp: amqp_at,
            certificate,
            stop,
            _tasks: tasks,
        })
    }
}

pub(crate) struct Sockets {
    pub(crate) https: SocketAddr,
    pub(crate) mqtt: SocketAddr,
    pub(crate) amqp: SocketAddr,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) stop: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

/// A token of a device of `line-3`.
pub(crate) fn token(id: &str) -> String {
    signed(id, &device_key(id), 4_000_000_000)
}

pub(crate) fn device_key(id: &str) -> SymmetricKey {
    rehome::domain::attestation::derive_device_key(&KEY.parse().unwrap(), id)
}

pub(crate) fn signed(id: &str, key: &SymmetricKey, expires_at: u64) -> String {
    SasToken::sign(
        &format!("{SCOPE}/registrations/{id}"),
        key,
        expires_at,
        None,
    )
}

/// Asks until it is so; the paused clock of some tests moves on meanwhile.
pub(crate) async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(1)).await;
    }
}

fn unique() -> u128 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    u128::from(NEXT.fetch_add(1, Ordering::Relaxed))
}
