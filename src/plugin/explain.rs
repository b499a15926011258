//! `kubectl rehome explain`: why a device is where it is, what happens when it comes next, and what
//! happened before.

mod history;
mod render;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde::Serialize;

use super::finding::{Finding, Standing, state_of};
use super::outlook::{Outlook, World, is_sticky};
use super::{Failure, Outcome, fleet};
use crate::api::v1alpha1::{
    DeviceRegistration, DeviceRegistrationStatus, Enrollment, IoTHub, ReprovisionTrigger,
    TransferPhase,
};
use crate::cluster::apply::bounded;
use crate::domain::allocation::Placement;
use crate::domain::policy::Rule;
use crate::domain::transfer::Choice;

pub use history::Past;

/// Everything about one registration.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Registration id, as the device spells it.
    pub registration: String,
    /// When it was looked at.
    pub at: Timestamp,
    /// How it stands, why, and what to type next.
    pub finding: Finding,
    /// `Assigned` and so on.
    pub state: String,
    /// Name of the hub where the device lives.
    pub hub: Option<String>,
    /// What the device is told.
    pub host_name: Option<String>,
    /// What it is called there.
    pub device_id: Option<String>,
    /// The Enrollment that decides about it.
    pub enrollment: Option<String>,
    /// The rule that applies to it, and where that comes from.
    pub rule: Option<String>,
    /// How its Enrollment chooses hubs, best first.
    pub hubs: Vec<Ranked>,
    /// The open move.
    pub moving: Option<OpenMove>,
    /// Hubs where something of it may be left.
    pub left_at: Vec<String>,
    /// What happens when the device comes next.
    pub next_check_in: String,
    /// What the trigger in the spec does that has not been taken up yet.
    pub trigger: Option<String>,
    /// What happened, newest first.
    pub history: Vec<Past>,
    /// The command to type next.
    pub next: String,
}

/// A hub, in the order in which the device would have them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ranked {
    /// Its name.
    pub name: String,
    /// Its weight.
    pub weight: u32,
    /// Whether it may take devices now.
    pub available: bool,
    /// Whether the device lives there.
    pub home: bool,
}

/// A move that is under way.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenMove {
    /// From this hub.
    pub from: String,
    /// To this hub; the same for a reset in place.
    pub to: String,
    /// How far it got.
    pub phase: TransferPhase,
    /// Since when.
    pub since: Timestamp,
}

impl Explanation {
    /// Explains a registration by the hubs and Enrollments of its namespace and its Events.
    pub fn new(
        registration: &DeviceRegistration,
        world: &World,
        events: &[Event],
        at: Timestamp,
    ) -> Self {
        let nothing = DeviceRegistrationStatus::default();
        let status = registration.status.as_ref().unwrap_or(&nothing);
        let outlook = world.outlook(registration, None, at);
        let trigger = registration.spec.reprovision.as_ref();
        let trigger = trigger.filter(|it| status.reprovision_id.as_ref() != Some(&it.id));
        let deciding = world.deciding(registration);
        let home = status.home.as_ref();
        let id = &registration.spec.registration_id;
        let ranked = deciding.map(|one| one.pool.rank(id)).unwrap_or_default();
        let ranked = ranked.into_iter().map(|member| Ranked {
            name: member.hub.name.clone(),
            weight: member.weight,
            available: member.available,
            home: home.is_some_and(|home| home.uid == member.hub.uid),
        });
        let finding = Finding::of_registration(registration, at);
        let moves = home.is_some_and(|home| outlook.move_from(home).is_some());
        Self {
            registration: id.clone(),
            at,
            next: next_command(&finding, id, moves),
            finding,
            state: state_of(registration).to_owned(),
            hub: home.map(|home| home.name.clone()),
            host_name: status.assigned_hub.clone(),
            device_id: status.device_id.clone(),
            enrollment: deciding.map(|one| describe_enrollment(&one.enrollment)),
            rule: world
                .rule(registration)
                .map(|rule| describe_rule(rule, registration)),
            hubs: ranked.collect(),
            moving: status.transfer.as_ref().map(|transfer| OpenMove {
                from: transfer.from.hub.name.clone(),
                to: transfer.to.hub.name.clone(),
                phase: transfer.phase,
                since: transfer.started_at.0,
            }),
            left_at: status
                .cleanup
                .iter()
                .map(|entry| entry.host_name.clone())
                .collect(),
            next_check_in: foretell(&outlook, status, world.rule(registration)),
            trigger: trigger.map(|it| foretell_trigger(world, registration, it, at)),
            history: history::of(status, events),
        }
    }
}

/// Whoever reads an explanation is not told to ask for it.
fn next_command(finding: &Finding, id: &str, moves: bool) -> String {
    let (name, namespace) = (&finding.name, &finding.namespace);
    if !finding.next.starts_with("kubectl rehome explain ") {
        return finding.next.clone();
    }
    match finding.standing {
        Standing::Stuck => format!("kubectl rehome logs {id}"),
        Standing::Fine if moves => format!("kubectl rehome reprovision {id} --wait -n {namespace}"),
        Standing::Fine | Standing::Working | Standing::Disabled => {
            format!("kubectl get devreg {name} --watch -n {namespace}")
        }
    }
}

fn describe_enrollment(enrollment: &Enrollment) -> String {
    let kind = if enrollment.spec.group.is_some() {
        "group"
    } else {
        "individual"
    };
    format!("{} ({kind})", enrollment.name_any())
}

/// The rule in words, with what it follows from.
fn describe_rule(rule: Rule, registration: &DeviceRegistration) -> String {
    let request = registration.spec.request.as_ref();
    let version = request.map_or("unknown", |request| &request.api_version);
    let class = if is_sticky(registration) {
        "2018-04-01 or older"
    } else {
        "newer than 2018-04-01"
    };
    let absent = format!("no reprovisionPolicy, and the device speaks {version}, {class}");
    match rule {
        Rule::MigrateData => {
            "MigrateData: if allocation chooses another hub, it moves with all its data".to_owned()
        }
        Rule::ResetData => {
            "ResetData: every registration starts from the initial twin, on the same hub too"
                .to_owned()
        }
        Rule::Never => "Never: it stays where it is".to_owned(),
        Rule::Sticky => format!("Sticky: {absent}: it stays where it is"),
        Rule::Default => format!("Default: {absent}: as MigrateData"),
    }
}

/// What happens when the device comes next, in a sentence.
fn foretell(outlook: &Outlook, status: &DeviceRegistrationStatus, rule: Option<Rule>) -> String {
    let home = status.home.as_ref();
    let home = home.map_or("its hub", |home| &home.name);
    let rule = rule.map_or(String::new(), |rule| rule.to_string());
    match outlook {
        Outlook::Leaving => {
            "it is answered once this registration is gone, and assigned anew".to_owned()
        }
        Outlook::Open => {
            "it is told to wait: an operation is under way, and its end is the answer".to_owned()
        }
        Outlook::Unenrolled => {
            "it is refused, unless another Enrollment of the namespace takes it: the one that it \
             came through does not exist any more"
                .to_owned()
        }
        Outlook::Refused => "it is told that its Enrollment is disabled".to_owned(),
        Outlook::First(Placement::Go(hub)) => format!("it is assigned to {}", hub.name),
        Outlook::First(Placement::Nowhere(reason) | Placement::Stay { reason, .. }) => {
            format!("it is not assigned: {reason}")
        }
        Outlook::Repeated => format!(
            "it is told {home} again, and nothing is written: policy {rule} and its hubs are as \
             they were when it was evaluated"
        ),
        Outlook::Chosen(choice) => format!("it {}", describe_choice(choice, home)),
    }
}

fn foretell_trigger(
    world: &World,
    registration: &DeviceRegistration,
    trigger: &ReprovisionTrigger,
    at: Timestamp,
) -> String {
    let status = registration.status.as_ref();
    let home = status.and_then(|status| status.home.as_ref());
    let home = home.map_or("its hub", |home| &home.name);
    let what = match world.outlook(registration, Some(trigger), at) {
        Outlook::Chosen(choice) => format!("the device {}", describe_choice(&choice, home)),
        Outlook::Open => "it waits for the operation that is under way".to_owned(),
        Outlook::Leaving
        | Outlook::Unenrolled
        | Outlook::Refused
        | Outlook::First(_)
        | Outlook::Repeated => {
            "it has no effect: the device has no home, or no Enrollment".to_owned()
        }
    };
    format!(
        "{} ({:?}) has not been taken up yet: {what}",
        trigger.id, trigger.mode
    )
}

fn describe_choice(choice: &Choice, home: &str) -> String {
    use crate::api::v1alpha1::TransferData::{Initial, Migrate};
    match choice {
        Choice::Stay {
            reason,
            settled: true,
        } => format!("stays at {home}: {reason}"),
        Choice::Stay { reason, .. } => {
            format!("stays at {home} for now: {reason}; it is evaluated again each time it comes")
        }
        Choice::Go {
            to, data: Initial, ..
        } if to.name == home => {
            format!("starts from the initial twin at {home}")
        }
        Choice::Go { to, data, .. } => {
            let twin = match data {
                Migrate => "with all its data",
                Initial => "and starts from the initial twin",
            };
            format!("moves from {home} to {} {twin}", to.name)
        }
        Choice::Wait { reason, message } => format!("stays at {home}: {reason}: {message}"),
    }
}

/// Explains the registration that a person means.
pub(super) async fn explain(
    client: &kube::Client,
    namespace: &str,
    meant: &str,
    at: Timestamp,
) -> Result<(Explanation, Outcome), Failure> {
    let registration = fleet::registration(client, namespace, meant).await?;
    let hubs = fleet::all::<IoTHub>(client, Some(namespace)).await?;
    let enrollments = fleet::all::<Enrollment>(client, Some(namespace)).await?;
    let world = World::new(&hubs, enrollments);
    let events = events_of(client, namespace, &registration).await?;
    let explanation = Explanation::new(&registration, &world, &events, at);
    let outcome = if explanation.finding.standing == Standing::Stuck {
        Outcome::Trouble
    } else {
        Outcome::Fine
    };
    Ok((explanation, outcome))
}

/// Its Events; none where a person may not read them.
async fn events_of(
    client: &kube::Client,
    namespace: &str,
    registration: &DeviceRegistration,
) -> Result<Vec<Event>, Failure> {
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let uid = registration.uid().unwrap_or_default();
    let of_it = ListParams::default().fields(&format!("involvedObject.uid={uid}"));
    match bounded(api.list(&of_it)).await {
        Ok(list) => Ok(list.items),
        Err(error) => {
            let failure = Failure::of_request("list", "events", Some(namespace), error);
            super::output::remark(&format!(
                "note: the history lacks Events: {}",
                failure.whole()
            ));
            Ok(Vec::new())
        }
    }
}
