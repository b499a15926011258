//! Everybody but the controller: the gateway, operators, the device, a back end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Method;
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use rehome::api::v1alpha1::{
    DeviceRegistration, DeviceRegistrationSpec, FINALIZER, RegistrationState,
};
use rehome::clock::Clock as _;
use rehome::domain::identity::{Credential, Mark};
use rehome::hub::client::Client as Owner;
use rehome::hub::etag::IfMatch;
use rehome::hub::operations::TwinMode;
use rehome::hub::record::Record;
use rehome::hub::twin::TwinWrite;
use serde_json::{Map, Value, json};

use crate::device::holds;
use crate::ground::{HUBS, WEST};
use crate::invariants;
use crate::world::{ROOM, World};

/// Most writes to twins in one plan: what a twin may hold is bounded.
const WRITES: usize = 100;
/// The module of devices that have one.
pub(crate) const MODULE: &str = "gauge";

/// Something that somebody does.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// The device registers through an Enrollment; the gateway proposes a hub.
    Register(&'static str, usize),
    /// The device's certificate is replaced.
    RollCertificate,
    /// An operator enrolls the device's TPM, or changes that Enrollment: placed like a group, with
    /// the seeds of a Secret.
    EnrollTpm(&'static str, &'static str),
    /// The device comes back because its hub seems to refuse it.
    ComesBack(&'static str),
    /// An operator moves the device by hand.
    Trigger(usize),
    /// An operator deletes the registration.
    Delete,
    /// A hub goes, or comes back.
    Unreachable(usize),
    Reachable(usize),
    /// Others fill a hub.
    Fill(usize),
    /// Somebody made the device at a hub, with keys of their own.
    MadeByHand(usize),
    /// A back end gives the device a module at a hub.
    ModuleMade(usize),
    /// Somebody removes the device from a hub.
    Vanish(usize),
    /// Somebody disables the device at a hub.
    DisabledByHand(usize),
    /// A fence whose move is long over.
    FenceLeftOver(usize),
    /// The API server was restored from before a move: the status says another hub.
    LivesElsewhere(usize),
}

/// A write to the twin that a hub acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct Acknowledged {
    pub(crate) key: String,
    pub(crate) by_device: bool,
    /// To the twin of the module, not to that of the device.
    pub(crate) to_module: bool,
    pub(crate) hub: usize,
    pub(crate) generation_id: String,
}

impl World {
    fn registrations(&self, client: &Client) -> Api<DeviceRegistration> {
        Api::namespaced(client.clone(), self.ground.namespace.name())
    }

    /// The object as the watch shows it once it has caught up.
    pub(crate) async fn live(&self) -> Option<DeviceRegistration> {
        let object = self.state().object.clone();
        let version = object
            .as_ref()
            .and_then(DeviceRegistration::resource_version);
        let namespace = self.ground.namespace.name();
        self.ground
            .caches
            .show(namespace, &self.name, version.as_deref())
            .await;
        let own = self.state().own.clone();
        if let Some(own) = own {
            self.ground.caches.show_enrollment(&own).await;
        }
        object
    }

    pub(crate) async fn act(self: &Arc<Self>, act: Act) {
        self.note(format!("{act:?}"));
        // People are slow: what they do never has the time of what was before.
        self.clock.advance(Duration::from_millis(10));
        match act {
            Act::Register(enrollment, hub) => self.register(enrollment, Some(hub)).await,
            Act::RollCertificate => self.state().certificate = None,
            Act::EnrollTpm(like, seeds) => self.enroll_tpm(like, seeds).await,
            Act::ComesBack(enrollment) => self.register(enrollment, None).await,
            Act::Trigger(hub) => {
                let trigger = json!({ "id": "now", "mode": "MigrateData", "hub": HUBS[hub] });
                let patch = json!({ "spec": { "reprovision": trigger } });
                self.patch(&self.ground.admin, &patch).await;
            }
            Act::Delete => {
                let api = self.registrations(&self.ground.admin);
                let deleted = api
                    .delete(&self.name, &DeleteParams::default())
                    .await
                    .unwrap();
                if let Some(object) = deleted.left() {
                    self.saw(object);
                }
            }
            Act::Unreachable(hub) => self.hubs[hub].reachable.store(false, Ordering::Relaxed),
            Act::Reachable(hub) => self.hubs[hub].reachable.store(true, Ordering::Relaxed),
            Act::Fill(hub) => {
                for number in 0..ROOM {
                    let path = format!("/devices/other-{number}");
                    self.hubs[hub]
                        .ask(Method::PUT, &path, None, &json!({}))
                        .await;
                }
            }
            Act::MadeByHand(hub) => {
                let site = &self.hubs[hub];
                site.ask(Method::PUT, &self.path(), None, &json!({})).await;
                let twin = twin_write("before", 1);
                let owner = Owner::from(&self.device);
                let write = site
                    .core
                    .write_twin(&owner, twin, TwinMode::Merge, &IfMatch::Any);
                let record = write.await.unwrap();
                self.acknowledge("before", (false, false), hub, &record);
            }
            Act::ModuleMade(hub) => {
                let path = format!("{}/modules/{MODULE}", self.path());
                // A device that a move holds, or that is gone, takes none.
                let there = self.at(hub).await;
                if there.is_some_and(|record| record.identity.enabled) {
                    let site = &self.hubs[hub];
                    site.ask(Method::PUT, &path, None, &json!({})).await;
                }
            }
            Act::Vanish(hub) => {
                self.state().vanished = true;
                self.hubs[hub]
                    .core
                    .delete(&self.device, &IfMatch::Any)
                    .await
                    .unwrap();
            }
            Act::DisabledByHand(hub) => self.change(hub, false, "broken belt").await,
            Act::FenceLeftOver(hub) => {
                let uid = self
                    .state()
                    .object
                    .as_ref()
                    .and_then(DeviceRegistration::uid);
                let mark = Mark::new(&uid.unwrap(), "long-over").to_string();
                self.change(hub, false, &mark).await;
            }
            Act::LivesElsewhere(hub) => self.relocate(hub).await,
        }
    }

    /// What the gateway writes once it has attested the device. Without a hub the device came back
    /// soon after its answer.
    async fn register(&self, enrollment: &str, hub: Option<usize>) {
        let enrollment = self.enrollment(enrollment);
        let credential = self.attest(&enrollment);
        let number = {
            let mut state = self.state();
            state.requests += 1;
            state.credential = Some(credential.clone());
            state.requests
        };
        let request = json!({
            "operationId": format!("4.{}.{number}", self.name),
            "apiVersion": "2021-06-01",
            "enrollment": { "name": enrollment.name_any(), "uid": enrollment.uid() },
            "credential": credential.fingerprint(&self.id),
            "storageRootKey": enrollment.spec.attestation.tpm.is_some()
                .then_some(&self.ground.tpm.storage_root_key),
            "proposedHub": HUBS[hub.unwrap_or(WEST)],
            "reason": "Hashed",
            "verifyHome": hub.is_none(),
            "requestedAt": self.clock.now(),
        });
        if self.state().object.is_some() {
            return self
                .patch(
                    &self.ground.gateway,
                    &json!({ "spec": { "request": request } }),
                )
                .await;
        }
        let object = DeviceRegistration {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                finalizers: Some(vec![FINALIZER.to_owned()]),
                ..ObjectMeta::default()
            },
            spec: DeviceRegistrationSpec {
                registration_id: self.id.as_str().to_owned(),
                request: Some(serde_json::from_value(request).unwrap()),
                reprovision: None,
                deletion_policy: None,
            },
            status: None,
        };
        let api = self.registrations(&self.ground.gateway);
        let made = api.create(&PostParams::default(), &object).await.unwrap();
        self.saw(made);
    }

    async fn patch(&self, client: &Client, patch: &Value) {
        let params = PatchParams::default();
        let api = self.registrations(client);
        let patched = api
            .patch(&self.name, &params, &Patch::Merge(patch))
            .await
            .unwrap();
        self.saw(patched);
    }

    fn path(&self) -> String {
        format!("/devices/{}", self.device.as_str())
    }

    /// Changes the identity behind the operator's back; its credential stays.
    async fn change(&self, hub: usize, enabled: bool, reason: &str) {
        let body = json!({
            "status": if enabled { "enabled" } else { "disabled" },
            "statusReason": reason,
            "authentication": self.authentication(),
        });
        self.hubs[hub]
            .ask(Method::PUT, &self.path(), Some("*"), &body)
            .await;
    }

    /// The identity, with its twin, is at another hub than the status says.
    async fn relocate(&self, hub: usize) {
        let from = self.state().told.unwrap();
        let twin = self.at(from).await.unwrap().twin.clone();
        self.state().vanished = true;
        self.hubs[from]
            .core
            .delete(&self.device, &IfMatch::Any)
            .await
            .unwrap();
        let uid = self
            .state()
            .object
            .as_ref()
            .and_then(DeviceRegistration::uid);
        let entry = json!([{
            "id": self.device.as_str(), "importMode": "create", "status": "enabled",
            "statusReason": Mark::new(&uid.unwrap(), "moved-later").to_string(),
            "authentication": self.authentication(),
            "tags": twin.tags,
            "properties": { "desired": twin.desired.values, "reported": twin.reported.values },
        }]);
        self.hubs[hub]
            .ask(Method::POST, "/devices", None, &entry)
            .await;
    }

    fn authentication(&self) -> Value {
        let credential = self.state().credential.clone().unwrap();
        Credential::Attested(credential).authentication()
    }

    /// Takes in the object as somebody just wrote it.
    pub(crate) fn saw(&self, object: DeviceRegistration) {
        let found = invariants::of_status(self.state().object.as_ref(), &object);
        for violation in found {
            self.violation(violation);
        }
        let uid = object.uid().unwrap_or_default();
        let mut state = self.state();
        if state
            .object
            .as_ref()
            .and_then(DeviceRegistration::uid)
            .as_ref()
            != Some(&uid)
        {
            state.told_ever.clear();
        }
        let gone = object.metadata.deletion_timestamp.is_some() && object.finalizers().is_empty();
        let status = object.status.as_ref();
        let assigned = status.filter(|status| status.state == Some(RegistrationState::Assigned));
        if let Some(host) = assigned.and_then(|status| status.assigned_hub.as_ref()) {
            let hub = self.hubs.iter().position(|hub| hub.host_name == *host);
            state.told = hub;
            state.told_ever.extend(hub);
        }
        if gone {
            state.departed.push(uid);
        }
        if state.recording {
            state.versions.push(object.clone());
        }
        state.object = (!gone).then_some(object);
    }

    /// What a hub holds of the device.
    pub(crate) async fn at(&self, hub: usize) -> Option<Arc<Record>> {
        self.hubs[hub].core.device(&self.device).await.ok()
    }

    /// The device reports, and a back end writes, where the device was told to live.
    pub(crate) async fn write_to_twins(&self) {
        let (hub, credential, number) = {
            let mut state = self.state();
            let (Some(hub), Some(credential)) = (state.told, state.credential.clone()) else {
                return;
            };
            if state.writes == WRITES {
                return;
            }
            state.writes += 1;
            (hub, credential, state.writes)
        };
        let Some(record) = self.at(hub).await else {
            return;
        };
        let core = &self.hubs[hub].core;
        let admitted = holds(&record.identity.authentication, &credential);
        if admitted && record.identity.enabled {
            let key = format!("d{number}");
            let patch = Map::from_iter([(key.clone(), number.into())]);
            let generation_id = &record.identity.generation_id;
            if core
                .report(&Owner::from(&self.device), generation_id, &patch, None)
                .await
                .is_ok()
            {
                self.acknowledge(&key, (true, false), hub, &record);
            }
        }
        let key = format!("b{number}");
        let write = twin_write(&key, number);
        let written = core
            .write_twin(
                &Owner::from(&self.device),
                write,
                TwinMode::Merge,
                &IfMatch::Any,
            )
            .await;
        if let Ok(record) = written {
            self.acknowledge(&key, (false, false), hub, &record);
        }
        self.write_to_module(hub, &record, number).await;
    }

    /// The module reports, and a back end writes to it.
    async fn write_to_module(&self, hub: usize, record: &Record, number: usize) {
        let Some(module) = record.modules.get(MODULE) else {
            return;
        };
        let core = &self.hubs[hub].core;
        let owner = Owner {
            device: self.device.clone(),
            module: Some(MODULE.parse().unwrap()),
        };
        let key = format!("m{number}");
        let patch = Map::from_iter([(key.clone(), number.into())]);
        let reported = core
            .report(&owner, &module.generation_id, &patch, None)
            .await;
        if reported.is_ok() {
            self.acknowledge(&key, (true, true), hub, record);
        }
        let key = format!("n{number}");
        let write = twin_write(&key, number);
        let written = core.write_twin(&owner, write, TwinMode::Merge, &IfMatch::Any);
        if let Ok(record) = written.await {
            self.acknowledge(&key, (false, true), hub, &record);
        }
    }

    fn acknowledge(
        &self,
        key: &str,
        (by_device, to_module): (bool, bool),
        hub: usize,
        record: &Record,
    ) {
        let generation_id = record.identity.generation_id.clone();
        let write = Acknowledged {
            key: key.to_owned(),
            by_device,
            to_module,
            hub,
            generation_id,
        };
        self.state().acknowledged.push(write);
    }
}

/// Tags and desired properties with one key.
fn twin_write(key: &str, value: usize) -> TwinWrite {
    let body = json!({ "tags": { key: value }, "properties": { "desired": { key: value } } });
    TwinWrite::from_body(body.as_object().unwrap()).unwrap()
}
