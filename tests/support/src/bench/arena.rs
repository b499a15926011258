//! What is measured: an installation with room for load, and the server that it is compared with.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt as _;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use rehome_testing::device::{Registrar, Trust};
use rehome_testing::fleet::{API_VERSION, Group, Plant, Tenant};
use rehome_testing::installation::Flags;
use rehome_testing::{
    Authority, Cluster, Installation, Process, free_port, loopback, scratch, until,
};
use serde_json::{Value, json};

use crate::talks::Visit;

pub(crate) const WEST: &str = "hub-west";
pub(crate) const EAST: &str = "hub-east";
/// Longest time for all devices of a round.
const PATIENCE: Duration = Duration::from_mins(5);

pub(crate) struct Arena {
    pub(crate) cluster: Cluster,
    pub(crate) installation: Installation,
    pub(crate) tenant: Tenant,
    pub(crate) echo: SocketAddr,
    pub(crate) echo_trust: Trust,
    /// Devices with certificates.
    plant: Plant,
    /// Of the echo.
    authority: Authority,
    _echo: Process,
}

impl Arena {
    pub(crate) async fn start(rehome: &Path) -> Result<Self> {
        let cluster = Cluster::private().await?;
        let flags = Flags {
            // Repetitions are new requests at once, and no device is held back.
            gateway: [
                "--resend-window-seconds=0",
                "--refused-window-seconds=0",
                "--max-registers-per-device=1000000",
                "--max-polls-per-device=1000000",
                "--unlimited-network=127.0.0.0/8",
            ]
            .map(str::to_owned)
            .into(),
            ..Flags::default()
        };
        let installation =
            Installation::start_with(&cluster, rehome, &[WEST, EAST], &flags).await?;
        let tenant = Tenant::start(&cluster, &installation, "bench").await?;
        let authority = Authority::new("Bench CA")?;
        let echo_trust = Trust::new(&authority.cert_pem())?;
        let (process, echo) = start_echo(&authority).await?;
        let plant = Plant::new("plant", Some("MigrateData"), &[WEST])?;
        tenant.enroll_plant(&plant, &installation).await?;
        Ok(Self {
            plant,
            authority,
            cluster,
            installation,
            tenant,
            echo,
            echo_trust,
            _echo: process,
        })
    }

    pub(crate) fn registrar(&self) -> &Registrar {
        &self.installation.registrar
    }

    /// Visits of devices that prove themselves with certificates: to the gateway, where they are
    /// registered now, and to the echo.
    pub(crate) async fn certified(&self, count: usize) -> Result<[Arc<Vec<Visit>>; 2]> {
        let registrar = self.registrar();
        let scope = self.tenant.namespace.name();
        let (mut visits, mut echoed) = (Vec::new(), Vec::new());
        for number in 0..count {
            let id = format!("{}-{number}", self.plant.name);
            let issued = self.plant.certificate(&id)?;
            let trust = registrar
                .trust
                .presenting(&issued.cert_pem, &issued.key_pem)?;
            let told = registrar.register_presenting(&trust, scope, &id, API_VERSION);
            let told = told.await?;
            ensure!(told.status == "assigned", "{id} was told {told:?}");
            let request = certified_request(scope, &id);
            visits.push(Visit {
                trust,
                request: request.clone(),
            });
            let issued = self.authority.issue(&[&id])?;
            let trust = self
                .echo_trust
                .presenting(&issued.cert_pem, &issued.key_pem)?;
            echoed.push(Visit { trust, request });
        }
        Ok([visits.into(), echoed.into()])
    }

    /// Sends the group's devices from the first hub to the second, and waits until gateway and
    /// controller know.
    pub(crate) async fn retarget(&self, group: &Group) -> Result<()> {
        let patch = Patch::Merge(json!({ "spec": { "allocation": { "hubs": [EAST] } } }));
        let enrollments = self.tenant.objects("Enrollment");
        enrollments
            .patch(&group.name, &PatchParams::default(), &patch)
            .await?;
        let east = self.installation.hubs[1].host();
        let pioneer = self.tenant.device(group, "pioneer");
        let moved = until(PATIENCE, async || {
            let told = self.tenant.register(self.registrar(), &pioneer).await?;
            ensure!(told.hub == east, "still at {}", told.hub);
            Ok(())
        });
        moved
            .await
            .map_err(|last| last.unwrap_or_else(|| anyhow::anyhow!("no answer")))
    }

    /// Starts to count registrations that settle at a hub, `count` of those of that group.
    pub(crate) fn finish(&self, group: &Group, hub: &str, count: usize) -> Result<Finish> {
        let registrations = self.tenant.objects("DeviceRegistration");
        let host = self.installation.hubs.iter().find(|one| one.name == hub);
        let host = host.context("no such hub")?.host();
        let (prefix, pioneer) = (
            format!("{}-", group.name),
            format!("{}-pioneer", group.name),
        );
        let task = tokio::spawn(async move {
            // An API server under load ends watches that it cannot feed; this one begins again.
            let changes = watcher(registrations, watcher::Config::default());
            let mut changes = pin!(changes.default_backoff().touched_objects());
            let mut settled = BTreeSet::new();
            while settled.len() < count {
                let Ok(one) = changes.next().await.context("the watch ended")? else {
                    continue;
                };
                let name = one.metadata.name.clone().unwrap_or_default();
                let of = name.starts_with(&prefix) && name != pioneer;
                if of && is_settled(&one, &host) {
                    settled.insert(name);
                }
            }
            Ok(Instant::now())
        });
        Ok(Finish(task))
    }

    /// The registration of that name.
    pub(crate) async fn registration(&self, name: &str) -> Result<DynamicObject> {
        Ok(self.tenant.objects("DeviceRegistration").get(name).await?)
    }
}

/// See [`Arena::finish`].
pub(crate) struct Finish(tokio::task::JoinHandle<Result<Instant>>);

impl Finish {
    /// When the last one settled.
    pub(crate) async fn time(self) -> Result<Instant> {
        let time = tokio::time::timeout(PATIENCE, self.0).await;
        time.context("not all devices settled")??
    }
}

/// As a device with a certificate asks: without a token.
fn certified_request(scope: &str, id: &str) -> Vec<u8> {
    let body = json!({ "registrationId": id }).to_string();
    let length = body.len();
    let request = format!(
        "PUT /{scope}/registrations/{id}/register?api-version={API_VERSION} HTTP/1.1\r\n\
         Host: gateway\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    request.into_bytes()
}

fn is_settled(object: &DynamicObject, host: &str) -> bool {
    let (status, spec) = (&object.data["status"], &object.data["spec"]);
    status["state"] == "Assigned"
        && status["assignedHub"] == host
        && status["transfer"] == Value::Null
        && status["operationId"] == spec["request"]["operationId"]
}

async fn start_echo(authority: &Authority) -> Result<(Process, SocketAddr)> {
    let address = SocketAddr::from((loopback(1), free_port(loopback(1))?));
    let directory = scratch("echo")?;
    let issued = authority.issue(&["127.0.0.1"])?;
    std::fs::write(directory.join("tls.crt"), issued.cert_pem)?;
    std::fs::write(directory.join("tls.key"), issued.key_pem)?;
    std::fs::write(directory.join("ca.crt"), authority.cert_pem())?;
    let arguments = [
        "echo".to_owned(),
        format!("--listen={address}"),
        format!("--cert={}", directory.join("tls.crt").display()),
        format!("--key={}", directory.join("tls.key").display()),
        format!("--client-ca={}", directory.join("ca.crt").display()),
    ];
    let (program, log) = (std::env::current_exe()?, directory.join("echo.log"));
    let mut process = Process::spawn("echo", program, arguments, [("", ""); 0], log)?;
    process.wait_for_port(address, PATIENCE).await?;
    Ok((process, address))
}
