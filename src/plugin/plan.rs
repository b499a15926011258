//! `kubectl rehome plan`: which devices would move, and why, if a manifest were applied.
//!
//! The hubs and Enrollments of each namespace as they are and as they would be, and each
//! registration judged in both worlds by what the controller decides with. Registrations are read
//! page by page; work and memory grow with their number and with that of the movers, not more.

mod manifest;
mod render;

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use kube::{Client, ResourceExt as _};
use serde::Serialize;

pub use manifest::{Assumed, Change, Manifest};

use super::finding::{Finding, Standing};
use super::outlook::{Outlook, World};
use super::{Failure, Outcome, fleet};
use crate::api::v1alpha1::{
    DeviceRegistration, Enrollment, IoTHub, Reason, ReprovisionTrigger, TransferData,
};

/// What a manifest would do.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// What it changes, object by object.
    pub changes: Vec<String>,
    /// What the plan takes for granted, or what is in its way.
    pub notes: Vec<String>,
    /// Registrations that were judged.
    pub registrations: usize,
    /// Devices that move.
    pub moves: Vec<Move>,
    /// Registration ids of devices that would move as things are and do not any more.
    pub stay_after_all: Vec<String>,
    /// Devices that would start afresh where they are and do not as things are.
    pub resets: Vec<String>,
    /// Devices that would be refused and are not as things are.
    pub refused: Vec<String>,
    /// Devices that would stay although another hub is wanted for them, by reason.
    pub held_back: BTreeMap<String, usize>,
    /// Devices whose open operation ends first; they are judged when they come next.
    pub busy: usize,
}

/// A device that would move.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Move {
    /// Namespace of the registration.
    pub namespace: String,
    /// Its registration id.
    pub registration: String,
    /// Name of the hub where it lives.
    pub from: String,
    /// Name of the hub that it moves to.
    pub to: String,
    /// Whether its twin moves with it.
    pub data: TransferData,
    /// When it moves.
    pub when: When,
    /// Why.
    pub why: String,
    /// It moves there without the manifest, too.
    pub anyway: bool,
}

/// When a device moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum When {
    /// When its device registers next.
    NextCheckIn,
    /// As soon as the manifest is applied.
    AtOnce,
}

/// One namespace in both worlds.
pub struct Comparison {
    before: World,
    after: World,
    /// By name of the registration.
    triggers: BTreeMap<String, ReprovisionTrigger>,
    now: Timestamp,
}

impl Comparison {
    /// Of a namespace with these hubs and Enrollments, and what the manifest changes in it.
    pub fn new(
        hubs: &[IoTHub],
        enrollments: &[Enrollment],
        changes: Vec<Change>,
        now: Timestamp,
    ) -> Self {
        let before = World::new(hubs, enrollments.to_vec());
        let (mut hubs, mut enrollments) = (hubs.to_vec(), enrollments.to_vec());
        let mut triggers = BTreeMap::new();
        for change in changes {
            match change {
                Change::Hub(hub) => put(&mut hubs, *hub),
                Change::Enrollment(enrollment) => put(&mut enrollments, *enrollment),
                Change::Trigger(name, trigger) => drop(triggers.insert(name, trigger)),
            }
        }
        Self {
            before,
            after: World::new(&hubs, enrollments),
            triggers,
            now,
        }
    }

    /// Judges one registration and adds what comes of it to the plan.
    pub fn judge(&self, registration: &DeviceRegistration, plan: &mut Plan) {
        plan.registrations += 1;
        let trigger = self.triggers.get(&registration.name_any());
        let consumed = registration
            .status
            .as_ref()
            .and_then(|it| it.reprovision_id.as_ref());
        let trigger = trigger.filter(|trigger| consumed != Some(&trigger.id));
        let before = self.before.outlook(registration, None, self.now);
        let after = self.after.outlook(registration, trigger, self.now);
        let id = || registration.spec.registration_id.clone();
        let home = registration
            .status
            .as_ref()
            .and_then(|status| status.home.as_ref());
        if after == Outlook::Open {
            plan.busy += 1;
        }
        if after == Outlook::Refused && before != Outlook::Refused {
            plan.refused.push(id());
        }
        let Some(home) = home else {
            return;
        };
        let planned = before.move_from(home);
        if let Some((to, data)) = after.move_from(home) {
            plan.moves.push(Move {
                namespace: registration.namespace().unwrap_or_default(),
                registration: id(),
                from: home.name.clone(),
                to: to.name.clone(),
                data,
                when: trigger.map_or(When::NextCheckIn, |_| When::AtOnce),
                why: self.why(registration, &home.uid, trigger),
                anyway: planned.is_some_and(|(other, _)| other.uid == to.uid),
            });
        } else if planned.is_some() {
            plan.stay_after_all.push(id());
        }
        if after.resets(home) && !before.resets(home) {
            plan.resets.push(id());
        }
        if let Some(reason) = after.held_back() {
            *plan
                .held_back
                .entry(reason.as_str().to_owned())
                .or_default() += 1;
        }
    }

    fn why(
        &self,
        registration: &DeviceRegistration,
        home: &str,
        trigger: Option<&ReprovisionTrigger>,
    ) -> String {
        if let Some(trigger) = trigger {
            return format!("trigger {} ({:?})", trigger.id, trigger.mode);
        }
        let rule = self
            .after
            .rule(registration)
            .map_or(String::new(), |rule| rule.to_string());
        let Some(one) = self.after.deciding(registration) else {
            return rule;
        };
        let (policy, name) = (one.pool.policy, one.enrollment.name_any());
        let is_member = one.pool.members.iter().any(|member| member.hub.uid == home);
        if is_member {
            format!("{rule}: {policy:?} allocation of {name} prefers it")
        } else {
            format!("{rule}: its hub is no longer one of {name}'s")
        }
    }
}

/// Puts in the object, in the place of the one of its name.
fn put<K: kube::Resource<DynamicType = ()>>(objects: &mut Vec<K>, new: K) {
    let name = new.name_any();
    match objects.iter_mut().find(|known| known.name_any() == name) {
        Some(known) => *known = new,
        None => objects.push(new),
    }
}

/// Devices of an Enrollment that cannot be used do not get as far as to be evaluated.
fn unusable(enrollments: &[Enrollment], now: Timestamp) -> Option<String> {
    let findings = enrollments
        .iter()
        .map(|one| Finding::of_enrollment(one, now));
    let stuck: Vec<_> = findings
        .filter(|one| one.standing == Standing::Stuck)
        .collect();
    let first = stuck.first()?;
    let others = match stuck.len() - 1 {
        0 => String::new(),
        others => format!(" and {others} more"),
    };
    Some(format!(
        "Enrollment {}{others} cannot be used ({}): its devices may be unable to register, and so to \
         move; next: {}",
        first.name, first.reason, first.next
    ))
}

/// A hub whose host another one has never becomes Ready, and so takes no device.
fn host_taken(hubs: &[IoTHub], change: &mut Change) -> Option<String> {
    let Change::Hub(new) = change else {
        return None;
    };
    let mut others = hubs
        .iter()
        .filter(|known| known.name_any() != new.name_any());
    let other = others.find(|known| known.spec.host_name == new.spec.host_name)?;
    new.status = None;
    Some(format!(
        "IoTHub {} will not become Ready: IoTHub {} has the host {} already",
        new.name_any(),
        other.name_any(),
        new.spec.host_name
    ))
}

/// Plans what a manifest would do.
pub(super) async fn plan(
    client: &Client,
    namespace: &str,
    file: &Path,
    now: Timestamp,
) -> Result<(Plan, Outcome), Failure> {
    let manifest = Manifest::read(file, namespace)?;
    let mut plan = Plan::default();
    let assumed = manifest.assume(client, now).await?;
    plan.changes = assumed.described;
    plan.notes = assumed.notes;
    for (namespace, mut changes) in assumed.changes {
        let hubs = fleet::all::<IoTHub>(client, Some(&namespace)).await?;
        let enrollments = fleet::all::<Enrollment>(client, Some(&namespace)).await?;
        plan.notes.extend(unusable(&enrollments, now));
        plan.notes.extend(
            changes
                .iter_mut()
                .filter_map(|change| host_taken(&hubs, change)),
        );
        let comparison = Comparison::new(&hubs, &enrollments, changes, now);
        let judge = |registration: DeviceRegistration| comparison.judge(&registration, &mut plan);
        fleet::each(client, Some(&namespace), judge).await?;
    }
    if plan
        .held_back
        .contains_key(Reason::WantedHubUnavailable.as_str())
    {
        plan.notes.push(
            "devices that a hub should get which is not ready, or cordoned, stay until it is"
                .to_owned(),
        );
    }
    Ok((plan, Outcome::Fine))
}
