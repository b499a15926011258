//! What decisions about one object ask about all registrations: who lives where, who refers to a
//! hub, how many there are.
//!
//! Kept current from the watch, with work per event that does not grow with the fleet. Only a
//! change of an Enrollment's hubs looks at all of that Enrollment's registrations.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;

use super::census::Unsettled;
use super::entry::Entry;
use crate::api::v1alpha1::{
    DeviceRegistration, HubCount, IoTHub, RegistrationCounts, RegistrationState, ReprovisionPolicy,
};
use crate::domain::allocation::Pool;

/// All registrations, by what others know of them.
#[derive(Default)]
pub struct Index {
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    entries: HashMap<String, Entry>,
    /// Registrations by host and device id.
    owners: HashMap<(String, String), BTreeSet<String>>,
    /// By uid of the hub.
    hubs: HashMap<String, HubUse>,
    /// Registrations whose unanswered request proposes a hub, by namespace and name of the hub.
    proposals: HashMap<(String, String), HashSet<String>>,
    /// By uid of the Enrollment.
    groups: HashMap<String, Group>,
    /// By namespace: registrations that something may set going.
    restless: HashMap<String, HashSet<String>>,
    changed: Changed,
}

/// Objects whose counters changed.
#[derive(Debug, Default)]
pub struct Changed {
    /// Uids of hubs.
    pub hubs: HashSet<String>,
    /// Uids of Enrollments.
    pub enrollments: HashSet<String>,
}

#[derive(Default)]
struct HubUse {
    homes: BTreeSet<String>,
    referring: BTreeSet<String>,
}

#[derive(Default)]
struct Group {
    members: BTreeSet<String>,
    counts: RegistrationCounts,
    hosts: BTreeMap<String, i64>,
    would_move: HashSet<String>,
    evaluation: Option<Evaluation>,
}

/// What an Enrollment's registrations are evaluated against.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Its hubs.
    pub pool: Pool,
    /// Its policy.
    pub policy: Option<ReprovisionPolicy>,
}

impl Index {
    /// Takes in a registration as the watch shows it.
    pub fn apply(&self, registration: &DeviceRegistration) {
        let uid = registration.uid().unwrap_or_default();
        let entry = Entry::of(registration);
        let mut state = self.write();
        if state.entries.get(&uid) == Some(&entry) {
            return;
        }
        state.remove(&uid);
        state.insert(uid, entry);
    }

    /// Forgets a registration that is gone.
    pub fn remove(&self, registration: &DeviceRegistration) {
        self.write().remove(&registration.uid().unwrap_or_default());
    }

    /// Whether a registration of that uid exists.
    pub fn is_registered(&self, uid: &str) -> bool {
        self.read().entries.contains_key(uid)
    }

    /// Where a registration is, by its uid.
    pub fn find(&self, uid: &str) -> Option<ObjectRef<DeviceRegistration>> {
        self.read().entries.get(uid).map(Entry::object)
    }

    /// Uid of a registration that lives, or is on its way to live, at that host as that device.
    pub fn owner_of(&self, host_name: &str, device_id: &str) -> Option<String> {
        let key = (host_name.to_owned(), device_id.to_owned());
        let state = self.read();
        state.owners.get(&key)?.first().cloned()
    }

    /// How many registrations refer to a hub in any way, and the name of one.
    pub fn referring(&self, hub: &IoTHub) -> (usize, Option<String>) {
        let state = self.read();
        let uid = hub.uid().unwrap_or_default();
        let known = state.hubs.get(&uid).map(|hub| &hub.referring);
        let key = (hub.namespace().unwrap_or_default(), hub.name_any());
        let proposed = state.proposals.get(&key);
        let only_proposed = proposed.into_iter().flatten();
        let only_proposed =
            only_proposed.filter(|uid| known.is_none_or(|known| !known.contains(*uid)));
        let all: Vec<_> = known.into_iter().flatten().chain(only_proposed).collect();
        let example = all.first().and_then(|uid| state.entries.get(*uid));
        (all.len(), example.map(|entry| entry.name.clone()))
    }

    /// Whether that registration refers to that hub.
    pub fn refers(&self, uid: &str, hub_uid: &str) -> bool {
        let state = self.read();
        state
            .hubs
            .get(hub_uid)
            .is_some_and(|hub| hub.referring.contains(uid))
    }

    /// How many registrations live at a hub.
    pub fn homes(&self, hub_uid: &str) -> i64 {
        let state = self.read();
        count(state.hubs.get(hub_uid).map_or(0, |hub| hub.homes.len()))
    }

    /// Up to `most` registrations that live at a hub, by uid, those after `after` first.
    pub fn some_homes(&self, hub_uid: &str, after: &str, most: usize) -> Vec<String> {
        let state = self.read();
        let Some(hub) = state.hubs.get(hub_uid) else {
            return Vec::new();
        };
        let later = (Bound::Excluded(after), Bound::Unbounded);
        let earlier = (Bound::Unbounded, Bound::Included(after));
        let later = hub.homes.range::<str, _>(later);
        later
            .chain(hub.homes.range::<str, _>(earlier))
            .take(most)
            .cloned()
            .collect()
    }

    /// Device id and host of a registration's home.
    pub fn home_of(&self, uid: &str) -> Option<(String, String)> {
        let state = self.read();
        let entry = state.entries.get(uid)?;
        Some((entry.device_id.clone()?, entry.home.as_ref()?.uid.clone()))
    }

    /// The counters of an Enrollment.
    pub fn counts(&self, enrollment_uid: &str) -> (RegistrationCounts, Vec<HubCount>) {
        let state = self.read();
        let Some(group) = state.groups.get(enrollment_uid) else {
            return Default::default();
        };
        let mut counts = group.counts;
        counts.would_move = count(group.would_move.len());
        let hubs = group.hosts.iter().map(|(hub, registrations)| HubCount {
            hub: hub.clone(),
            registrations: *registrations,
        });
        (counts, hubs.collect())
    }

    /// Evaluates an Enrollment's registrations against its hubs, if those changed.
    pub fn evaluate(&self, enrollment_uid: &str, evaluation: Evaluation) {
        let mut state = self.write();
        let State {
            entries,
            groups,
            changed,
            ..
        } = &mut *state;
        let group = groups.entry(enrollment_uid.to_owned()).or_default();
        if group.evaluation.as_ref() == Some(&evaluation) {
            return;
        }
        let moving = group.members.iter().filter(|uid| {
            entries
                .get(*uid)
                .is_some_and(|entry| entry.would_move(&evaluation))
        });
        group.would_move = moving.cloned().collect();
        group.evaluation = Some(evaluation);
        changed.enrollments.insert(enrollment_uid.to_owned());
    }

    /// Forgets an Enrollment that is gone; its registrations may live on.
    pub fn forget_evaluation(&self, enrollment_uid: &str) {
        let mut state = self.write();
        if let Some(group) = state.groups.get_mut(enrollment_uid) {
            group.evaluation = None;
            group.would_move.clear();
            if group.members.is_empty() {
                state.groups.remove(enrollment_uid);
            }
        }
    }

    /// Registrations that came through an Enrollment.
    pub fn members(&self, enrollment_uid: &str) -> Vec<ObjectRef<DeviceRegistration>> {
        let state = self.read();
        let members = state.groups.get(enrollment_uid).map(|group| &group.members);
        let members = members.into_iter().flatten();
        members
            .filter_map(|uid| state.entries.get(uid))
            .map(Entry::object)
            .collect()
    }

    /// Registrations of a namespace that are not at rest: something may set them going.
    pub fn restless_in(&self, namespace: &str) -> Vec<ObjectRef<DeviceRegistration>> {
        let state = self.read();
        let restless = state.restless.get(namespace).into_iter().flatten();
        restless
            .filter_map(|uid| state.entries.get(uid))
            .map(Entry::object)
            .collect()
    }

    /// Registrations of an Enrollment that are not at rest.
    pub fn restless_of(
        &self,
        namespace: &str,
        enrollment_uid: &str,
    ) -> Vec<ObjectRef<DeviceRegistration>> {
        let state = self.read();
        let (Some(restless), Some(group)) = (
            state.restless.get(namespace),
            state.groups.get(enrollment_uid),
        ) else {
            return Vec::new();
        };
        // The smaller side is walked: a namespace may have many Enrollments of one device each.
        let both: Vec<_> = if group.members.len() < restless.len() {
            group
                .members
                .iter()
                .filter(|uid| restless.contains(*uid))
                .collect()
        } else {
            restless
                .iter()
                .filter(|uid| group.members.contains(*uid))
                .collect()
        };
        both.into_iter()
            .filter_map(|uid| state.entries.get(uid))
            .map(Entry::object)
            .collect()
    }

    /// Registrations by state, of all Enrollments.
    pub fn totals(&self) -> RegistrationCounts {
        let state = self.read();
        let mut totals = RegistrationCounts::default();
        for group in state.groups.values() {
            totals.total += group.counts.total;
            totals.assigning += group.counts.assigning;
            totals.assigned += group.counts.assigned;
            totals.failed += group.counts.failed;
            totals.disabled += group.counts.disabled;
            totals.would_move += count(group.would_move.len());
        }
        totals
    }

    /// Counts registrations that are not at rest.
    pub(super) fn unsettled(&self) -> Unsettled {
        let state = self.read();
        let restless = state.restless.values().flatten();
        let entries = restless.filter_map(|uid| state.entries.get(uid));
        entries.fold(Unsettled::default(), |mut counts, entry| {
            counts.all += 1;
            counts.to_clean_up += i64::from(entry.to_clean_up);
            if let Some(since) = entry.moving_since {
                counts.moves += 1;
                counts.oldest_move = Some(counts.oldest_move.map_or(since, |old| old.min(since)));
            }
            counts
        })
    }

    /// Objects whose counters changed since the last call.
    pub fn take_changed(&self) -> Changed {
        std::mem::take(&mut self.write().changed)
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn insert(&mut self, uid: String, entry: Entry) {
        for key in entry.addresses() {
            self.owners.entry(key).or_default().insert(uid.clone());
        }
        for hub in &entry.hubs {
            let hub = self.hubs.entry(hub.clone()).or_default();
            hub.referring.insert(uid.clone());
        }
        if let Some(home) = &entry.home {
            self.changed.hubs.insert(home.uid.clone());
            let hub = self.hubs.entry(home.uid.clone()).or_default();
            hub.homes.insert(uid.clone());
        }
        if let Some(key) = entry.proposal() {
            self.proposals.entry(key).or_default().insert(uid.clone());
        }
        if entry.restless {
            let restless = self.restless.entry(entry.namespace.clone()).or_default();
            restless.insert(uid.clone());
        }
        if let Some(enrollment) = &entry.enrollment {
            self.changed.enrollments.insert(enrollment.clone());
            let group = self.groups.entry(enrollment.clone()).or_default();
            group.count(&entry, 1);
            group.members.insert(uid.clone());
            let evaluation = group.evaluation.as_ref();
            if evaluation.is_some_and(|evaluation| entry.would_move(evaluation)) {
                group.would_move.insert(uid.clone());
            }
        }
        self.entries.insert(uid, entry);
    }

    fn remove(&mut self, uid: &str) {
        let Some(entry) = self.entries.remove(uid) else {
            return;
        };
        for key in entry.addresses() {
            remove_from(
                &mut self.owners,
                &key,
                |set| set.remove(uid),
                BTreeSet::is_empty,
            );
        }
        for hub in entry
            .hubs
            .iter()
            .chain(entry.home.as_ref().map(|home| &home.uid))
        {
            let unused = |hub: &HubUse| hub.homes.is_empty() && hub.referring.is_empty();
            let leave = |hub: &mut HubUse| hub.homes.remove(uid) | hub.referring.remove(uid);
            remove_from(&mut self.hubs, hub, leave, unused);
        }
        if let Some(home) = &entry.home {
            self.changed.hubs.insert(home.uid.clone());
        }
        if let Some(key) = entry.proposal() {
            remove_from(
                &mut self.proposals,
                &key,
                |set| set.remove(uid),
                HashSet::is_empty,
            );
        }
        let leave = |set: &mut HashSet<String>| set.remove(uid);
        remove_from(
            &mut self.restless,
            &entry.namespace,
            leave,
            HashSet::is_empty,
        );
        if let Some(enrollment) = &entry.enrollment {
            self.changed.enrollments.insert(enrollment.clone());
            let leave = |group: &mut Group| {
                group.count(&entry, -1);
                group.would_move.remove(uid);
                group.members.remove(uid)
            };
            let empty = |group: &Group| group.members.is_empty() && group.evaluation.is_none();
            remove_from(&mut self.groups, enrollment, leave, empty);
        }
    }
}

impl Group {
    fn count(&mut self, entry: &Entry, by: i64) {
        let counts = &mut self.counts;
        counts.total += by;
        match entry.state {
            None | Some(RegistrationState::Assigning) => counts.assigning += by,
            Some(RegistrationState::Assigned) => counts.assigned += by,
            Some(RegistrationState::Failed) => counts.failed += by,
            Some(RegistrationState::Disabled) => counts.disabled += by,
        }
        if let Some(home) = &entry.home {
            let count = self.hosts.entry(home.host_name.clone()).or_default();
            *count += by;
            if *count == 0 {
                self.hosts.remove(&home.host_name);
            }
        }
    }
}

/// Takes something out of the value at `key`, and the value too when nothing is left of it.
fn remove_from<K: Eq + std::hash::Hash, V>(
    map: &mut HashMap<K, V>,
    key: &K,
    leave: impl FnOnce(&mut V) -> bool,
    is_empty: impl FnOnce(&V) -> bool,
) {
    if let Some(value) = map.get_mut(key) {
        leave(value);
        if is_empty(value) {
            map.remove(key);
        }
    }
}

fn count(of: usize) -> i64 {
    i64::try_from(of).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
