//! The processes, the objects and the back end.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use rehome::api::v1alpha1::{
    ATTESTATION_LABEL, ConditionType, DeviceRegistration, Enrollment, FINALIZER, IoTHub, is_true,
};
use rehome::clock::SystemClock;
use rehome::domain::attestation::{DeviceKeys, KeyPair, derive_device_key, fingerprint};
use rehome::domain::ids::RegistrationId;
use rehome::domain::object_name::object_name;
use rehome::registry::{ConnectionString, HttpTransport, HubClient, HubSettings, Route};
use rehome_testing::{
    Authority, Cluster, Identity, Namespace, Process, expect, free_port, scratch,
};
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub(crate) const HOSTS: [&str; 2] = ["hub-west.test", "hub-east.test"];
const NAMES: [&str; 2] = ["west", "east"];
const POLICY_KEY: &str = "c2VydmljZS1rZXktb2YtdGhlLWh1Yg==";
const GROUP_KEYS: [&str; 2] = [
    "Z3JvdXAta2V5LXByaW1hcnktMQ==",
    "Z3JvdXAta2V5LXNlY29uZGFyeQ==",
];
const START_WITHIN: Duration = Duration::from_secs(60);
/// Pause of the back end between two writes to one device.
const BETWEEN_WRITES: Duration = Duration::from_millis(200);

pub(crate) struct Stage {
    namespace: Namespace,
    gateway: Client,
    operator: Identity,
    log: PathBuf,
    pub(crate) hubs: Vec<HubProcess>,
    pub(crate) controller: Option<Process>,
    pub(crate) devices: Vec<String>,
    enrollments: HashMap<String, String>,
}

/// A hub over files that survive its process.
pub(crate) struct HubProcess {
    folder: PathBuf,
    host: &'static str,
    https: SocketAddr,
    mqtt: SocketAddr,
    ca: String,
    pub(crate) client: HubClient,
    process: Option<Process>,
}

impl Stage {
    pub(crate) async fn set(devices: usize) -> Result<Self> {
        let cluster = Cluster::shared().await?;
        let operator = cluster.install_operator().await?;
        let namespace = cluster.namespace("sigkill").await?;
        let mut hubs = Vec::new();
        for host in HOSTS {
            hubs.push(HubProcess::start(host).await?);
        }
        for object in objects(&hubs) {
            namespace.apply(&object.to_string()).await?;
        }
        let enrollments: Api<Enrollment> = namespace.api();
        let enrollments = enrollments.list(&ListParams::default()).await?;
        let enrollments = enrollments
            .items
            .iter()
            .filter_map(|one| Some((one.name_any(), one.uid()?)));
        let mut stage = Self {
            enrollments: enrollments.collect(),
            gateway: operator.gateway.client,
            operator: operator.controller,
            log: scratch("controller")?.join("controller.log"),
            hubs,
            controller: None,
            devices: (0..devices)
                .map(|number| format!("press-{number}"))
                .collect(),
            namespace,
        };
        stage.start_controller()?;
        stage.hubs_are_ready().await;
        Ok(stage)
    }

    pub(crate) fn start_controller(&mut self) -> Result<()> {
        let kubeconfig = self.operator.kubeconfig.display().to_string();
        let arguments = [
            "controller",
            "--kubeconfig",
            &kubeconfig,
            "--namespace",
            self.namespace.name(),
            "--no-leader-election",
            "--hub-call-timeout",
            "3s",
        ];
        let environment = [("RUST_LOG", "info")];
        let binary = env!("CARGO_BIN_EXE_rehome");
        let process = Process::spawn("controller", binary, arguments, environment, &self.log)?;
        self.controller = Some(process);
        Ok(())
    }

    async fn hubs_are_ready(&self) {
        let api: Api<IoTHub> = self.namespace.api();
        expect("both hubs to be Ready", START_WITHIN, async || {
            let hubs = api.list(&ListParams::default()).await.unwrap();
            let ready = |hub: &IoTHub| {
                let status = hub.status.as_ref();
                status.is_some_and(|status| is_true(&status.conditions, ConditionType::Ready))
            };
            hubs.items.iter().all(ready).then_some(())
        })
        .await;
    }

    pub(crate) async fn registrations(&self) -> Vec<DeviceRegistration> {
        let api: Api<DeviceRegistration> = self.namespace.api();
        api.list(&ListParams::default()).await.unwrap().items
    }

    /// Every device registers; this is what the gateway writes.
    pub(crate) async fn request_all(&self, round: usize, to: usize) {
        for device in &self.devices {
            self.request(device, round, to).await;
        }
    }

    async fn request(&self, device: &str, round: usize, to: usize) {
        let id: RegistrationId = device.parse().unwrap();
        let name = object_name(&id);
        let request = json!({
            "operationId": format!("4.{name}.{round}"),
            "apiVersion": "2021-06-01",
            "enrollment": { "name": NAMES[to], "uid": self.enrollments[NAMES[to]] },
            "credential": fingerprint(&id, &self.keys(device)),
            "proposedHub": NAMES[to],
            "reason": "Static",
            "requestedAt": "2026-03-01T08:00:00.000000Z",
        });
        let api: Api<DeviceRegistration> =
            Api::namespaced(self.gateway.clone(), self.namespace.name());
        if round > 0 {
            let patch = json!({ "spec": { "request": request } });
            api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
                .await
                .unwrap();
            return;
        }
        let object = json!({
            "apiVersion": "rehome.dev/v1alpha1", "kind": "DeviceRegistration",
            "metadata": { "name": name, "finalizers": [FINALIZER] },
            "spec": { "registrationId": device, "request": request },
        });
        let object = serde_json::from_value(object).unwrap();
        api.create(&PostParams::default(), &object).await.unwrap();
    }

    /// The keys of a device, derived from the group's.
    pub(crate) fn keys(&self, device: &str) -> DeviceKeys {
        let key = |group: &str| derive_device_key(&group.parse().unwrap(), device);
        KeyPair {
            primary: key(GROUP_KEYS[0]),
            secondary: key(GROUP_KEYS[1]),
        }
    }
}

fn objects(hubs: &[HubProcess]) -> Vec<Value> {
    let mut all = vec![json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": { "name": "keys", "labels": { ATTESTATION_LABEL: "true" } },
        "stringData": { "primaryKey": GROUP_KEYS[0], "secondaryKey": GROUP_KEYS[1] },
    })];
    for (name, hub) in NAMES.iter().zip(hubs) {
        let secret = format!("hub-{name}");
        all.push(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": secret },
            "stringData": { "connectionString": connection_string(hub.host) },
        }));
        all.push(json!({
            "apiVersion": "rehome.dev/v1alpha1", "kind": "IoTHub", "metadata": { "name": name },
            "spec": { "hostName": hub.host, "connection": {
                "connectionStringSecretRef": { "name": secret },
                "endpoint": hub.endpoint(), "caBundle": hub.ca,
            } },
        }));
        all.push(json!({
            "apiVersion": "rehome.dev/v1alpha1", "kind": "Enrollment", "metadata": { "name": name },
            "spec": {
                "group": {},
                "attestation": { "symmetricKey": { "secretRef": { "name": "keys" } } },
                "reprovisionPolicy": "MigrateData",
                "allocation": { "policy": "Static", "hubs": [name] },
            },
        }));
    }
    all
}

fn connection_string(host: &str) -> String {
    format!("HostName={host};SharedAccessKeyName=rehome;SharedAccessKey={POLICY_KEY}")
}

impl HubProcess {
    async fn start(host: &'static str) -> Result<Self> {
        let folder = scratch("hub")?;
        let authority = Authority::new("Test Root")?;
        let issued = authority.issue(&[host, "localhost"])?;
        std::fs::write(folder.join("tls.crt"), &issued.cert_pem)?;
        std::fs::write(folder.join("tls.key"), &issued.key_pem)?;
        let permissions = ["RegistryRead", "RegistryWrite", "ServiceConnect"];
        let policies = json!({ "policies": [{
            "name": "rehome", "permissions": permissions,
            "primaryKey": POLICY_KEY, "secondaryKey": POLICY_KEY,
        }] });
        std::fs::write(folder.join("policies.json"), policies.to_string())?;
        let address = || {
            anyhow::Ok(SocketAddr::from((
                Ipv4Addr::LOCALHOST,
                free_port(Ipv4Addr::LOCALHOST)?,
            )))
        };
        let (https, mqtt) = (address()?, address()?);
        let ca = authority.cert_pem();
        let timeout = Duration::from_secs(5);
        let settings = HubSettings {
            host_name: host.into(),
            endpoint: format!("https://localhost:{}", https.port()),
            credentials: ConnectionString::parse(&connection_string(host))?,
            rates: None,
            call_timeout: timeout,
            guarantees: Vec::new(),
            observer: Arc::new(()),
        };
        let route = Route {
            ca_bundle: Some(ca.clone()),
            ..Route::default()
        };
        let transport = Arc::new(HttpTransport::new(&route, timeout)?);
        let client = HubClient::new(settings, transport, Arc::new(SystemClock::start()));
        let mut hub = Self {
            folder,
            host,
            https,
            mqtt,
            ca,
            client,
            process: None,
        };
        hub.restart().await?;
        Ok(hub)
    }

    fn endpoint(&self) -> String {
        format!("https://localhost:{}", self.https.port())
    }

    pub(crate) async fn kill_and_restart(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
        }
        self.restart().await
    }

    async fn restart(&mut self) -> Result<()> {
        let path = |name: &str| self.folder.join(name).display().to_string();
        let arguments = [
            "hub".to_owned(),
            format!("--host-name={}", self.host),
            format!("--store={}", path("devices.redb")),
            format!("--tls-cert={}", path("tls.crt")),
            format!("--tls-key={}", path("tls.key")),
            format!("--policies={}", path("policies.json")),
            format!("--https-address={}", self.https),
            format!("--mqtt-address={}", self.mqtt),
        ];
        let environment: [(&str, &str); 0] = [];
        let binary = env!("CARGO_BIN_EXE_rehome");
        let log = self.folder.join("hub.log");
        let mut process = Process::spawn("hub", binary, arguments, environment, log)?;
        process
            .wait_for_line("the hub serves", START_WITHIN)
            .await?;
        self.process = Some(process);
        Ok(())
    }
}

/// A back end that keeps writing to every twin, wherever it may be written.
pub(crate) struct Writes {
    stop: watch::Sender<bool>,
    work: Vec<JoinHandle<Vec<(String, String)>>>,
}

impl Writes {
    pub(crate) fn start(stage: &Stage) -> Self {
        let (stop, stopped) = watch::channel(false);
        let clients: Vec<_> = stage.hubs.iter().map(|hub| hub.client.clone()).collect();
        let work = stage
            .devices
            .iter()
            .map(|device| tokio::spawn(write(device.clone(), clients.clone(), stopped.clone())));
        Self {
            work: work.collect(),
            stop,
        }
    }

    /// Devices and keys of all writes that a hub acknowledged.
    pub(crate) async fn stop(self) -> Vec<(String, String)> {
        self.stop.send_replace(true);
        let mut all = Vec::new();
        for work in self.work {
            all.extend(work.await.unwrap());
        }
        all
    }
}

async fn write(
    device: String,
    hubs: Vec<HubClient>,
    mut stopped: watch::Receiver<bool>,
) -> Vec<(String, String)> {
    let mut acknowledged = Vec::new();
    // A twin's tags hold 8 KiB: so many keys, each with its number, stay well below.
    for number in 0..400 {
        let key = format!("w{number}");
        let values = Map::from_iter([(key.clone(), number.into())]);
        for hub in &hubs {
            if hub.patch_twin(&device, "*", &values, &values).await.is_ok() {
                acknowledged.push((device.clone(), key.clone()));
            }
        }
        let stop = tokio::time::timeout(BETWEEN_WRITES, stopped.wait_for(|stop| *stop)).await;
        if stop.is_ok() {
            break;
        }
    }
    acknowledged
}
