//! `kubectl rehome status`: hubs, Enrollments, what is moving, what is stuck and why, on one screen
//! whatever the size of the fleet.

mod render;

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::ResourceExt as _;
use serde::Serialize;

use super::finding::{Finding, Kind, Standing};
use super::{Failure, Outcome, fleet};
use crate::api::v1alpha1::{
    DeviceRegistration, Enrollment, IoTHub, RegistrationState, TransferPhase,
};

/// Moves that are named; the others are counted.
const NAMED: usize = 10;

/// What there is, and how it stands.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Overview {
    /// The namespace looked at; absent for all.
    pub namespace: Option<String>,
    /// When it was looked at.
    pub at: Timestamp,
    /// Every hub.
    pub hubs: Vec<HubLine>,
    /// Every Enrollment.
    pub enrollments: Vec<EnrollmentLine>,
    /// Registrations by state.
    pub registrations: BTreeMap<&'static str, usize>,
    /// Open moves.
    pub moving: Moving,
    /// What does not go on, by kind and reason.
    pub stuck: Vec<Group>,
    /// The command to type next.
    pub next: String,
}

/// A hub.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HubLine {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What devices are told.
    pub host_name: String,
    /// How it stands.
    pub standing: Standing,
    /// Why.
    pub reason: String,
    /// Devices that live there.
    pub devices: i64,
    /// Share in allocation.
    pub weight: u32,
    /// Whether it takes no more devices.
    pub cordoned: bool,
}

/// An Enrollment.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EnrollmentLine {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The one device's id; absent for a group.
    pub registration_id: Option<String>,
    /// Its policy; absent leaves it to the compatibility rule.
    pub policy: Option<String>,
    /// How it stands.
    pub standing: Standing,
    /// Why.
    pub reason: String,
    /// Registrations that came through it.
    pub devices: i64,
    /// Those that get another hub when they come next.
    pub would_move: i64,
}

/// Open moves.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Moving {
    /// How many.
    pub count: usize,
    /// The oldest of them.
    pub oldest: Vec<Move>,
}

/// An open move, or a reset in place.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Move {
    /// Namespace of the registration.
    pub namespace: String,
    /// Its registration id.
    pub registration: String,
    /// Name of the hub it leaves.
    pub from: String,
    /// Name of the hub it goes to.
    pub to: String,
    /// How far it got.
    pub phase: TransferPhase,
    /// Policy or trigger that wanted it.
    pub policy: String,
    /// Since when.
    pub since: Timestamp,
}

/// Objects of a kind that are stuck for the same reason.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// How many.
    pub count: usize,
    /// The one that has been stuck for longest.
    pub oldest: Finding,
}

/// An overview in the making; objects are shown to it one by one and not kept.
pub struct Survey {
    overview: Overview,
    groups: BTreeMap<(Kind, String), Group>,
}

impl Survey {
    /// An empty one.
    pub fn new(namespace: Option<&str>, at: Timestamp) -> Self {
        let overview = Overview {
            namespace: namespace.map(str::to_owned),
            at,
            hubs: Vec::new(),
            enrollments: Vec::new(),
            registrations: BTreeMap::new(),
            moving: Moving::default(),
            stuck: Vec::new(),
            next: String::new(),
        };
        Self {
            overview,
            groups: BTreeMap::new(),
        }
    }

    /// Takes in a hub.
    pub fn hub(&mut self, hub: &IoTHub) {
        let finding = Finding::of_hub(hub, self.overview.at);
        self.overview.hubs.push(HubLine {
            namespace: finding.namespace.clone(),
            name: finding.name.clone(),
            host_name: hub.spec.host_name.clone(),
            standing: finding.standing,
            reason: finding.reason.clone(),
            devices: hub
                .status
                .as_ref()
                .and_then(|it| it.assigned_devices)
                .unwrap_or(0),
            weight: hub.spec.weight(),
            cordoned: hub.spec.is_cordoned(),
        });
        self.group(finding);
    }

    /// Takes in an Enrollment.
    pub fn enrollment(&mut self, enrollment: &Enrollment) {
        let finding = Finding::of_enrollment(enrollment, self.overview.at);
        let spec = &enrollment.spec;
        let counts = enrollment.status.as_ref().and_then(|it| it.registrations);
        let counts = counts.unwrap_or_default();
        self.overview.enrollments.push(EnrollmentLine {
            namespace: finding.namespace.clone(),
            name: finding.name.clone(),
            registration_id: spec
                .individual
                .as_ref()
                .map(|it| it.registration_id.clone()),
            policy: spec.reprovision_policy.map(|policy| format!("{policy:?}")),
            standing: finding.standing,
            reason: finding.reason.clone(),
            devices: counts.total,
            would_move: counts.would_move,
        });
        self.group(finding);
    }

    /// Takes in a registration.
    pub fn registration(&mut self, registration: &DeviceRegistration) {
        let state = super::finding::state_of(registration);
        *self.overview.registrations.entry(state).or_default() += 1;
        let status = registration.status.as_ref();
        if let Some(transfer) = status.and_then(|status| status.transfer.as_ref()) {
            self.overview.moving.add(Move {
                namespace: registration.namespace().unwrap_or_default(),
                registration: registration.spec.registration_id.clone(),
                from: transfer.from.hub.name.clone(),
                to: transfer.to.hub.name.clone(),
                phase: transfer.phase,
                policy: transfer.policy.clone(),
                since: transfer.started_at.0,
            });
        }
        self.group(Finding::of_registration(registration, self.overview.at));
    }

    fn group(&mut self, finding: Finding) {
        if finding.standing != Standing::Stuck {
            return;
        }
        let key = (finding.kind, finding.reason.clone());
        match self.groups.get_mut(&key) {
            None => {
                let group = Group {
                    count: 1,
                    oldest: finding,
                };
                self.groups.insert(key, group);
            }
            Some(group) => {
                group.count += 1;
                if finding.since < group.oldest.since {
                    group.oldest = finding;
                }
            }
        }
    }

    /// All that was seen.
    pub fn finish(self) -> Overview {
        let mut overview = self.overview;
        overview.stuck = self.groups.into_values().collect();
        overview.next = next(&overview);
        overview
    }
}

impl Moving {
    fn add(&mut self, new: Move) {
        self.count += 1;
        let at = self
            .oldest
            .partition_point(|known| known.since <= new.since);
        if at < NAMED {
            self.oldest.insert(at, new);
            self.oldest.truncate(NAMED);
        }
    }
}

/// What is worth typing next. A hub that is stuck is often why registrations are.
fn next(overview: &Overview) -> String {
    let place = overview.namespace.as_ref();
    let place = place.map_or("--all-namespaces".to_owned(), |namespace| {
        format!("-n {namespace}")
    });
    if let Some(first) = overview.stuck.first() {
        return first.oldest.next.clone();
    }
    if overview.hubs.is_empty() {
        return format!("kubectl rehome check {place}").replace(" --all-namespaces", "");
    }
    if overview.enrollments.is_empty() {
        return format!("kubectl get iothub {place}");
    }
    if overview.moving.count > 0 {
        return format!("kubectl get devreg {place} --watch");
    }
    format!("kubectl get devreg {place}")
}

/// Looks at everything and tells whether something is stuck.
pub(super) async fn survey(
    client: &kube::Client,
    namespace: Option<&str>,
    now: Timestamp,
) -> Result<(Overview, Outcome), Failure> {
    let mut survey = Survey::new(namespace, now);
    fleet::each::<IoTHub>(client, namespace, |hub| survey.hub(&hub)).await?;
    fleet::each::<Enrollment>(client, namespace, |one| survey.enrollment(&one)).await?;
    fleet::each::<DeviceRegistration>(client, namespace, |one| survey.registration(&one)).await?;
    let overview = survey.finish();
    let outcome = if overview.stuck.is_empty() {
        Outcome::Fine
    } else {
        Outcome::Trouble
    };
    Ok((overview, outcome))
}

impl Overview {
    fn in_state(&self, state: RegistrationState) -> usize {
        self.registrations
            .get(format!("{state:?}").as_str())
            .copied()
            .unwrap_or(0)
    }

    fn total(&self) -> usize {
        self.registrations.values().sum()
    }
}
