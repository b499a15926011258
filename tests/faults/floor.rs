//! The installation that things go wrong in, and devices that know what they wrote.

use std::path::Path;
use std::time::Duration;

use kube::Api;
use kube::api::{Patch, PatchParams};
use rehome::api::v1alpha1::{DeviceRegistration, Enrollment, RegistrationState};
use rehome_testing::device::{Applicant, Key, Protocol, Session, Told};
use rehome_testing::fleet::{Group, Tenant};
use rehome_testing::installation::{Flags, Hub};
use rehome_testing::{Cluster, Installation, Signal, expect_ok};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

pub(crate) const WEST: &str = "hub-west";
pub(crate) const EAST: &str = "hub-east";
/// Longest time for the product to get over anything.
pub(crate) const PATIENCE: Duration = Duration::from_mins(3);

pub(crate) struct Floor {
    pub(crate) cluster: Cluster,
    pub(crate) installation: Installation,
    pub(crate) tenant: Tenant,
}

/// A device that has been given a home once.
pub(crate) struct Device {
    pub(crate) applicant: Applicant,
    /// Stands in its reported properties.
    nonce: String,
}

impl Floor {
    pub(crate) async fn start() -> Self {
        let cluster = Cluster::private().await.unwrap();
        let rehome = Path::new(env!("CARGO_BIN_EXE_rehome"));
        let flags = Flags {
            controller: vec!["--hub-call-timeout=2s".to_owned()],
            // A device that comes again asks anew at once.
            gateway: vec!["--resend-window-seconds=0".to_owned()],
        };
        let installation = Installation::start_with(&cluster, rehome, &[WEST, EAST], &flags)
            .await
            .unwrap();
        let tenant = Tenant::start(&cluster, &installation, "faults")
            .await
            .unwrap();
        Self {
            cluster,
            installation,
            tenant,
        }
    }

    pub(crate) fn hub(&self, name: &str) -> &Hub {
        let mut hubs = self.installation.hubs.iter();
        hubs.find(|hub| hub.name == name).unwrap()
    }

    pub(crate) fn signal(&mut self, name: &str, signal: Signal) {
        let mut hubs = self.installation.hubs.iter_mut();
        let hub = hubs.find(|hub| hub.name == name).unwrap();
        hub.process.signal(signal).unwrap();
    }

    /// A group whose devices live in the west and move with their data.
    pub(crate) async fn group(&self, name: &str) -> Group {
        let group = Group::new(name, Some("MigrateData"), &[WEST]).unwrap();
        self.tenant
            .enroll(&group, &self.installation)
            .await
            .unwrap();
        group
    }

    /// Changes where the group's devices belong, and waits until a first one has moved: gateway and
    /// controller know then.
    pub(crate) async fn retarget(&self, group: &Group, hub: &str) {
        self.edit(group, &json!({ "allocation": { "hubs": [hub] } }))
            .await;
        let host = self.hub(hub).host();
        let pioneer = self.tenant.device(group, "pioneer");
        expect_ok("the pioneer to move", PATIENCE, async || {
            match self.register(&pioneer).await {
                Ok(told) if told.hub == host => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    /// Changes the spec of the group's Enrollment.
    pub(crate) async fn edit(&self, group: &Group, spec: &Value) {
        let enrollments: Api<Enrollment> = self.tenant.namespace.api();
        let (params, patch) = (
            PatchParams::default(),
            Patch::Merge(json!({ "spec": spec })),
        );
        enrollments
            .patch(&group.name, &params, &patch)
            .await
            .unwrap();
    }

    pub(crate) async fn register(&self, applicant: &Applicant) -> anyhow::Result<Told> {
        let registrar = &self.installation.registrar;
        self.tenant.register(registrar, applicant).await
    }

    /// Registers and polls while other things happen.
    pub(crate) fn registering(&self, device: &Device) -> JoinHandle<anyhow::Result<Told>> {
        let registrar = self.installation.registrar.clone();
        let applicant = device.applicant.clone();
        tokio::spawn(async move { registrar.register(&applicant, Protocol::Https, None).await })
    }

    /// A device with a home, into whose twin it has reported.
    pub(crate) async fn newcomer(&self, group: &Group, name: &str) -> Device {
        let applicant = self.tenant.device(group, name);
        let told = self.register(&applicant).await.unwrap();
        assert_eq!(told.status, "assigned");
        let nonce = Key::random().unwrap().to_base64();
        let device = Device { applicant, nonce };
        let hub = self.installation.hub_at(&told.hub).unwrap();
        let mut session = self.connect(&device, hub).await.unwrap();
        let report = json!({ "nonce": device.nonce });
        session.report(&report).await.unwrap();
        device
    }

    pub(crate) async fn connect(&self, device: &Device, hub: &Hub) -> anyhow::Result<Session> {
        let Applicant {
            registration_id,
            key,
            ..
        } = &device.applicant;
        let trust = &self.installation.registrar.trust;
        Session::connect(&hub.host(), hub.place.mqtt(), trust, registration_id, key).await
    }

    pub(crate) fn registrations(&self) -> Api<DeviceRegistration> {
        self.tenant.namespace.api()
    }

    /// Waits until the device's move is on its way.
    pub(crate) async fn is_moving(&self, device: &Device) {
        expect_ok("an open move", PATIENCE, async || {
            let record = self.record(device).await?;
            let status = record.status.unwrap_or_default();
            status
                .transfer
                .is_some()
                .then_some(())
                .ok_or(format!("{status:?}"))
        })
        .await;
    }

    /// Waits until the record is at rest.
    pub(crate) async fn rests(&self, device: &Device) -> DeviceRegistration {
        expect_ok("the registration to settle", PATIENCE, async || {
            let record = self.record(device).await?;
            let status = record.status.clone().unwrap_or_default();
            let request = record.spec.request.as_ref();
            let answered = request.map(|request| &request.operation_id);
            let rests = status.state == Some(RegistrationState::Assigned)
                && status.operation_id.as_ref() == answered
                && status.transfer.is_none()
                && status.cleanup.is_empty();
            rests.then_some(record).ok_or(format!("{status:?}"))
        })
        .await
    }

    async fn record(&self, device: &Device) -> Result<DeviceRegistration, String> {
        let name = &device.applicant.registration_id;
        let record = self.registrations().get(name).await;
        record.map_err(|error| error.to_string())
    }

    /// The device rests at that hub and at no other, lets nobody but its hub in, and has what it
    /// reported there.
    pub(crate) async fn lives_at(&self, device: &Device, hub: &str) {
        self.rests(device).await;
        let id = &device.applicant.registration_id;
        for one in &self.installation.hubs {
            let identity = one.identity(id).await.unwrap();
            assert_eq!(identity.is_some(), one.name == hub, "{id} at {}", one.name);
        }
        let home = self.hub(hub);
        let identity = home.identity(id).await.unwrap().unwrap();
        assert_eq!(identity["status"], "enabled", "{id}");
        let twin = home.twin(id).await.unwrap().unwrap();
        assert_eq!(twin.reported["nonce"], device.nonce, "{id}");
        let mut session = self.connect(device, home).await.unwrap();
        let twin = session.twin().await.unwrap();
        assert_eq!(twin["reported"]["nonce"], device.nonce, "{id}");
    }

    /// After a scenario that ended halfway: what was stopped goes on, what ended is started again.
    pub(crate) async fn mend(&mut self) {
        // An error means that it runs.
        let _ = self.cluster.start_api_server().await;
        for hub in &mut self.installation.hubs {
            if hub.process.signal(Signal::CONT).is_err() {
                hub.restart().await.unwrap();
            }
        }
        // As a kubelet would.
        if self.installation.controller.ended().unwrap().is_some() {
            let flags = ["--hub-call-timeout=2s".to_owned()];
            let started = self.installation.another_controller("controller", &flags);
            self.installation.controller = started.await.unwrap();
        }
    }
}
