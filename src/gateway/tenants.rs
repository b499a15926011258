//! Who may register where: ID scopes, Enrollments, their keys and the hubs to choose from, as the
//! watches last showed them. Authentication asks only this, never the API server.

mod enrolled;
mod scopes;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;

pub use self::enrolled::Enrolled;
pub use self::scopes::Scopes;
use super::render::Group;
use crate::api::v1alpha1::{ATTESTATION_LABEL, IoTHub};
use crate::domain::allocation::Pool;
use crate::domain::attestation::Attestation;
use crate::domain::ids::{IdScope, RegistrationId};

/// Everything that is watched but registrations.
#[derive(Default)]
pub struct Tenants {
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    scopes: Scopes,
    tenants: HashMap<String, Tenant>,
}

/// One namespace.
#[derive(Default)]
struct Tenant {
    /// Individual Enrollments by canonical registration id, the one that counts first.
    individuals: HashMap<String, Vec<Arc<Enrolled>>>,
    /// Group Enrollments, oldest first.
    groups: Arc<Vec<Arc<Enrolled>>>,
    hubs: Arc<Vec<IoTHub>>,
    secrets: HashMap<String, Arc<Secret>>,
    /// Every Enrollment by name.
    by_name: HashMap<String, Arc<Enrolled>>,
    /// How many Enrollments refer to each Secret.
    secret_uses: HashMap<String, usize>,
}

/// What decides about one device, in the order in which it does.
pub struct Candidates {
    pub namespace: String,
    /// When present, it alone decides.
    pub individual: Option<Arc<Enrolled>>,
    pub groups: Arc<Vec<Arc<Enrolled>>>,
}

impl Tenants {
    /// What may enroll that device; `None` when nobody has that ID scope.
    pub fn candidates(&self, scope: &IdScope, id: &RegistrationId) -> Option<Candidates> {
        let state = self.read();
        let namespace = state.scopes.namespace(scope)?.to_owned();
        let Some(tenant) = state.tenants.get(&namespace) else {
            return Some(Candidates {
                namespace,
                individual: None,
                groups: Arc::default(),
            });
        };
        let individual = tenant
            .individuals
            .get(id.canonical())
            .and_then(|all| all.first())
            .cloned();
        Some(Candidates {
            namespace,
            individual,
            groups: tenant.groups.clone(),
        })
    }

    /// The group Enrollment of that uid, if it is still there, as its devices are told.
    pub fn group(&self, namespace: &str, uid: &str) -> Option<Group> {
        let state = self.read();
        let groups = &state.tenants.get(namespace)?.groups;
        groups
            .iter()
            .find(|group| group.uid == uid)
            .map(|group| Group {
                name: group.name.clone(),
                x509: !group.takes_tokens(),
            })
    }

    /// What an Enrollment knows of its devices; `None` while its Secret is missing, not labelled, or
    /// unusable, or a certificate is.
    pub fn attestation(&self, namespace: &str, enrolled: &Enrolled) -> Option<Attestation> {
        let Some(name) = enrolled.secret() else {
            return enrolled.x509.clone().map(Attestation::X509);
        };
        let secret = self
            .read()
            .tenants
            .get(namespace)?
            .secrets
            .get(name)?
            .clone();
        if secret.labels().get(ATTESTATION_LABEL).map(String::as_str) != Some("true") {
            return None;
        }
        Attestation::read(&enrolled.spec, &enrolled.uid, secret.data.as_ref()?).ok()
    }

    /// Where an Enrollment may place devices.
    pub fn pool(&self, namespace: &str, enrolled: &Enrolled) -> Pool {
        let hubs = self
            .read()
            .tenants
            .get(namespace)
            .map(|tenant| tenant.hubs.clone());
        let hubs = hubs.unwrap_or_default();
        Pool::of(enrolled.spec.allocation.as_ref(), hubs.iter())
    }

    /// Every Secret that an Enrollment refers to: namespace and name.
    pub fn wanted_secrets(&self) -> BTreeSet<(String, String)> {
        let state = self.read();
        let of = |(namespace, tenant): (&String, &Tenant)| {
            let namespace = namespace.clone();
            let names = tenant.secret_uses.keys().cloned().collect::<Vec<_>>();
            names.into_iter().map(move |name| (namespace.clone(), name))
        };
        state.tenants.iter().flat_map(of).collect()
    }

    /// Changes the ID scopes.
    pub fn update_scopes(&self, change: impl FnOnce(&mut Scopes)) {
        change(&mut self.write().scopes);
    }

    /// Takes up a new or changed Enrollment.
    pub fn apply_enrollment(&self, enrolled: Enrolled) {
        let mut state = self.write();
        let tenant = state.tenants.entry(enrolled.namespace.clone()).or_default();
        tenant.drop_enrollment(&enrolled.name);
        tenant.add_enrollment(Arc::new(enrolled));
    }

    /// Forgets an Enrollment.
    pub fn remove_enrollment(&self, namespace: &str, name: &str) {
        if let Some(tenant) = self.write().tenants.get_mut(namespace) {
            tenant.drop_enrollment(name);
        }
    }

    /// Takes the full list of Enrollments, of one namespace or of all.
    pub fn replace_enrollments(&self, of: Option<&str>, all: Vec<Enrolled>) {
        let mut state = self.write();
        for tenant in state.of(of) {
            tenant.individuals.clear();
            tenant.groups = Arc::default();
            tenant.by_name.clear();
            tenant.secret_uses.clear();
        }
        for enrolled in all {
            let tenant = state.tenants.entry(enrolled.namespace.clone()).or_default();
            tenant.add_enrollment(Arc::new(enrolled));
        }
    }

    /// Takes up a new or changed hub.
    pub fn apply_hub(&self, hub: IoTHub) {
        let mut state = self.write();
        let tenant = state
            .tenants
            .entry(hub.namespace().unwrap_or_default())
            .or_default();
        let hubs = Arc::make_mut(&mut tenant.hubs);
        hubs.retain(|other| other.metadata.name != hub.metadata.name);
        hubs.push(hub);
    }

    /// Forgets a hub.
    pub fn remove_hub(&self, hub: &IoTHub) {
        if let Some(tenant) = self
            .write()
            .tenants
            .get_mut(&hub.namespace().unwrap_or_default())
        {
            let hubs = Arc::make_mut(&mut tenant.hubs);
            hubs.retain(|other| other.metadata.name != hub.metadata.name);
        }
    }

    /// Takes the full list of hubs, of one namespace or of all.
    pub fn replace_hubs(&self, of: Option<&str>, all: Vec<IoTHub>) {
        let mut state = self.write();
        for tenant in state.of(of) {
            tenant.hubs = Arc::default();
        }
        for hub in all {
            let tenant = state
                .tenants
                .entry(hub.namespace().unwrap_or_default())
                .or_default();
            Arc::make_mut(&mut tenant.hubs).push(hub);
        }
    }

    /// Takes up a Secret, or forgets it.
    pub fn set_secret(&self, namespace: &str, name: &str, secret: Option<Secret>) {
        let mut state = self.write();
        let secrets = &mut state
            .tenants
            .entry(namespace.to_owned())
            .or_default()
            .secrets;
        match secret {
            Some(secret) => drop(secrets.insert(name.to_owned(), Arc::new(secret))),
            None => drop(secrets.remove(name)),
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn of(&mut self, namespace: Option<&str>) -> impl Iterator<Item = &mut Tenant> {
        let namespace = namespace.map(str::to_owned);
        let wanted = move |name: &str| namespace.as_ref().is_none_or(|wanted| wanted == name);
        self.tenants
            .iter_mut()
            .filter(move |(name, _)| wanted(name))
            .map(|(_, tenant)| tenant)
    }
}

impl Tenant {
    fn add_enrollment(&mut self, enrolled: Arc<Enrolled>) {
        self.by_name.insert(enrolled.name.clone(), enrolled.clone());
        if let Some(secret) = enrolled.secret() {
            *self.secret_uses.entry(secret.to_owned()).or_default() += 1;
        }
        let all = match &enrolled.individual {
            Some(id) => self
                .individuals
                .entry(id.canonical().to_owned())
                .or_default(),
            None => Arc::make_mut(&mut self.groups),
        };
        // The older one counts.
        let place = all.partition_point(|other| other.age() < enrolled.age());
        all.insert(place, enrolled);
    }

    fn drop_enrollment(&mut self, name: &str) {
        let Some(dropped) = self.by_name.remove(name) else {
            return;
        };
        if let Some(secret) = dropped.secret()
            && let Some(uses) = self.secret_uses.get_mut(secret)
        {
            *uses -= 1;
            if *uses == 0 {
                self.secret_uses.remove(secret);
            }
        }
        let Some(id) = &dropped.individual else {
            Arc::make_mut(&mut self.groups).retain(|group| group.name != name);
            return;
        };
        if let Some(all) = self.individuals.get_mut(id.canonical()) {
            all.retain(|other| other.name != name);
            if all.is_empty() {
                self.individuals.remove(id.canonical());
            }
        }
    }
}
