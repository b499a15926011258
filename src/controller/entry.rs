//! What the index keeps of one registration.

use jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource as _, ResourceExt as _};

use super::index::Evaluation;
use crate::api::v1alpha1::{DeviceRegistration, HubRef, RegistrationState};
use crate::domain::allocation::Placement;
use crate::domain::ids::ApiVersion;
use crate::domain::policy::Rule;

/// One registration, reduced to what others ask about it.
#[derive(Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) enrollment: Option<String>,
    pub(super) state: Option<RegistrationState>,
    pub(super) home: Option<HubRef>,
    pub(super) device_id: Option<String>,
    /// Uids of every hub where something of it is, may be, or is about to be.
    pub(super) hubs: Vec<String>,
    /// Not at rest: a change elsewhere may let it go on.
    pub(super) restless: bool,
    registration_id: String,
    /// When its open move began.
    pub(super) moving_since: Option<Timestamp>,
    /// Something of it may be left at a hub.
    pub(super) to_clean_up: bool,
    /// Host that it is moving to.
    target: Option<String>,
    /// Name of the hub that an unanswered request proposes.
    proposed: Option<String>,
    sticky_api: bool,
    placement_hash: Option<String>,
}

impl Entry {
    pub(super) fn of(registration: &DeviceRegistration) -> Self {
        let spec = &registration.spec;
        let status = registration.status.clone().unwrap_or_default();
        let request = spec.request.as_ref();
        let pending =
            request.filter(|request| status.operation_id.as_deref() != Some(&request.operation_id));
        let transfer = status.transfer.as_ref();
        let first = status.first_assignment.as_ref();
        let cleanup = status.cleanup.iter().map(|entry| &entry.uid);
        let hubs = status.home.iter().map(|home| &home.uid);
        let hubs = hubs.chain(transfer.map(|transfer| &transfer.from.hub.uid));
        let hubs = hubs.chain(transfer.map(|transfer| &transfer.to.hub.uid));
        let hubs = hubs.chain(first.map(|first| &first.hub.uid)).chain(cleanup);
        let settled = matches!(
            status.state,
            Some(RegistrationState::Assigned | RegistrationState::Disabled)
        );
        let restless = !settled
            || pending.is_some()
            || transfer.is_some()
            || !status.cleanup.is_empty()
            || registration.meta().deletion_timestamp.is_some();
        Self {
            namespace: registration.namespace().unwrap_or_default(),
            name: registration.name_any(),
            enrollment: request.map(|request| request.enrollment.uid.clone()),
            state: status.state,
            device_id: status.device_id.clone(),
            hubs: hubs.cloned().collect(),
            restless,
            registration_id: spec.registration_id.clone(),
            moving_since: transfer.map(|transfer| transfer.started_at.0),
            to_clean_up: !status.cleanup.is_empty(),
            target: transfer.map(|transfer| transfer.to.hub.host_name.clone()),
            proposed: pending.and_then(|request| request.proposed_hub.clone()),
            sticky_api: request
                .and_then(|request| request.api_version.parse::<ApiVersion>().ok())
                .is_some_and(|version| version.is_sticky()),
            home: status.home,
            placement_hash: status.placement_hash,
        }
    }

    pub(super) fn object(&self) -> ObjectRef<DeviceRegistration> {
        ObjectRef::new(&self.name).within(&self.namespace)
    }

    /// Host and device id where it lives and where it is going to live.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (String, String)> + '_ {
        let home = self.home.as_ref().map(|home| &home.host_name);
        let target = self.target.as_ref().filter(|target| Some(*target) != home);
        let hosts = home.into_iter().chain(target);
        hosts.filter_map(|host| Some((host.clone(), self.device_id.clone()?)))
    }

    /// Namespace and name of the hub that an unanswered request proposes.
    pub(super) fn proposal(&self) -> Option<(String, String)> {
        let name = self.proposed.clone()?;
        Some((self.namespace.clone(), name))
    }

    /// Whether it would get another hub at its next request.
    pub(super) fn would_move(&self, evaluation: &Evaluation) -> bool {
        let Some(home) = &self.home else {
            return false;
        };
        let evaluated_with = self.placement_hash.as_deref();
        !Rule::new(evaluation.policy, self.sticky_api).stays()
            && matches!(
                evaluation.pool.replace(&self.registration_id, home, evaluated_with, |_| false),
                Placement::Go(hub) if hub.uid != home.uid
            )
    }
}
