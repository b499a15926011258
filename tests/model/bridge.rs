//! Between the abstract world and the real `decide`: real facts in, an abstract move out.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use serde_json::{Map, json};

use rehome::api::v1alpha1::{
    AllocationPolicy, CleanupEntry, DeviceRegistrationSpec, DeviceRegistrationStatus,
    EnrollmentRef, FirstAssignment, HubRef, OriginalStatus, RefusedMove,
    RegistrationDeletionPolicy, RegistrationRequest, RegistrationState, ReprovisionMode,
    ReprovisionPolicy, ReprovisionTrigger, Transfer as RealTransfer, TransferData, TransferPhase,
    TransferSource, TransferTarget,
};
use rehome::domain::allocation::{Member, Pool};
use rehome::domain::attestation::{DeviceCredential, DeviceKeys};
use rehome::domain::identity::{Credential, Identity, Mark};
use rehome::domain::transfer::{
    Call as RealCall, Enrolled, EnrollmentFacts, Facts, HubFacts, Look, Room, Step, Surroundings,
    Trouble, TroubleKind, Views, decide,
};
use rehome::domain::twin::{Content, Metadata, Twin};

use crate::world::{HUBS, Id, Object, Seen, Status, Transfer, Word};

/// Everything one decision depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    pub(crate) object: Object,
    pub(crate) seen: [Seen; HUBS],
    /// Hubs with calls of this registration in flight.
    pub(crate) busy: u8,
    pub(crate) hubs: u8,
    pub(crate) want: u8,
    pub(crate) enrollment: u8,
    pub(crate) policy: u8,
    pub(crate) proceed: bool,
    pub(crate) retain: bool,
    pub(crate) later: bool,
    pub(crate) check_home: bool,
    pub(crate) token: u8,
}

/// What `decide` said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Move {
    LookIdentity(u8),
    LookTwin(u8),
    LookRoom(u8),
    Create {
        hub: u8,
        word: Word,
        data: u8,
        live: bool,
    },
    Update {
        hub: u8,
        on: bool,
        word: Word,
        keys: bool,
        live: bool,
    },
    Delete {
        hub: u8,
        live: bool,
    },
    Record(Status),
    Release,
    Wait,
    Settled,
}

const ID: &str = "press-7";
const FINGERPRINT: &str = "f";

pub(crate) struct Bridge {
    keys: DeviceKeys,
    hashes: Vec<String>,
    #[cfg(feature = "mutants")]
    pub(crate) mutant: Option<rehome::domain::transfer::Mutant>,
}

struct Around {
    uid: String,
    busy: u8,
}

impl Surroundings for Around {
    fn is_registered(&self, uid: &str) -> bool {
        uid == self.uid
    }

    fn owner_of(&self, _: &str, _: &str) -> Option<String> {
        None
    }

    fn quiet_in(&self, hub_uid: &str) -> SignedDuration {
        let busy = self.busy & 1 << hub_number(hub_uid) != 0;
        SignedDuration::from_secs(if busy { 30 } else { 0 })
    }
}

impl Bridge {
    pub(crate) fn new(hubs: u8) -> Self {
        let key = |byte: char| {
            let text: String = std::iter::repeat_n(byte, 43).chain(['=']).collect();
            text.parse().expect("a key")
        };
        let keys = DeviceKeys {
            primary: key('A'),
            secondary: key('E'),
        };
        let hashes = (1..=hubs).map(|want| pool(hubs, want).hash()).collect();
        Self {
            keys,
            hashes,
            #[cfg(feature = "mutants")]
            mutant: None,
        }
    }

    /// Asks the real `decide`.
    pub(crate) fn ask(&self, q: &Question) -> Move {
        let spec = self.spec(q);
        let status = self.status(q, &q.object.status);
        let views = self.views(q);
        let uid = name('u', q.object.uid);
        let around = Around {
            uid: uid.clone(),
            busy: q.busy,
        };
        let now = if q.later {
            start() + SignedDuration::from_hours(24)
        } else {
            start()
        };
        let facts = Facts {
            uid: &uid,
            spec: &spec,
            status: &status,
            deleting: q.object.deleting,
            letting_go: false,
            enrollment: self.enrollment(q),
            hubs: (0..q.hubs).map(hub_facts).collect(),
            views: &views,
            surroundings: &around,
            check_home: q.check_home,
            look_everywhere: false,
            now,
            fresh_id: &name('t', q.token),
            patience: SignedDuration::from_secs(-1),
            call_life: SignedDuration::from_secs(30),
            #[cfg(feature = "mutants")]
            mutant: self.mutant,
        };
        self.abstracted(q, decide(&facts))
    }

    fn abstracted(&self, q: &Question, step: Step) -> Move {
        match step {
            Step::Look(Look::Identity(hub)) => Move::LookIdentity(hub_number(&hub.uid)),
            Step::Look(Look::Twin(hub)) => Move::LookTwin(hub_number(&hub.uid)),
            Step::Look(Look::Room(hub)) => Move::LookRoom(hub_number(&hub.uid)),
            Step::Look(Look::Modules(_) | Look::Module(..)) => panic!("no device has modules"),
            Step::Effect(effect) => {
                let (hub, live) = (hub_number(&effect.hub.uid), effect.needs_live_status);
                match effect.call {
                    RealCall::Create(new) => Move::Create {
                        hub,
                        word: word(Some(&new.mark.to_string())),
                        data: data(&new.content),
                        live,
                    },
                    RealCall::Update(change) => Move::Update {
                        hub,
                        on: change.enabled,
                        word: word(change.reason.as_deref()),
                        keys: change.credential.is_some(),
                        live,
                    },
                    RealCall::Delete => Move::Delete { hub, live },
                    RealCall::WriteTwin { .. } => panic!("every hub of the model fences"),
                    RealCall::CreateModule(_) => panic!("no device has modules"),
                }
            }
            Step::Record(record) => {
                let status = self.recorded(q, &record.status);
                // What the model does not carry must not matter: the round trip loses nothing else.
                let again = self.recorded(q, &self.status(q, &status));
                assert_eq!(again, status);
                Move::Record(status)
            }
            Step::Release { .. } => Move::Release,
            Step::Wait(_) => Move::Wait,
            Step::Settled => Move::Settled,
        }
    }

    fn enrollment(&self, q: &Question) -> EnrollmentFacts {
        if q.enrollment == 2 {
            return EnrollmentFacts::Missing;
        }
        EnrollmentFacts::Valid(Box::new(Enrolled {
            disabled: q.enrollment == 1,
            policy: match q.policy {
                1 => Some(ReprovisionPolicy::MigrateData),
                2 => Some(ReprovisionPolicy::ResetData),
                3 => Some(ReprovisionPolicy::Never),
                _ => None,
            },
            sticky_api: q.policy == 4,
            pool: pool(q.hubs, q.want),
            device_id: ID.into(),
            initial_twin: None,
            edge: false,
            proceed_without_source: q.proceed,
            credential: DeviceCredential::Keys(self.keys.clone()),
            fingerprint: FINGERPRINT.into(),
        }))
    }

    fn spec(&self, q: &Question) -> DeviceRegistrationSpec {
        let spec = q.object.spec;
        DeviceRegistrationSpec {
            registration_id: ID.into(),
            request: (spec.operation != 0).then(|| RegistrationRequest {
                operation_id: name('t', spec.operation),
                api_version: "2021-06-01".into(),
                enrollment: EnrollmentRef {
                    name: "line".into(),
                    uid: "line".into(),
                },
                credential: FINGERPRINT.into(),
                proposed_hub: (spec.proposed != 0).then(|| hub(spec.proposed - 1).name),
                reason: "Hashed".into(),
                payload_digest: None,
                storage_root_key: None,
                verify_home: spec.verify,
                traceparent: None,
                requested_at: MicroTime(start()),
            }),
            reprovision: (spec.trigger != 0).then(|| ReprovisionTrigger {
                id: "trigger".into(),
                mode: match spec.trigger {
                    1 => ReprovisionMode::Policy,
                    2 => ReprovisionMode::MigrateData,
                    _ => ReprovisionMode::ResetData,
                },
                hub: None,
            }),
            deletion_policy: q.retain.then_some(RegistrationDeletionPolicy::Retain),
        }
    }

    fn hash(&self, want: u8) -> Option<String> {
        (want != 0).then(|| self.hashes[usize::from(want) - 1].clone())
    }

    /// The status that an abstract one stands for.
    fn status(&self, q: &Question, s: &Status) -> DeviceRegistrationStatus {
        let t = &s.transfer;
        let home = (s.home != 0).then(|| hub(s.home - 1));
        DeviceRegistrationStatus {
            state: match s.state {
                1 => Some(RegistrationState::Assigning),
                2 => Some(RegistrationState::Assigned),
                3 => Some(RegistrationState::Failed),
                4 => Some(RegistrationState::Disabled),
                _ => None,
            },
            assigned_hub: home.as_ref().map(|home| home.host_name.clone()),
            device_id: home.as_ref().map(|_| ID.into()),
            home,
            generation_id: named('g', s.generation),
            operation_id: named('t', s.operation),
            placement_hash: self.hash(s.hash),
            credential: s.credential.then(|| FINGERPRINT.into()),
            first_assignment: (s.first != 0).then(|| FirstAssignment {
                id: name('t', s.first_id),
                hub: hub(s.first - 1),
            }),
            transfer: (t.phase != 0).then(|| self.transfer(t)),
            cleanup: (0..q.hubs)
                .filter(|number| s.cleanup[usize::from(*number)].0)
                .map(|number| {
                    let HubRef {
                        name: title,
                        uid,
                        host_name,
                    } = hub(number);
                    let generation_id = named('g', s.cleanup[usize::from(number)].1);
                    let since = MicroTime(start());
                    CleanupEntry {
                        name: title,
                        uid,
                        host_name,
                        generation_id,
                        since,
                    }
                })
                .collect(),
            refused: (s.refused_hub != 0).then(|| RefusedMove {
                placement_hash: self.hash(s.refused_hash).unwrap_or_default(),
                host_name: hub(s.refused_hub - 1).host_name,
                reason: "TargetRefused".into(),
                attempts: 1,
                until: MicroTime(start() + SignedDuration::from_mins(5)),
            }),
            reprovision_id: s.trigger_done.then(|| "trigger".into()),
            ..DeviceRegistrationStatus::default()
        }
    }

    fn transfer(&self, t: &Transfer) -> RealTransfer {
        RealTransfer {
            id: name('t', t.id),
            phase: match t.phase {
                1 => TransferPhase::Open,
                2 => TransferPhase::Committed,
                _ => TransferPhase::Aborting,
            },
            data: if t.initial {
                TransferData::Initial
            } else {
                TransferData::Migrate
            },
            from: TransferSource {
                hub: hub(t.from - 1),
                generation_id: name('g', t.generation),
                original: OriginalStatus {
                    enabled: t.was_on,
                    reason: t.was_operators.then(|| OPERATOR.into()),
                },
            },
            to: TransferTarget { hub: hub(t.to - 1) },
            policy: "MigrateData".into(),
            trigger: t.triggered.then(|| "trigger".into()),
            placement_hash: self.hash(t.hash).unwrap_or_default(),
            initial_twin: None,
            proceed_without_source: t.proceed,
            started_at: MicroTime(start()),
            abort_reason: None,
            abort_message: None,
            source_twin: None,
            modules: Vec::new(),
            module_notes: Vec::new(),
        }
    }

    /// The abstract status of a real one.
    fn recorded(&self, q: &Question, s: &DeviceRegistrationStatus) -> Status {
        let number = |hub: &HubRef| hub_number(&hub.uid) + 1;
        let hash = |hash: Option<&str>| {
            let known = self
                .hashes
                .iter()
                .position(|known| Some(known.as_str()) == hash);
            known.map_or(0, |known| u8::try_from(known).expect("few hubs") + 1)
        };
        let mut cleanup = [(false, 0); HUBS];
        for entry in &s.cleanup {
            cleanup[usize::from(hub_number(&entry.uid))] =
                (true, number_of(entry.generation_id.as_deref()));
        }
        assert_eq!(
            s.assigned_hub.as_deref(),
            s.home.as_ref().map(|home| home.host_name.as_str()),
            "assignedHub and home tell two stories"
        );
        Status {
            state: match s.state {
                None => 0,
                Some(RegistrationState::Assigning) => 1,
                Some(RegistrationState::Assigned) => 2,
                Some(RegistrationState::Failed) => 3,
                Some(RegistrationState::Disabled) => 4,
            },
            home: s.home.as_ref().map_or(0, number),
            generation: number_of(s.generation_id.as_deref()),
            operation: number_of(s.operation_id.as_deref()),
            hash: hash(s.placement_hash.as_deref()),
            credential: s.credential.is_some(),
            first: s
                .first_assignment
                .as_ref()
                .map_or(0, |first| number(&first.hub)),
            first_id: number_of(s.first_assignment.as_ref().map(|first| first.id.as_str())),
            transfer: s
                .transfer
                .as_ref()
                .map_or_else(Transfer::default, |t| Transfer {
                    phase: match t.phase {
                        TransferPhase::Open => 1,
                        TransferPhase::Committed => 2,
                        TransferPhase::Aborting => 3,
                    },
                    id: number_of(Some(&t.id)),
                    initial: t.data == TransferData::Initial,
                    from: number(&t.from.hub),
                    to: number(&t.to.hub),
                    generation: number_of(Some(&t.from.generation_id)),
                    was_on: t.from.original.enabled,
                    was_operators: t.from.original.reason.is_some(),
                    hash: hash(Some(&t.placement_hash)),
                    triggered: t.trigger.is_some(),
                    proceed: t.proceed_without_source,
                }),
            cleanup,
            refused_hash: s
                .refused
                .as_ref()
                .map_or(0, |r| hash(Some(&r.placement_hash))),
            refused_hub: s.refused.as_ref().map_or(0, |refused| {
                let host = |hub: &u8| self::hub(*hub).host_name == refused.host_name;
                (0..q.hubs).find(host).map_or(0, |hub| hub + 1)
            }),
            trigger_done: s.reprovision_id.is_some(),
        }
    }

    fn views(&self, q: &Question) -> Views {
        let mut views = Views::default();
        let mut order: Vec<u8> = (0..q.hubs).collect();
        order.sort_by_key(|hub| q.seen[usize::from(*hub)].twin.map_or(0, |twin| twin.3));
        for number in order {
            let seen = &q.seen[usize::from(number)];
            let uid = hub(number).uid;
            if let Some((present, bits, etag, _)) = seen.twin {
                views.saw_twin(&uid, present.then(|| twin(bits, etag)));
            }
            let view = views.of_mut(&uid);
            view.identity = seen
                .identity
                .map(|id| (id.generation != 0).then(|| self.identity(&id)));
            view.room = seen.room.then_some(Room::Free);
            view.trouble = (seen.trouble != 0).then(|| Trouble {
                kind: if seen.trouble == 1 {
                    TroubleKind::Unreachable
                } else {
                    TroubleKind::Refused
                },
                message: "trouble".into(),
            });
            view.exists = seen.exists;
            view.acknowledged = seen.acknowledged;
            view.in_flight = seen.busy;
        }
        views
    }

    fn identity(&self, id: &Id) -> Identity {
        let keys = if id.ours {
            Credential::Attested(DeviceCredential::Keys(self.keys.clone())).authentication()
        } else {
            json!({"type": "sas", "symmetricKey": {"primaryKey": "eA==", "secondaryKey": "eA=="}})
        };
        let body = json!({
            "deviceId": ID, "generationId": name('g', id.generation), "etag": name('e', id.etag),
            "status": if id.on { "enabled" } else { "disabled" },
            "statusReason": reason(id.word), "authentication": keys,
        });
        let body = body.as_object().cloned().expect("an object");
        Identity::from_json(body).expect("an identity")
    }
}

const OPERATOR: &str = "in repair";

fn start() -> Timestamp {
    Timestamp::from_second(1_800_000_000).expect("a time")
}

fn hub(number: u8) -> HubRef {
    let letter = ["a", "b", "c"][usize::from(number)];
    HubRef {
        name: letter.into(),
        uid: format!("hub-{letter}"),
        host_name: format!("{letter}.example"),
    }
}

fn hub_number(uid: &str) -> u8 {
    match uid {
        "hub-a" => 0,
        "hub-b" => 1,
        _ => 2,
    }
}

fn hub_facts(number: u8) -> HubFacts {
    HubFacts {
        hub: hub(number),
        ready: true,
        fences: true,
        unique_etags: true,
        carries_modules: true,
        refuses_existing: false,
    }
}

/// Weights leave no doubt which hub allocation wants.
fn pool(hubs: u8, want: u8) -> Pool {
    let member = |number: u8| Member {
        hub: hub(number),
        weight: if number + 1 == want { 1000 } else { 1 },
        available: true,
    };
    Pool {
        policy: AllocationPolicy::Hashed,
        members: (0..hubs).map(member).collect(),
    }
}

fn name(letter: char, number: u8) -> String {
    if number == 0 {
        String::new()
    } else {
        format!("{letter}{number}")
    }
}

fn named(letter: char, number: u8) -> Option<String> {
    (number != 0).then(|| name(letter, number))
}

fn number_of(name: Option<&str>) -> u8 {
    name.and_then(|name| name.get(1..))
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0)
}

fn content(bits: u8) -> Content {
    let mut reported = Map::new();
    for bit in 0..8 {
        if bits & 1 << bit != 0 {
            reported.insert(format!("w{bit}"), json!(1));
        }
    }
    Content {
        reported,
        ..Content::default()
    }
}

fn data(content: &Content) -> u8 {
    let written = content.reported.keys();
    written.fold(0, |bits, key| {
        bits | 1 << key[1..].parse::<u8>().expect("a write")
    })
}

fn twin(bits: u8, device_etag: u8) -> Twin {
    Twin {
        etag: "1".into(),
        device_etag: name('e', device_etag),
        content: content(bits),
        desired_version: 1,
        reported_version: 1,
        metadata: Metadata::default(),
    }
}

fn reason(word: Word) -> Option<String> {
    if word.operator {
        return Some(OPERATOR.into());
    }
    (word.uid != 0).then(|| {
        let mark = Mark::new(&name('u', word.uid), &name('t', word.token));
        match word.digest {
            0 => mark,
            1 => mark.with_digest("adopted".into()),
            bits => mark.with_digest(content(bits - 2).digest()),
        }
        .to_string()
    })
}

fn word(reason: Option<&str>) -> Word {
    let Some(reason) = reason else {
        return Word::default();
    };
    let Some(mark) = Mark::parse(reason) else {
        return Word {
            operator: true,
            ..Word::default()
        };
    };
    let digest = mark.digest.map_or(0, |digest| {
        let bits = (0..8u8).find(|bits| content(*bits).digest() == digest);
        bits.map_or(1, |bits| bits + 2)
    });
    Word {
        uid: number_of(Some(&mark.registration)),
        token: number_of(Some(&mark.transfer)),
        digest,
        operator: false,
    }
}
