//! Hubs of a few lines and a faultless driver: what `decide` asks for is done and written down.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use serde_json::{Map, Value, json};

use rehome::api::v1alpha1::{
    AllocationPolicy, DeviceRegistrationSpec, DeviceRegistrationStatus, EnrollmentRef, HubRef,
    RegistrationRequest, ReprovisionMode, ReprovisionPolicy, ReprovisionTrigger,
};
use rehome::domain::allocation::{Member, Pool};
use rehome::domain::attestation::{DeviceCredential, DeviceKeys};
use rehome::domain::identity::{Credential, Identity};
use rehome::domain::module::{Module, NewModule};
use rehome::domain::transfer::{
    Call, Effect, Enrolled, EnrollmentFacts, Facts, HubFacts, Look, Record, Room, Step,
    Surroundings, Trouble, TroubleKind, View, Views, decide,
};
use rehome::domain::twin::{Content, Metadata, Twin};

/// The registration's uid.
pub(crate) const UID: &str = "u";

/// What other hands do.
pub(crate) type Act = fn(&mut Stage);

/// One registration, its Enrollment, and hubs by name.
pub(crate) struct Stage {
    pub(crate) spec: DeviceRegistrationSpec,
    pub(crate) status: DeviceRegistrationStatus,
    pub(crate) hubs: BTreeMap<&'static str, Hub>,
    pub(crate) enrolled: Option<Enrolled>,
    pub(crate) deleting: bool,
    pub(crate) letting_go: bool,
    pub(crate) check_home: bool,
    pub(crate) look_everywhere: bool,
    pub(crate) now: Timestamp,
    /// Registrations that exist beside this one.
    pub(crate) others: Vec<&'static str>,
    /// Uid of the registration that owns the device id everywhere.
    pub(crate) owner: Option<&'static str>,
    /// What other hands do just before the `n`th step, counted from 0, is decided.
    pub(crate) meanwhile: Option<(usize, Act)>,
    /// What the last record told people.
    pub(crate) message: Option<String>,
    ids: u32,
    counter: u32,
}

/// A hub with at most one device.
#[derive(Default)]
pub(crate) struct Hub {
    pub(crate) identity: Option<Identity>,
    pub(crate) content: Content,
    pub(crate) limit: Option<u64>,
    pub(crate) trouble: Option<TroubleKind>,
    /// Refuses creates for good.
    pub(crate) refuses: bool,
    /// Not one of ours: it lists modules when asked, and takes none for a disabled device.
    pub(crate) is_foreign: bool,
    /// What the twins of the device's modules hold.
    pub(crate) modules: BTreeMap<String, Content>,
    /// Refuses this module for good.
    pub(crate) refuses_module: Option<&'static str>,
    pub(crate) refuses_existing: bool,
    /// A call to it may still act.
    pub(crate) busy: bool,
}

impl Hub {
    fn take_module(&mut self, new: NewModule, view: &mut View) {
        let device = self.identity.as_ref().expect("a device for the module");
        if self.is_foreign {
            assert!(device.enabled && new.device_etag.is_none());
        } else {
            assert_eq!(new.device_etag.as_ref(), Some(&device.etag));
        }
        view.modules = None;
        if self.refuses_module == Some(new.id.as_str()) {
            view.refused_modules.insert(new.id, "full".into());
            return;
        }
        if !self.is_foreign {
            self.identity = Some(device.clone().with_module(&new.id));
            view.identity = Some(self.identity.clone());
        }
        self.modules.insert(new.id, new.content);
    }

    /// Gives the device a module that reported that.
    pub(crate) fn put_module(&mut self, id: &str, nonce: u32) {
        let device = self.identity.take().expect("a device for the module");
        self.identity = Some(if self.is_foreign {
            device
        } else {
            device.with_module(id)
        });
        self.modules.insert(id.into(), reported(nonce));
    }
}

struct Around<'a>(&'a Stage);

impl Surroundings for Around<'_> {
    fn is_registered(&self, uid: &str) -> bool {
        uid == UID || self.0.others.contains(&uid)
    }

    fn owner_of(&self, _: &str, _: &str) -> Option<String> {
        self.0.owner.map(str::to_owned)
    }

    fn quiet_in(&self, hub_uid: &str) -> SignedDuration {
        let busy = self.0.hubs.get(hub_uid).is_some_and(|hub| hub.busy);
        SignedDuration::from_secs(if busy { 30 } else { 0 })
    }
}

impl Stage {
    /// Two empty hubs, `a` wanted; a request that proposes it.
    pub(crate) fn new() -> Self {
        let mut stage = Self {
            spec: DeviceRegistrationSpec {
                registration_id: "press-7".into(),
                request: None,
                reprovision: None,
                deletion_policy: None,
            },
            status: DeviceRegistrationStatus::default(),
            hubs: BTreeMap::from([("a", Hub::default()), ("b", Hub::default())]),
            enrolled: None,
            deleting: false,
            letting_go: false,
            check_home: false,
            look_everywhere: false,
            now: Timestamp::from_second(1_800_000_000).unwrap(),
            others: Vec::new(),
            owner: None,
            meanwhile: None,
            message: None,
            ids: 0,
            counter: 0,
        };
        stage.enroll("a", None);
        stage.request("op1", "a");
        stage
    }

    /// A device that lives at `a` and has written there.
    pub(crate) fn settled() -> Self {
        let mut stage = Self::new();
        stage.run();
        let reported = json!({"nonce": 7}).as_object().cloned().unwrap();
        stage.hub("a").content.reported = reported;
        stage
    }

    pub(crate) fn hub(&mut self, name: &str) -> &mut Hub {
        self.hubs.get_mut(name).unwrap()
    }

    /// The Enrollment places everything on `hub` and has that policy.
    pub(crate) fn enroll(&mut self, hub: &str, policy: Option<ReprovisionPolicy>) {
        let keys = keys('A');
        let member = |name: &&str| Member {
            hub: hub_ref(name),
            weight: if *name == hub { 1000 } else { 1 },
            available: true,
        };
        self.enrolled = Some(Enrolled {
            disabled: false,
            policy,
            sticky_api: false,
            pool: Pool {
                policy: AllocationPolicy::Hashed,
                members: self.hubs.keys().map(member).collect(),
            },
            device_id: "press-7".into(),
            initial_twin: None,
            edge: false,
            proceed_without_source: false,
            credential: DeviceCredential::Keys(keys),
            fingerprint: "A".into(),
        });
    }

    pub(crate) fn enrolled(&mut self) -> &mut Enrolled {
        self.enrolled.as_mut().unwrap()
    }

    pub(crate) fn request(&mut self, operation: &str, proposed: &str) {
        self.spec.request = Some(RegistrationRequest {
            operation_id: operation.into(),
            api_version: "2021-06-01".into(),
            enrollment: EnrollmentRef {
                name: "line".into(),
                uid: "line".into(),
            },
            credential: "A".into(),
            proposed_hub: Some(proposed.into()),
            reason: "Hashed".into(),
            payload_digest: None,
            storage_root_key: None,
            verify_home: false,
            traceparent: None,
            requested_at: MicroTime(self.now),
        });
    }

    pub(crate) fn trigger(&mut self, mode: ReprovisionMode, hub: Option<&str>) {
        let hub = hub.map(str::to_owned);
        self.spec.reprovision = Some(ReprovisionTrigger {
            id: "r1".into(),
            mode,
            hub,
        });
    }

    /// Puts a device there that nobody knows.
    pub(crate) fn put(&mut self, hub: &str, on: bool, reason: &str) {
        let id = self.next('g');
        let etag = self.next('e');
        let body = json!({"deviceId": "press-7", "generationId": id, "etag": etag,
            "status": if on { "enabled" } else { "disabled" }, "statusReason": reason,
            "authentication": Credential::Attested(DeviceCredential::Keys(keys('E'))).authentication()});
        self.hub(hub).identity = Identity::from_json(body.as_object().cloned().unwrap()).ok();
    }

    fn next(&mut self, letter: char) -> String {
        self.counter += 1;
        format!("{letter}{}", self.counter)
    }

    /// Does what is asked until nothing is, and tells what that was.
    pub(crate) fn run(&mut self) -> Vec<String> {
        let mut log = Vec::new();
        let mut views = Views::default();
        loop {
            assert!(log.len() < 40, "no end: {log:#?}");
            if let Some((_, act)) = self.meanwhile.filter(|(at, _)| *at == log.len()) {
                self.meanwhile = None;
                act(self);
            }
            let step = self.decide(&views);
            log.push(describe(&step));
            match step {
                Step::Look(look) => self.look(&look, &mut views),
                Step::Effect(effect) => self.apply(*effect, &mut views),
                Step::Record(record) => {
                    self.record(*record);
                    views = Views::default();
                }
                Step::Release { .. } | Step::Wait(_) | Step::Settled => return log,
            }
        }
    }

    fn decide(&self, views: &Views) -> Step {
        let hubs = self.hubs.iter().map(|(name, hub)| HubFacts {
            hub: hub_ref(name),
            ready: true,
            fences: true,
            unique_etags: true,
            carries_modules: !hub.is_foreign,
            refuses_existing: hub.refuses_existing,
        });
        decide(&Facts {
            uid: UID,
            spec: &self.spec,
            status: &self.status,
            deleting: self.deleting,
            letting_go: self.letting_go,
            enrollment: self
                .enrolled
                .clone()
                .map_or(EnrollmentFacts::Missing, |enrolled| {
                    EnrollmentFacts::Valid(Box::new(enrolled))
                }),
            hubs: hubs.collect(),
            views,
            surroundings: &Around(self),
            check_home: self.check_home,
            look_everywhere: self.look_everywhere,
            now: self.now,
            fresh_id: &format!("t{}", self.ids + 1),
            patience: SignedDuration::from_mins(5),
            call_life: SignedDuration::from_secs(30),
            #[cfg(feature = "mutants")]
            mutant: None,
        })
    }

    fn look(&mut self, look: &Look, views: &mut Views) {
        let at = look.hub();
        let hub = &self.hubs[at.uid.as_str()];
        if let Some(kind) = hub.trouble {
            views.of_mut(&at.uid).trouble = Some(trouble(kind));
            return;
        }
        match look {
            Look::Identity(_) => {
                let view = views.of_mut(&at.uid);
                view.identity = Some(hub.identity.clone());
                view.in_flight = hub.busy;
            }
            Look::Twin(_) => {
                let twin = hub
                    .identity
                    .as_ref()
                    .map(|identity| twin(identity, &hub.content));
                views.saw_twin(&at.uid, twin);
            }
            Look::Room(_) => {
                let room = hub.limit.map_or(Room::Free, |limit| Room::Full { limit });
                views.of_mut(&at.uid).room = Some(room);
            }
            Look::Modules(_) => {
                let ids = hub.modules.keys().cloned().collect();
                views.of_mut(&at.uid).modules = Some(ids);
            }
            Look::Module(_, id) => {
                let identity = hub
                    .identity
                    .as_ref()
                    .expect("reads modules of what is there");
                // Foreign hubs show no module identities of a disabled device.
                let shown = json!({ "managedBy": "line", "authentication": { "type": "sas" } });
                let shown = shown
                    .as_object()
                    .filter(|_| !hub.is_foreign || identity.enabled);
                let module = hub
                    .modules
                    .get(id)
                    .map(|content| Module::new(id, shown, twin(identity, content)));
                let read = &mut views.of_mut(&at.uid).read_modules;
                read.insert(id.clone(), module);
            }
        }
    }

    fn apply(&mut self, effect: Effect, views: &mut Views) {
        let (generation, etag) = (self.next('g'), self.next('e'));
        let hub = self.hubs.get_mut(effect.hub.uid.as_str()).unwrap();
        let looked_at = views.of(&effect.hub.uid).identity.clone().flatten();
        let view = views.of_mut(&effect.hub.uid);
        if let Call::CreateModule(new) = effect.call {
            return hub.take_module(*new, view);
        }
        view.forget();
        view.twin = None;
        match effect.call {
            Call::Create(_) if hub.refuses => view.trouble = Some(trouble(TroubleKind::Refused)),
            Call::Create(_) if hub.identity.is_some() => view.exists = true,
            Call::Create(new) => {
                hub.identity = Some(new.created(generation, etag));
                hub.content = new.content;
                view.identity = Some(hub.identity.clone());
            }
            Call::Update(change) => {
                let there = hub.identity.as_ref().expect("updates what is there");
                assert_eq!(Some(&there.etag), looked_at.map(|seen| seen.etag).as_ref());
                let mut body = there.body().clone();
                let status = if change.enabled {
                    "enabled"
                } else {
                    "disabled"
                };
                body.insert("status".into(), status.into());
                body.insert(
                    "statusReason".into(),
                    change.reason.map_or(Value::Null, Value::from),
                );
                body.insert("etag".into(), etag.into());
                if let Some(credential) = change.credential {
                    body.insert("authentication".into(), credential.authentication());
                }
                hub.identity = Identity::from_json(body).ok();
                view.identity = Some(hub.identity.clone());
                view.acknowledged = true;
            }
            Call::CreateModule(_) => unreachable!("taken above"),
            Call::Delete => {
                hub.modules.clear();
                let there = hub.identity.take().expect("deletes what is there");
                assert_eq!(Some(there.etag), looked_at.map(|seen| seen.etag));
                hub.content = Content::default();
                view.identity = Some(None);
            }
            Call::WriteTwin { tags, desired } => {
                hub.content.tags = tags;
                hub.content.desired = desired;
            }
        }
    }

    fn record(&mut self, record: Record) {
        let text = serde_json::to_string(&record.status).unwrap();
        if text.contains(&format!("\"t{}\"", self.ids + 1)) {
            self.ids += 1;
        }
        if record.status == self.status || record.status.home_checked_at.is_some() {
            self.check_home = false;
        }
        self.status = record.status;
        self.message = Some(record.message);
    }
}

/// Keys made of one letter.
pub(crate) fn keys(letter: char) -> DeviceKeys {
    let key = || {
        let text: String = std::iter::repeat_n(letter, 43).chain(['=']).collect();
        text.parse().unwrap()
    };
    DeviceKeys {
        primary: key(),
        secondary: key(),
    }
}

fn hub_ref(name: &str) -> HubRef {
    HubRef {
        name: name.into(),
        uid: name.into(),
        host_name: format!("{name}.example"),
    }
}

fn trouble(kind: TroubleKind) -> Trouble {
    Trouble {
        kind,
        message: "trouble".into(),
    }
}

fn twin(identity: &Identity, content: &Content) -> Twin {
    Twin {
        etag: "1".into(),
        device_etag: identity.etag.clone(),
        content: content.clone(),
        desired_version: 1,
        reported_version: 1,
        metadata: Metadata::default(),
    }
}

/// A twin with one reported property.
pub(crate) fn reported(value: u32) -> Content {
    let reported: Map<String, Value> = Map::from_iter([("nonce".to_owned(), value.into())]);
    Content {
        reported,
        ..Content::default()
    }
}

/// One line for a step; digests are left out.
fn describe(step: &Step) -> String {
    match step {
        Step::Look(Look::Identity(hub)) => format!("look at the identity at {}", hub.name),
        Step::Look(Look::Twin(hub)) => format!("look at the twin at {}", hub.name),
        Step::Look(Look::Room(hub)) => format!("look for room at {}", hub.name),
        Step::Look(Look::Modules(hub)) => format!("list the modules at {}", hub.name),
        Step::Look(Look::Module(hub, id)) => format!("look at module {id} at {}", hub.name),
        Step::Effect(effect) => {
            let at = &effect.hub.name;
            let live = if effect.needs_live_status {
                ", live"
            } else {
                ""
            };
            match &effect.call {
                Call::Create(new) => {
                    format!("create at {at} disabled for {}{live}", new.mark.transfer)
                }
                Call::Update(change) => {
                    let verb = if change.enabled { "enable" } else { "disable" };
                    let reason = change.reason.as_deref().unwrap_or("no reason");
                    let keys = if change.credential.is_some() {
                        ", new keys"
                    } else {
                        ""
                    };
                    format!("{verb} at {at} with {reason:?}{keys}{live}")
                }
                Call::CreateModule(new) => {
                    let keys = if new.authentication.is_some() {
                        ""
                    } else {
                        " with new keys"
                    };
                    format!("create module {} at {at}{keys}{live}", new.id)
                }
                Call::Delete => format!("delete at {at}{live}"),
                Call::WriteTwin { .. } => format!("write the twin at {at}{live}"),
            }
        }
        Step::Record(record) => {
            let status = &record.status;
            let state = status
                .state
                .map_or_else(String::new, |state| format!("{state:?}"));
            let phase = status.transfer.as_ref();
            let phase = phase.map_or_else(String::new, |move_| format!(" {:?}", move_.phase));
            let left: Vec<_> = status
                .cleanup
                .iter()
                .map(|entry| entry.name.as_str())
                .collect();
            let left = if left.is_empty() {
                String::new()
            } else {
                format!(", cleanup {}", left.join(" "))
            };
            format!("record {state}{phase} {}{left}", record.reason)
        }
        Step::Release { warning: None } => "release".into(),
        Step::Release { warning: Some(_) } => "release with a warning".into(),
        Step::Wait(wait) => format!("wait: {}", wait.reason),
        Step::Settled => "settled".into(),
    }
}
