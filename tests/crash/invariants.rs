//! What must be true after every effect (design §6). Faults and people cannot excuse a violation,
//! except as the invariants themselves say.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt as _;
use rehome::api::v1alpha1::{
    DeviceRegistration, DeviceRegistrationStatus, RegistrationState, Substatus, TransferData,
    TransferPhase,
};
use rehome::domain::identity::Mark;
use rehome::hub::record::Record;
use rehome::hub::twin::Twin;

use crate::device::holds;
use crate::ground::HUBS;
use crate::world::World;

/// Versions and times that were seen and must not be seen smaller.
#[derive(Default)]
pub(crate) struct Floors {
    /// By hub and generation id.
    seen: HashMap<(usize, String), Floor>,
    home: Option<(String, Floor)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Floor {
    desired: u64,
    reported: u64,
    identity: u64,
    written: Timestamp,
}

impl Floor {
    fn of(record: &Record) -> Self {
        Self {
            desired: record.twin.desired.version,
            reported: record.twin.reported.version,
            identity: record.identity.serial,
            written: record.written,
        }
    }

    fn is_below(&self, other: &Self) -> bool {
        self.is_older_twin(other) || self.identity < other.identity || self.written < other.written
    }

    fn is_older_twin(&self, other: &Self) -> bool {
        self.desired < other.desired || self.reported < other.reported
    }
}

/// What the device has at each hub.
pub(crate) type Records = Vec<Option<Arc<Record>>>;

pub(crate) async fn records(world: &World) -> Records {
    let mut all = Vec::new();
    for hub in 0..world.hubs.len() {
        all.push(world.at(hub).await);
    }
    all
}

/// Looks at hubs and status as they are now.
pub(crate) async fn check(world: &World) {
    let records = records(world).await;
    let mut found = Vec::new();
    {
        let state = world.state();
        let status = state
            .object
            .as_ref()
            .and_then(|object| object.status.clone());
        let status = status.unwrap_or_default();
        let site = |host: &str| world.hubs.iter().position(|hub| hub.host_name == host);
        let leftovers: Vec<_> = status
            .cleanup
            .iter()
            .filter_map(|entry| site(&entry.host_name))
            .filter(|hub| !state.told_ever.contains(hub))
            .collect();
        found.extend(one_home(&status, &records, &leftovers, site));
        if !state.vanished {
            found.extend(no_early_delete(&status, &records, site));
        }
        found.extend(whole_copy(&status, &records, site));
        if let (Some(object), Some(credential)) = (&state.object, &state.credential) {
            let mut known = records.iter().flatten();
            let holds = |record: &Record| holds(&record.identity.authentication, credential);
            if known.any(|record| made_here(object, record) && !holds(record)) {
                found.push("I6: what this registration made does not hold what it attested".into());
            }
            let home = status.assigned_hub.as_deref().and_then(site);
            let home = home.and_then(|hub| records[hub].as_ref());
            if home.is_some_and(|record| is_answer(object, record) && !holds(record)) {
                found.push("I6: assigned to a home that does not hold what was attested".into());
            }
        }
    }
    found.extend(no_step_back(world, &records));
    for violation in found {
        world.violation(violation);
    }
}

/// I1: at most one hub holds an enabled identity.
fn one_home(
    status: &DeviceRegistrationStatus,
    records: &Records,
    leftovers: &[usize],
    site: impl Fn(&str) -> Option<usize>,
) -> Option<String> {
    let given_up = status
        .transfer
        .as_ref()
        .filter(|transfer| transfer.proceed_without_source)
        .and_then(|transfer| site(&transfer.from.hub.host_name));
    // After Close the source of such a move is in cleanup, whatever the device was told.
    let abandoned = |hub: &usize| {
        let host = records[*hub].is_some().then_some(*hub);
        let substatus = status.substatus == Some(Substatus::DeviceDataReset);
        substatus
            && status
                .cleanup
                .iter()
                .any(|entry| site(&entry.host_name) == host)
    };
    let enabled: Vec<_> = (0..records.len())
        .filter(|hub| {
            records[*hub]
                .as_ref()
                .is_some_and(|record| record.identity.enabled)
        })
        .filter(|hub| !leftovers.contains(hub) && Some(*hub) != given_up && !abandoned(hub))
        .collect();
    let names: Vec<_> = enabled.iter().map(|hub| HUBS[*hub]).collect();
    (enabled.len() > 1).then(|| format!("I1: enabled at {}", names.join(" and ")))
}

/// I3: until Commit the source of a move to another hub is there.
fn no_early_delete(
    status: &DeviceRegistrationStatus,
    records: &Records,
    site: impl Fn(&str) -> Option<usize>,
) -> Option<String> {
    let transfer = status.transfer.as_ref()?;
    let (from, to) = (&transfer.from.hub, &transfer.to.hub);
    if transfer.phase == TransferPhase::Committed || from.uid == to.uid {
        return None;
    }
    let source = records[site(&from.host_name)?].as_ref();
    let there =
        source.is_some_and(|record| record.identity.generation_id == transfer.from.generation_id);
    (!there).then(|| format!("I3: the source at {} is gone before Commit", from.host_name))
}

/// I4: from Commit on the target holds all that the source holds, and when it is enabled all
/// modules too.
fn whole_copy(
    status: &DeviceRegistrationStatus,
    records: &Records,
    site: impl Fn(&str) -> Option<usize>,
) -> Option<String> {
    let transfer = status.transfer.as_ref()?;
    if transfer.phase != TransferPhase::Committed
        || transfer.data != TransferData::Migrate
        || transfer.proceed_without_source
    {
        return None;
    }
    let source = records[site(&transfer.from.hub.host_name)?].as_ref()?;
    let target = records[site(&transfer.to.hub.host_name)?].as_ref()?;
    if source.identity.generation_id != transfer.from.generation_id {
        return None;
    }
    if !target.identity.enabled {
        let loses = lacks(&source.twin, &target.twin);
        return loses.then(|| "I4: committed to a copy that lacks a write of the source".into());
    }
    let carried = source.modules.iter().all(|(id, module)| {
        let copy = target.modules.get(id);
        copy.is_some_and(|copy| !lacks(&module.twin, &copy.twin))
    });
    (!carried).then(|| "I4: enabled before the modules were carried".into())
}

/// Whether the copy lacks something of the original.
fn lacks(original: &Twin, copy: &Twin) -> bool {
    let lacks = |one: &serde_json::Map<_, _>, other: &serde_json::Map<_, _>| {
        one.iter().any(|(key, value)| other.get(key) != Some(value))
    };
    lacks(&original.tags, &copy.tags)
        || lacks(&original.desired.values, &copy.desired.values)
        || lacks(&original.reported.values, &copy.reported.values)
}

/// Whether the identity was made by the operation that is under way or was the last: the target of
/// a move or a reset, or a first home. It never holds anything but what was attested.
fn made_here(object: &DeviceRegistration, record: &Record) -> bool {
    let identity = &record.identity;
    let reason = identity.status_reason.as_deref();
    let Some(mark) = reason.and_then(Mark::parse) else {
        return false;
    };
    if Some(mark.registration) != object.uid() {
        return false;
    }
    let status = object.status.as_ref();
    if let Some(transfer) = status.and_then(|status| status.transfer.as_ref()) {
        // The fence of the source has the same mark.
        return mark.transfer == transfer.id
            && identity.generation_id != transfer.from.generation_id;
    }
    let first = status.and_then(|status| status.first_assignment.as_ref());
    let request = object.spec.request.as_ref();
    first.is_some_and(|first| mark.transfer == first.id)
        || request.is_some_and(|request| mark.transfer == request.operation_id)
}

/// Whether the device is told, in answer to its last request, that this identity is its home.
fn is_answer(object: &DeviceRegistration, record: &Record) -> bool {
    let request = object.spec.request.as_ref();
    object.status.as_ref().is_some_and(|status| {
        status.state == Some(RegistrationState::Assigned)
            && status.operation_id.as_ref() == request.map(|request| &request.operation_id)
            && status.generation_id.as_ref() == Some(&record.identity.generation_id)
    })
}

/// I9: versions, etags and times of an identity and of the device's twin never go back.
fn no_step_back(world: &World, records: &Records) -> Vec<String> {
    let mut found = Vec::new();
    let mut state = world.state();
    for (hub, record) in records.iter().enumerate() {
        let Some(record) = record else { continue };
        let floor = Floor::of(record);
        let key = (hub, record.identity.generation_id.clone());
        if let Some(seen) = state.floors.seen.insert(key, floor)
            && floor.is_below(&seen)
        {
            found.push(format!(
                "I9: {} went back from {seen:?} to {floor:?}",
                HUBS[hub]
            ));
        }
    }
    let status = state
        .object
        .as_ref()
        .and_then(|object| object.status.clone());
    let Some(status) = status else { return found };
    let settled = status.state == Some(RegistrationState::Assigned);
    let home = status.assigned_hub.as_deref();
    let home = world
        .hubs
        .iter()
        .position(|hub| Some(hub.host_name.as_str()) == home);
    // Not a late copy that lies where the home was.
    let is_home = |record: &&Arc<Record>| {
        settled && status.generation_id.as_ref() == Some(&record.identity.generation_id)
    };
    let record = home.and_then(|hub| records[hub].as_ref()).filter(is_home);
    if let Some(record) = record {
        let floor = Floor::of(record);
        let generation_id = record.identity.generation_id.clone();
        if let Some((before, seen)) = &state.floors.home
            && *before != generation_id
            && status.substatus == Some(Substatus::DeviceDataMigrated)
            && floor.is_older_twin(seen)
        {
            found.push(format!(
                "I9: the twin went back with the move: {seen:?} to {floor:?}"
            ));
        }
        state.floors.home = Some((generation_id, floor));
    }
    found
}

/// What is wrong with a status that was just written, given the one before.
pub(crate) fn of_status(
    before: Option<&DeviceRegistration>,
    now: &DeviceRegistration,
) -> Vec<String> {
    let mut found = Vec::new();
    let Some(status) = &now.status else {
        return found;
    };
    let assigned = status.state == Some(RegistrationState::Assigned);
    if assigned && status.transfer.is_some() {
        found.push("I2: Assigned while a transfer is open".into());
    }
    if assigned && status.home.is_none() {
        found.push("I2: Assigned without a home".into());
    }
    let before = before.filter(|before| before.uid() == now.uid());
    let Some(before) = before.and_then(|before| before.status.as_ref()) else {
        return found;
    };
    let renamed = before.assigned_hub.is_some() && before.assigned_hub != status.assigned_hub;
    if assigned
        && renamed
        && before.state == Some(RegistrationState::Assigned)
        && status.last_changed == before.last_changed
    {
        found.push("I2: two answers for one operation".into());
    }
    if status.last_changed < before.last_changed || status.home_checked_at < before.home_checked_at
    {
        found.push("I9: the status went back in time".into());
    }
    if before.created_at.is_some() && status.created_at != before.created_at {
        found.push("I9: createdAt changed".into());
    }
    if status.observed_generation < before.observed_generation {
        found.push("I9: observedGeneration went back".into());
    }
    found
}
