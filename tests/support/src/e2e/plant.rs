//! Many devices with two hubs between which they move, for what happens to an installation meanwhile.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::TryStreamExt as _;
use futures::future::try_join_all;
use kube::api::{ApiResource, DynamicObject, WatchEvent, WatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, ResourceExt as _};
use rehome_testing::device::{Applicant, Key, Protocol, Registrar, Session, Told, Trust};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::ground::{Ground, PATIENCE, claim, eventually};
use crate::hub::Hub;
use crate::shell::Shell;

pub(crate) const WEST: usize = 0;
pub(crate) const EAST: usize = 1;
const HUBS: [&str; 2] = ["west", "east"];
const NAMESPACE: &str = "plant";
const RELEASE: &str = "rehome-system";
/// How long a device waits before it asks anew.
const GIVE_UP: Duration = Duration::from_secs(20);
/// The name under which devices know the gateway; in the certificate of examples/values.yaml.
pub(crate) const HOST: &str = "provisioning.example.com";

pub(crate) struct Plant {
    shell: Shell,
    registrations: Api<DynamicObject>,
    pub(crate) hubs: [Hub; 2],
    pub(crate) devices: Vec<String>,
    pub(crate) key: Key,
}

impl Plant {
    /// Makes the namespace with its hubs, registers devices, and writes something into every twin.
    pub(crate) async fn found(ground: &Ground, count: usize) -> Result<Self> {
        ground
            .block(&format!(
                "kubectl create namespace {NAMESPACE}\n\
                 kubectl label namespace {NAMESPACE} pod-security.kubernetes.io/enforce=restricted\n\
                 examples/hub.sh {NAMESPACE} west\n\
                 examples/hub.sh {NAMESPACE} east\n\
                 examples/keys.sh {NAMESPACE} robots-keys"
            ))
            .await?;
        let shell = ground.shell.clone();
        let kind = GroupVersionKind::gvk("rehome.dev", "v1alpha1", "DeviceRegistration");
        let key = secret(&shell, NAMESPACE, "robots-keys", "primaryKey").await?;
        let plant = Self {
            hubs: [
                Hub::of(&shell, NAMESPACE, "west").await?,
                Hub::of(&shell, NAMESPACE, "east").await?,
            ],
            devices: (0..count).map(|number| format!("robot-{number}")).collect(),
            key: Key::from_base64(&key)?,
            registrations: Api::namespaced_with(
                ground.place.cluster().client().clone(),
                NAMESPACE,
                &ApiResource::from_gvk(&kind),
            ),
            shell,
        };
        plant.move_to(WEST).await?;
        plant.everybody_registers().await?;
        let trust = Trust::new(&secret(&plant.shell, NAMESPACE, "iothub-ca", "ca.crt").await?)?;
        let writing = plant.devices.iter().map(async |device| {
            let hub = &plant.hubs[WEST];
            hub.patch_twin(device, &json!({ "tags": { "owner": device } }))
                .await?;
            let key = plant.key.of_device(device);
            let mut session = Session::connect(&hub.host, hub.mqtt(), &trust, device, &key).await?;
            session.report(&json!({ "serial": device })).await?;
            session.close().await
        });
        try_join_all(writing).await?;
        plant.is_whole(WEST).await?;
        Ok(plant)
    }

    /// Has the Enrollment send devices to that hub from now on.
    pub(crate) async fn move_to(&self, hub: usize) -> Result<()> {
        let enrollment = json!({
            "apiVersion": "rehome.dev/v1alpha1", "kind": "Enrollment",
            "metadata": { "name": "robots" },
            "spec": {
                "group": {},
                "attestation": { "symmetricKey": { "secretRef": { "name": "robots-keys" } } },
                "reprovisionPolicy": "MigrateData",
                "allocation": { "policy": "Static", "hubs": [HUBS[hub]] },
                "initialTwin": { "properties": { "desired": { "speed": 3 } } },
            },
        });
        self.shell
            .run(&format!(
                "kubectl -n {NAMESPACE} apply -f - <<'JSON'\n{enrollment}\nJSON"
            ))
            .await?;
        eventually("the controller to have seen the Enrollment", async || {
            let path = "jsonpath={.metadata.generation} {.status.observedGeneration}";
            let seen = self
                .shell
                .run(&format!(
                    "kubectl -n {NAMESPACE} get enrollment robots -o '{path}'"
                ))
                .await?;
            let (wanted, seen) = seen.split_once(' ').unwrap_or_default();
            ensure!(wanted == seen, "generation {wanted}, observed {seen}");
            Ok(())
        })
        .await
    }

    /// Every device registers, and tries again until it is told something, as devices do.
    pub(crate) async fn everybody_registers(&self) -> Result<Vec<Told>> {
        let registrar = registrar(&self.shell).await?;
        let registrar = &registrar;
        let turn = tokio::sync::Semaphore::new(16);
        let turn = &turn;
        let all = self
            .devices
            .iter()
            .enumerate()
            .map(async |(number, device)| {
                let _turn = turn.acquire().await?;
                let applicant = self.applicant(device);
                let protocol = Protocol::ALL[number % Protocol::ALL.len()];
                eventually(&format!("{device} to be assigned"), async || {
                    // A server that was killed may leave a client waiting: devices give up at some time.
                    let asking = registrar.register(&applicant, protocol, None);
                    let told = timeout(GIVE_UP, asking).await.context("no answer")??;
                    ensure!(told.status == "assigned", "{told:?}");
                    Ok(told)
                })
                .await
            });
        try_join_all(all).await
    }

    pub(crate) fn applicant(&self, device: &str) -> Applicant {
        Applicant {
            scope: NAMESPACE.into(),
            registration_id: device.into(),
            key: self.key.of_device(device),
            api_version: "2021-10-01".into(),
        }
    }

    /// Sees that every device was told something while it was sent to that hub, and has those ask again
    /// that were told to stay where they are: so is whoever asks while the hub is not ready.
    pub(crate) async fn everybody_goes_to(&self, hub: usize, told: &[Told]) -> Result<()> {
        let host = &self.hubs[hub].host;
        let staying = |told: &[Told]| told.iter().filter(|one| one.hub != *host).count();
        claim(
            "every device got its answer",
            told.len() == self.devices.len(),
        )?;
        println!("  {} of them were told to stay for now", staying(told));
        if staying(told) == 0 {
            return Ok(());
        }
        eventually("nobody to stay", async || {
            let left = staying(&self.everybody_registers().await?);
            ensure!(left == 0, "{left} devices are not told to go to {host}");
            Ok(())
        })
        .await
    }

    /// Waits until a device is moving, and says which. Asking again and again would miss it: a move takes
    /// some ten milliseconds.
    pub(crate) async fn moving(&self) -> Result<String> {
        let mut events = pin!(
            self.registrations
                .watch(&WatchParams::default(), "0")
                .await?
        );
        let seen = async {
            while let Some(event) = events.try_next().await? {
                let (WatchEvent::Added(record) | WatchEvent::Modified(record)) = event else {
                    continue;
                };
                if record.data["status"]["transfer"].is_object() {
                    return Ok(record.name_any());
                }
            }
            bail!("the watch ended")
        };
        timeout(PATIENCE, seen)
            .await
            .with_context(|| format!("no device moved within {PATIENCE:?}"))?
    }

    /// Waits until both hubs can be asked.
    pub(crate) async fn hubs_answer(&self) -> Result<()> {
        for hub in &self.hubs {
            let what = format!("{} to answer", hub.host);
            eventually(&what, async || hub.identity("robot-0").await).await?;
        }
        Ok(())
    }

    /// Every device is at that hub with all that was ever written into its twin, and nothing of it
    /// anywhere else; every record says so and is at rest.
    pub(crate) async fn is_whole(&self, at: usize) -> Result<()> {
        let (home, other) = (&self.hubs[at], &self.hubs[1 - at]);
        eventually("every record to be at rest", async || {
            let records = self.records().await?;
            for record in &records {
                let (status, name) = (&record["status"], &record["metadata"]["name"]);
                ensure!(
                    status["state"] == "Assigned" && status["assignedHub"] == *home.host,
                    "{name}: {status}"
                );
                ensure!(status["transfer"].is_null(), "{name} is moving: {status}");
                let cleanup = status["cleanup"].as_array();
                ensure!(
                    cleanup.is_none_or(Vec::is_empty),
                    "{name} has left something: {status}"
                );
            }
            ensure!(
                records.len() == self.devices.len(),
                "{} records",
                records.len()
            );
            Ok(())
        })
        .await?;
        let looking = self.devices.iter().map(async |device| {
            let twin = home.twin(device).await?.with_context(|| format!("{device} is not at {}", home.host))?;
            let wanted = json!({
                "tags": { "owner": device }, "desired": { "speed": 3 }, "reported": { "serial": device },
            });
            ensure!(twin == wanted, "the twin of {device} is {twin}");
            let identity = home.identity(device).await?.unwrap_or_default();
            ensure!(identity["status"] == "enabled", "{device} is {identity}");
            let left = other.identity(device).await?;
            ensure!(left.is_none(), "{device} is also at {}", other.host);
            Ok(())
        });
        try_join_all(looking).await?;
        claim(
            &format!(
                "{} devices are at {} with their whole twins, enabled, and nowhere else",
                self.devices.len(),
                HUBS[at]
            ),
            true,
        )
    }

    async fn records(&self) -> Result<Vec<Value>> {
        let printed = self
            .shell
            .run(&format!("kubectl -n {NAMESPACE} get devreg -o json"))
            .await?;
        let list: Value = serde_json::from_str(&printed)?;
        let items = list["items"].as_array().context("a list")?;
        let is_ours = |one: &&Value| {
            one["spec"]["registrationId"]
                .as_str()
                .is_some_and(|id| id.starts_with("robot-"))
        };
        Ok(items.iter().filter(is_ours).cloned().collect())
    }
}

/// Where devices register, and whom they trust there.
pub(crate) async fn registrar(shell: &Shell) -> Result<Registrar> {
    let address = "kubectl -n rehome-system get service rehome -o 'jsonpath={.status.loadBalancer.ingress[0].ip}'";
    let address: std::net::IpAddr = shell
        .run(address)
        .await?
        .parse()
        .context("the gateway's address")?;
    let at = |port| (address, port).into();
    Ok(Registrar {
        host: HOST.into(),
        https: at(443),
        mqtt: at(8883),
        amqp: at(5671),
        trust: Trust::new(&secret(shell, RELEASE, "rehome-gateway-tls", "ca.crt").await?)?,
    })
}

pub(crate) async fn secret(
    shell: &Shell,
    namespace: &str,
    name: &str,
    key: &str,
) -> Result<String> {
    let path = key.replace('.', "\\.");
    shell
        .run(&format!(
            "kubectl -n {namespace} get secret {name} -o 'jsonpath={{.data.{path}}}' | base64 -d"
        ))
        .await
}
