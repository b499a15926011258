//! Everything one decision may depend on.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::step::{Look, Record, Standing, Step, Wait};
use super::view::{Trouble, TroubleKind, Views};
use crate::api::v1alpha1::{
    ConditionType, DeviceRegistrationSpec, DeviceRegistrationStatus, ExistingDevices, HubRef,
    InitialTwin, IoTHub, Reason, RegistrationRequest, ReprovisionPolicy, is_true,
};
use crate::domain::allocation::Pool;
use crate::domain::attestation::DeviceCredential;
use crate::domain::identity::Identity;
use crate::domain::twin::Twin;

/// A decision in the making: `Err` carries the step that must come before anything else.
pub(super) type Next<T = Step> = Result<T, Step>;

/// What a decision about one registration rests on. Built by `observe`, never fetched here.
pub struct Facts<'a> {
    /// Uid of the `DeviceRegistration`.
    pub uid: &'a str,
    /// Its spec.
    pub spec: &'a DeviceRegistrationSpec,
    /// Its status.
    pub status: &'a DeviceRegistrationStatus,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// The namespace goes: let go rather than hang.
    pub letting_go: bool,
    /// The Enrollment that the last request named.
    pub enrollment: EnrollmentFacts,
    /// Every hub of the namespace.
    pub hubs: Vec<HubFacts>,
    /// What has been read of the hubs since the status was written.
    pub views: &'a Views,
    /// What else is known of the cluster.
    pub surroundings: &'a dyn Surroundings,
    /// Look whether the home is still the home.
    pub check_home: bool,
    /// Look at every hub before a first assignment.
    pub look_everywhere: bool,
    /// Now.
    pub now: Timestamp,
    /// Id for the next transfer.
    pub fresh_id: &'a str,
    /// How long a move may wait for its target before it is given up.
    pub patience: SignedDuration,
    /// D: how long a call to a hub can take to act.
    pub call_life: SignedDuration,
    /// A rule that is broken on purpose.
    #[cfg(feature = "mutants")]
    pub mutant: Option<super::Mutant>,
}

/// What a decision may ask of the cluster beyond the one registration.
pub trait Surroundings {
    /// Whether a registration of that uid exists.
    fn is_registered(&self, uid: &str) -> bool;
    /// Uid of the registration that lives at that host under that device id.
    fn owner_of(&self, host_name: &str, device_id: &str) -> Option<String>;
    /// How long until no call to that hub for this registration can act any more.
    fn quiet_in(&self, hub_uid: &str) -> SignedDuration;
}

/// The Enrollment behind a registration.
#[derive(Clone, Debug, Default)]
pub enum EnrollmentFacts {
    /// It does not exist (any more).
    #[default]
    Missing,
    /// It cannot be used; why, for people.
    Invalid(String),
    /// It can.
    Valid(Box<Enrolled>),
}

/// A usable Enrollment.
#[derive(Clone, Debug)]
pub struct Enrolled {
    /// Whether it refuses registrations.
    pub disabled: bool,
    /// Its policy.
    pub policy: Option<ReprovisionPolicy>,
    /// Whether the api-version of the last request is sticky.
    pub sticky_api: bool,
    /// Where its devices may live.
    pub pool: Pool,
    /// Device id for a first assignment.
    pub device_id: String,
    /// Twin that devices start with.
    pub initial_twin: Option<InitialTwin>,
    /// Whether its devices are IoT Edge devices.
    pub edge: bool,
    /// Whether a move goes on when its source cannot be reached.
    pub proceed_without_source: bool,
    /// What the device has at its hub.
    pub credential: DeviceCredential,
    /// Its fingerprint.
    pub fingerprint: String,
}

/// A hub of the namespace.
#[derive(Clone, Debug)]
pub struct HubFacts {
    /// The hub.
    pub hub: HubRef,
    /// Whether its `IoTHub` is Ready.
    pub ready: bool,
    /// Whether it refuses twin writes to fenced identities.
    pub fences: bool,
    /// Whether its etags never repeat.
    pub unique_etags: bool,
    /// Whether it lists modules with the identity, shows them while a mark of ours holds the device,
    /// and takes them then.
    pub carries_modules: bool,
    /// Whether a first assignment refuses a device that exists already.
    pub refuses_existing: bool,
}

impl HubFacts {
    /// What is known of an `IoTHub` that the API server holds.
    pub fn of(hub: &IoTHub) -> Self {
        let status = hub.status.as_ref();
        let guarantees = |what: &str| {
            status.is_some_and(|status| status.guarantees.iter().any(|known| known == what))
        };
        Self {
            hub: HubRef::of(hub),
            ready: status.is_some_and(|status| is_true(&status.conditions, ConditionType::Ready)),
            fences: guarantees("fence"),
            unique_etags: guarantees("etags-unique"),
            carries_modules: guarantees("modules"),
            refuses_existing: hub.spec.existing_devices == Some(ExistingDevices::Refuse),
        }
    }
}

impl Facts<'_> {
    /// The request, when it has not been answered yet.
    pub fn pending_request(&self) -> Option<&RegistrationRequest> {
        self.spec
            .request
            .as_ref()
            .filter(|request| self.status.operation_id.as_deref() != Some(&request.operation_id))
    }

    /// What is known of a hub; `None` when its `IoTHub` does not exist.
    pub fn hub(&self, uid: &str) -> Option<&HubFacts> {
        self.hubs.iter().find(|known| known.hub.uid == uid)
    }

    /// Whether the hub lists and takes modules while a mark holds the device.
    pub(super) fn carries_modules(&self, hub: &HubRef) -> bool {
        self.hub(&hub.uid)
            .is_some_and(|known| known.carries_modules)
    }

    /// Whether the hub is being cleaned up.
    pub fn is_in_cleanup(&self, hub: &HubRef) -> bool {
        self.status.cleanup.iter().any(|entry| entry.uid == hub.uid)
    }

    /// The identity at a hub, or the trouble with it.
    pub(super) fn reach(&self, hub: &HubRef) -> Next<Result<Option<&Identity>, Trouble>> {
        let view = self.views.of(&hub.uid);
        if let Some(trouble) = &view.trouble {
            return Ok(Err(trouble.clone()));
        }
        match &view.identity {
            Some(identity) => Ok(Ok(identity.as_ref())),
            None => Err(Step::Look(Look::Identity(hub.clone()))),
        }
    }

    /// How long until a read of the hub tells that nothing of this registration will appear there;
    /// zero when the present view does.
    pub(super) fn quiet_in(&self, hub: &HubRef) -> SignedDuration {
        let wait = self.surroundings.quiet_in(&hub.uid);
        if self.views.of(&hub.uid).in_flight {
            // Quiet by now or not, the hub is read again first.
            wait.max(SignedDuration::from_millis(1))
        } else {
            wait
        }
    }

    /// The identity at a hub; waits while there is trouble.
    pub(super) fn identity(&self, hub: &HubRef) -> Next<Option<&Identity>> {
        self.reach(hub)?.map_err(|trouble| wait_for(&trouble))
    }

    /// The twin at a hub; waits while there is trouble.
    pub(super) fn twin(&self, hub: &HubRef) -> Next<Option<&Twin>> {
        let view = self.views.of(&hub.uid);
        if let Some(trouble) = &view.trouble {
            return Err(wait_for(trouble));
        }
        match &view.twin {
            Some((twin, _)) => Ok(twin.as_ref()),
            None => Err(Step::Look(Look::Twin(hub.clone()))),
        }
    }

    /// The usable Enrollment.
    pub(super) fn enrolled(&self) -> Option<&Enrolled> {
        match &self.enrollment {
            EnrollmentFacts::Valid(enrolled) => Some(enrolled),
            EnrollmentFacts::Missing | EnrollmentFacts::Invalid(_) => None,
        }
    }

    /// Whether a disabled identity is a leftover: marked by us for something that is over, or by a
    /// registration that no longer exists.
    pub(super) fn is_leftover(&self, identity: &Identity, current: &str) -> bool {
        !identity.enabled
            && identity.mark().is_some_and(|mark| {
                if mark.registration == self.uid {
                    mark.transfer != current
                } else {
                    !self.surroundings.is_registered(&mark.registration)
                }
            })
    }

    /// Whether an identity is this registration's: its mark, or the recorded generation id.
    pub(super) fn is_ours(&self, identity: &Identity, generation_id: Option<&str>) -> bool {
        identity.is_marked_by(self.uid) || generation_id == Some(identity.generation_id.as_str())
    }

    /// A status write without an Event.
    pub(super) fn record(
        &self,
        status: DeviceRegistrationStatus,
        standing: Standing,
        reason: Reason,
        message: impl Into<String>,
    ) -> Record {
        Record {
            status,
            standing,
            reason,
            message: message.into(),
            event: None,
        }
    }

    /// Now, as it stands in a status.
    pub fn time(&self) -> MicroTime {
        MicroTime(self.now)
    }

    #[cfg(feature = "mutants")]
    pub(super) fn breaks(&self, mutant: super::Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Only test builds break rules.
    #[cfg(not(feature = "mutants"))]
    pub(super) const fn breaks(&self, _: super::Mutant) -> bool {
        false
    }
}

/// Waits for a hub's trouble to pass.
pub(super) fn wait_for(trouble: &Trouble) -> Step {
    let reason = match trouble.kind {
        TroubleKind::Missing => Reason::HubMissing,
        TroubleKind::NoCredentials => Reason::SecretMissing,
        TroubleKind::Unreachable => Reason::HubUnreachable,
        TroubleKind::Unauthorized => Reason::HubUnauthorized,
        TroubleKind::Throttled => Reason::HubThrottled,
        TroubleKind::Refused => Reason::HubRefused,
    };
    Wait::because(reason, trouble.message.clone())
}
