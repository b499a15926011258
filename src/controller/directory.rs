//! Hubs and Enrollments by what others know of them: host, namespace, Secret, registration id.

use std::collections::{BTreeSet, HashMap};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use k8s_openapi::jiff::Timestamp;
use kube::{Resource, ResourceExt as _};

use super::hub::secrets_of;
use crate::api::v1alpha1::{Enrollment, IoTHub};
use crate::domain::ids::RegistrationId;

/// Namespace and name.
pub(super) type Name = (String, String);

/// Where to find hubs and Enrollments.
#[derive(Default)]
pub struct Directory {
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    hubs: HashMap<Name, HubEntry>,
    hub_names: HashMap<String, Name>,
    hosts: HashMap<String, BTreeSet<Claimant>>,
    hubs_in: HashMap<String, BTreeSet<String>>,
    hubs_by_secret: HashMap<Name, BTreeSet<String>>,
    enrollments: HashMap<Name, EnrollmentEntry>,
    enrollment_names: HashMap<String, Name>,
    individuals: HashMap<Name, BTreeSet<Claimant>>,
    enrollments_in: HashMap<String, BTreeSet<String>>,
    enrollments_by_secret: HashMap<Name, BTreeSet<String>>,
}

/// One of several objects that claim the same thing. The oldest has it; of two of one age, the one
/// with the smaller uid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claimant {
    created: Option<Timestamp>,
    /// Its uid.
    pub uid: String,
    /// Its namespace and name.
    pub name: Name,
}

#[derive(PartialEq)]
struct HubEntry {
    claimant: Claimant,
    host: String,
    secrets: Vec<Name>,
}

#[derive(PartialEq)]
struct EnrollmentEntry {
    claimant: Claimant,
    /// Namespace and canonical registration id of an individual.
    individual: Option<Name>,
    /// Namespace and name of the Secret with its keys, if its attestation has any.
    secret: Option<Name>,
}

impl Directory {
    /// Takes in a hub.
    pub fn apply_hub(&self, hub: &IoTHub) {
        let claimant = Claimant::of(hub);
        let namespace = &claimant.name.0;
        let secrets = secrets_of(hub).into_iter();
        let entry = HubEntry {
            host: hub.spec.host_name.clone(),
            secrets: secrets.map(|secret| (namespace.clone(), secret)).collect(),
            claimant,
        };
        let mut state = self.write();
        state.remove_hub(&entry.claimant.name);
        state.insert_hub(entry);
    }

    /// Forgets a hub.
    pub fn remove_hub(&self, hub: &IoTHub) {
        self.write().remove_hub(&name_of(hub));
    }

    /// Takes in an Enrollment.
    pub fn apply_enrollment(&self, enrollment: &Enrollment) {
        let claimant = Claimant::of(enrollment);
        let namespace = claimant.name.0.clone();
        let individual = enrollment.spec.individual.as_ref().and_then(|individual| {
            let id: RegistrationId = individual.registration_id.parse().ok()?;
            Some((namespace.clone(), id.canonical().to_owned()))
        });
        let secret = enrollment.spec.attestation.secret();
        let entry = EnrollmentEntry {
            individual,
            secret: secret.map(|secret| (namespace, secret.to_owned())),
            claimant,
        };
        let mut state = self.write();
        state.remove_enrollment(&entry.claimant.name);
        state.insert_enrollment(entry);
    }

    /// Forgets an Enrollment.
    pub fn remove_enrollment(&self, enrollment: &Enrollment) {
        self.write().remove_enrollment(&name_of(enrollment));
    }

    /// Hubs that claim a host, the one that has it first.
    pub fn claimants_of_host(&self, host: &str) -> Vec<Claimant> {
        self.read()
            .hosts
            .get(host)
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }

    /// Individual Enrollments for a registration id, the one that counts first.
    pub fn claimants_of_id(&self, enrollment: &Enrollment) -> Vec<Claimant> {
        let state = self.read();
        let entry = state.enrollments.get(&name_of(enrollment));
        let individual = entry.and_then(|entry| entry.individual.as_ref());
        let claimants = individual.and_then(|key| state.individuals.get(key));
        claimants.into_iter().flatten().cloned().collect()
    }

    /// Name of the hub of that uid.
    pub fn hub_name(&self, uid: &str) -> Option<Name> {
        self.read().hub_names.get(uid).cloned()
    }

    /// Name of the Enrollment of that uid.
    pub fn enrollment_name(&self, uid: &str) -> Option<Name> {
        self.read().enrollment_names.get(uid).cloned()
    }

    /// Names of the hubs of a namespace.
    pub fn hubs_in(&self, namespace: &str) -> Vec<String> {
        collect(self.read().hubs_in.get(namespace))
    }

    /// Names of the Enrollments of a namespace.
    pub fn enrollments_in(&self, namespace: &str) -> Vec<String> {
        collect(self.read().enrollments_in.get(namespace))
    }

    /// Names of the hubs that depend on that Secret.
    pub fn hubs_of_secret(&self, namespace: &str, secret: &str) -> Vec<String> {
        let key = (namespace.to_owned(), secret.to_owned());
        collect(self.read().hubs_by_secret.get(&key))
    }

    /// Names of the Enrollments whose keys are in that Secret.
    pub fn enrollments_of_secret(&self, namespace: &str, secret: &str) -> Vec<String> {
        let key = (namespace.to_owned(), secret.to_owned());
        collect(self.read().enrollments_by_secret.get(&key))
    }

    /// Secrets that Enrollments of a namespace refer to and no hub does.
    pub fn attestation_secrets(&self, namespace: &str) -> BTreeSet<String> {
        let state = self.read();
        let enrollments = state.enrollments_in.get(namespace).into_iter().flatten();
        enrollments
            .filter_map(|name| state.enrollments.get(&(namespace.to_owned(), name.clone())))
            .filter_map(|entry| entry.secret.as_ref())
            .filter(|secret| !state.hubs_by_secret.contains_key(*secret))
            .map(|secret| secret.1.clone())
            .collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn insert_hub(&mut self, entry: HubEntry) {
        let (namespace, name) = entry.claimant.name.clone();
        let key = (namespace.clone(), name.clone());
        self.hub_names
            .insert(entry.claimant.uid.clone(), key.clone());
        let hosts = self.hosts.entry(entry.host.clone()).or_default();
        hosts.insert(entry.claimant.clone());
        self.hubs_in
            .entry(namespace)
            .or_default()
            .insert(name.clone());
        for secret in &entry.secrets {
            let hubs = self.hubs_by_secret.entry(secret.clone()).or_default();
            hubs.insert(name.clone());
        }
        self.hubs.insert(key, entry);
    }

    fn remove_hub(&mut self, key: &Name) {
        let Some(entry) = self.hubs.remove(key) else {
            return;
        };
        self.hub_names.remove(&entry.claimant.uid);
        leave(&mut self.hosts, &entry.host, &entry.claimant);
        leave(&mut self.hubs_in, &key.0, &key.1);
        for secret in &entry.secrets {
            leave(&mut self.hubs_by_secret, secret, &key.1);
        }
    }

    fn insert_enrollment(&mut self, entry: EnrollmentEntry) {
        let (namespace, name) = entry.claimant.name.clone();
        let key = (namespace.clone(), name.clone());
        self.enrollment_names
            .insert(entry.claimant.uid.clone(), key.clone());
        if let Some(id) = &entry.individual {
            let claimants = self.individuals.entry(id.clone()).or_default();
            claimants.insert(entry.claimant.clone());
        }
        self.enrollments_in
            .entry(namespace)
            .or_default()
            .insert(name.clone());
        if let Some(secret) = entry.secret.clone() {
            self.enrollments_by_secret
                .entry(secret)
                .or_default()
                .insert(name);
        }
        self.enrollments.insert(key, entry);
    }

    fn remove_enrollment(&mut self, key: &Name) {
        let Some(entry) = self.enrollments.remove(key) else {
            return;
        };
        self.enrollment_names.remove(&entry.claimant.uid);
        if let Some(id) = &entry.individual {
            leave(&mut self.individuals, id, &entry.claimant);
        }
        leave(&mut self.enrollments_in, &key.0, &key.1);
        if let Some(secret) = &entry.secret {
            leave(&mut self.enrollments_by_secret, secret, &key.1);
        }
    }
}

impl Claimant {
    fn of<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        Self {
            created: object.meta().creation_timestamp.as_ref().map(|time| time.0),
            uid: object.uid().unwrap_or_default(),
            name: name_of(object),
        }
    }
}

/// Namespace and name of an object.
pub(super) fn name_of<K: Resource<DynamicType = ()>>(object: &K) -> Name {
    (object.namespace().unwrap_or_default(), object.name_any())
}

fn leave<K: Eq + std::hash::Hash, V: Ord>(map: &mut HashMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(set) = map.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            map.remove(key);
        }
    }
}

fn collect(names: Option<&BTreeSet<String>>) -> Vec<String> {
    names.into_iter().flatten().cloned().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hub(namespace: &str, name: &str, created: &str, secret: &str) -> IoTHub {
        serde_json::from_value(json!({
            "apiVersion": "rehome.dev/v1alpha1", "kind": "IoTHub",
            "metadata": {"namespace": namespace, "name": name, "uid": format!("{namespace}-{name}"),
                "creationTimestamp": created},
            "spec": {"hostName": "west.example.com",
                "connection": {"connectionStringSecretRef": {"name": secret}}},
        }))
        .unwrap()
    }

    fn enrollment(name: &str, id: &str, created: &str, secret: &str) -> Enrollment {
        serde_json::from_value(json!({
            "apiVersion": "rehome.dev/v1alpha1", "kind": "Enrollment",
            "metadata": {"namespace": "a", "name": name, "uid": name, "creationTimestamp": created},
            "spec": {"individual": {"registrationId": id},
                "attestation": {"symmetricKey": {"secretRef": {"name": secret}}}},
        }))
        .unwrap()
    }

    #[test]
    fn the_oldest_hub_has_the_host_whatever_its_namespace() {
        let directory = Directory::default();
        directory.apply_hub(&hub("b", "young", "2026-02-01T00:00:00Z", "s"));
        directory.apply_hub(&hub("a", "old", "2026-01-01T00:00:00Z", "s"));
        let uids = || -> Vec<_> {
            let claimants = directory.claimants_of_host("west.example.com");
            claimants.into_iter().map(|claimant| claimant.uid).collect()
        };
        assert_eq!(uids(), ["a-old", "b-young"]);
        directory.remove_hub(&hub("a", "old", "2026-01-01T00:00:00Z", "s"));
        assert_eq!(uids(), ["b-young"]);
        assert_eq!(directory.hub_name("a-old"), None);
    }

    #[test]
    fn two_spellings_of_one_registration_id_are_one_claim() {
        let directory = Directory::default();
        let second = enrollment("second", "PRESS-7", "2026-02-01T00:00:00Z", "k");
        directory.apply_enrollment(&enrollment("first", "press-7", "2026-01-01T00:00:00Z", "k"));
        directory.apply_enrollment(&second);
        let claimants = directory.claimants_of_id(&second);
        assert_eq!(claimants[0].uid, "first");
        assert_eq!(claimants.len(), 2);
        assert_eq!(
            directory.enrollments_of_secret("a", "k"),
            ["first", "second"]
        );
    }

    #[test]
    fn a_secret_that_a_hub_uses_is_not_for_attestation() {
        let directory = Directory::default();
        for (name, id, secret) in [
            ("one", "i1", "k1"),
            ("two", "i2", "k2"),
            ("three", "i3", "k1"),
        ] {
            directory.apply_enrollment(&enrollment(name, id, "2026-01-01T00:00:00Z", secret));
        }
        directory.apply_hub(&hub("a", "west", "2026-01-01T00:00:00Z", "k2"));
        let secrets: Vec<_> = directory.attestation_secrets("a").into_iter().collect();
        assert_eq!(secrets, ["k1"]);
        directory.apply_hub(&hub("a", "west", "2026-01-01T00:00:00Z", "other"));
        assert_eq!(directory.attestation_secrets("a").len(), 2);
    }
}
