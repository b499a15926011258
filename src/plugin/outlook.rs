//! What would become of a registration at its device's next check-in, or by a trigger: the
//! decisions of gateway and controller, asked beforehand.
//!
//! Assumes that the device proves who it is and asks as it asked last.

use std::collections::HashMap;

use jiff::Timestamp;
use kube::{Resource as _, ResourceExt as _};

use crate::api::v1alpha1::{
    DeviceRegistration, DeviceRegistrationStatus, Enrollment, HubRef, IoTHub, Reason,
    RegistrationState, ReprovisionTrigger, TransferData,
};
use crate::domain::allocation::{Placement, Pool};
use crate::domain::ids::{ApiVersion, RegistrationId};
use crate::domain::policy::Rule;
use crate::domain::terms::Terms;
use crate::domain::transfer::{Choice, HubFacts, Question};

/// The hubs and Enrollments of one namespace, at one moment.
pub struct World {
    hubs: Vec<HubFacts>,
    terms: Vec<Enrolling>,
    by_name: HashMap<String, usize>,
    /// By registration id in its canonical spelling.
    individuals: HashMap<String, usize>,
}

/// An Enrollment, with the hubs that it means.
pub struct Enrolling {
    /// The Enrollment.
    pub enrollment: Enrollment,
    /// Where its devices may live.
    pub pool: Pool,
}

/// What would become of a registration.
#[derive(Clone, Debug, PartialEq)]
pub enum Outlook {
    /// The registration is being deleted; the device is assigned anew afterwards.
    Leaving,
    /// An operation is under way, and ends first.
    Open,
    /// No Enrollment of the namespace is known to take the device.
    Unenrolled,
    /// The Enrollment is disabled and refuses the device.
    Refused,
    /// It has no home yet and gets one.
    First(Placement),
    /// The answer is the one that it was given: nothing is evaluated or written.
    Repeated,
    /// It is evaluated.
    Chosen(Choice),
}

impl World {
    /// The world of these objects of one namespace.
    pub fn new(hubs: &[IoTHub], enrollments: impl IntoIterator<Item = Enrollment>) -> Self {
        let enrolls = |one: &Enrollment| one.meta().deletion_timestamp.is_none();
        let enrolling = |enrollment: Enrollment| {
            let pool = Pool::of(enrollment.spec.allocation.as_ref(), hubs);
            Enrolling { enrollment, pool }
        };
        let mut terms: Vec<_> = enrollments
            .into_iter()
            .filter(enrolls)
            .map(enrolling)
            .collect();
        // Of two individual Enrollments for one registration id, the older counts.
        terms.sort_by_key(|one| {
            let meta = one.enrollment.meta();
            let created = meta.creation_timestamp.as_ref().map(|time| time.0);
            (created.unwrap_or(Timestamp::MAX), one.enrollment.name_any())
        });
        let mut by_name = HashMap::new();
        let mut individuals = HashMap::new();
        for (at, one) in terms.iter().enumerate() {
            by_name.insert(one.enrollment.name_any(), at);
            let individual = one.enrollment.spec.individual.as_ref();
            if let Some(id) = individual.and_then(|it| canonical(&it.registration_id)) {
                individuals.entry(id).or_insert(at);
            }
        }
        Self {
            hubs: hubs.iter().map(HubFacts::of).collect(),
            terms,
            by_name,
            individuals,
        }
    }

    /// The Enrollment that decides about the device: an individual one for its id, else the one that
    /// it came through.
    pub fn deciding(&self, registration: &DeviceRegistration) -> Option<&Enrolling> {
        let id = canonical(&registration.spec.registration_id);
        let individual = id.and_then(|id| self.individuals.get(&id));
        let request = registration.spec.request.as_ref();
        let recorded = || self.by_name.get(&request?.enrollment.name);
        // An individual Enrollment is for its own device only.
        let is_it = |at: &&usize| self.terms[**at].enrollment.spec.individual.is_none();
        individual
            .or_else(|| recorded().filter(is_it))
            .and_then(|at| self.terms.get(*at))
    }

    /// What would become of it at the device's next check-in or, with a trigger, at once.
    pub fn outlook(
        &self,
        registration: &DeviceRegistration,
        trigger: Option<&ReprovisionTrigger>,
        now: Timestamp,
    ) -> Outlook {
        let nothing = DeviceRegistrationStatus::default();
        let status = registration.status.as_ref().unwrap_or(&nothing);
        if registration.meta().deletion_timestamp.is_some() {
            return Outlook::Leaving;
        }
        if !is_settled(registration, status) {
            return Outlook::Open;
        }
        let Some(Enrolling { enrollment, pool }) = self.deciding(registration) else {
            return Outlook::Unenrolled;
        };
        // A trigger is an operator's wish, and a disabled Enrollment is no obstacle to it.
        let disabled = enrollment.spec.is_disabled() && trigger.is_none();
        if disabled {
            return Outlook::Refused;
        }
        let id = &registration.spec.registration_id;
        let Some(home) = &status.home else {
            let taken = |hub: &HubRef| status.cleanup.iter().any(|entry| entry.uid == hub.uid);
            return Outlook::First(pool.place(id, None, taken));
        };
        let question = Question {
            registration_id: id,
            home,
            status,
            policy: enrollment.spec.reprovision_policy,
            sticky_api: is_sticky(registration),
            pool,
            trigger,
            hubs: &self.hubs,
            now,
        };
        let terms = Terms {
            disabled,
            rule: question.rule(),
            pool,
        };
        let (policy, placement) = (status.policy.as_deref(), status.placement_hash.as_deref());
        if trigger.is_none()
            && came_through(registration, enrollment)
            && terms.decided(status.state, policy, placement)
            && terms.repeat(status.state)
        {
            return Outlook::Repeated;
        }
        Outlook::Chosen(question.choose())
    }

    /// The rule that applies to the device at its next check-in.
    pub fn rule(&self, registration: &DeviceRegistration) -> Option<Rule> {
        let enrollment = &self.deciding(registration)?.enrollment;
        let sticky = is_sticky(registration);
        Some(Rule::new(enrollment.spec.reprovision_policy, sticky))
    }
}

impl Outlook {
    /// The hub that the device would move to from `home`.
    pub fn move_from(&self, home: &HubRef) -> Option<(&HubRef, TransferData)> {
        match self {
            Self::Chosen(Choice::Go { to, data, .. }) if to.uid != home.uid => Some((to, *data)),
            Self::Chosen(Choice::Go { .. } | Choice::Stay { .. } | Choice::Wait { .. })
            | Self::Leaving
            | Self::Open
            | Self::Unenrolled
            | Self::Refused
            | Self::First(_)
            | Self::Repeated => None,
        }
    }

    /// Whether the device would start afresh where it is.
    pub fn resets(&self, home: &HubRef) -> bool {
        matches!(self, Self::Chosen(Choice::Go { to, .. }) if to.uid == home.uid)
    }

    /// Why the device would not go where its Enrollment wants it.
    pub fn held_back(&self) -> Option<Reason> {
        if let Self::Chosen(Choice::Stay {
            reason,
            settled: false,
        }) = self
        {
            Some(*reason)
        } else {
            None
        }
    }
}

/// Whether the device spoke an api-version with which it stays unless a policy says otherwise.
pub fn is_sticky(registration: &DeviceRegistration) -> bool {
    let request = registration.spec.request.as_ref();
    let version = request.and_then(|request| request.api_version.parse::<ApiVersion>().ok());
    version.is_some_and(|version| version.is_sticky())
}

/// Whether the last request is answered and nothing is under way.
fn is_settled(registration: &DeviceRegistration, status: &DeviceRegistrationStatus) -> bool {
    let request = registration.spec.request.as_ref();
    let requested = request.map(|request| &request.operation_id);
    requested == status.operation_id.as_ref()
        && status.transfer.is_none()
        && status
            .state
            .is_some_and(|state| state != RegistrationState::Assigning)
}

fn came_through(registration: &DeviceRegistration, enrollment: &Enrollment) -> bool {
    let request = registration.spec.request.as_ref();
    request.is_some_and(|request| {
        Some(&request.enrollment.uid) == enrollment.uid().as_ref()
            && request.enrollment.name == enrollment.name_any()
    })
}

fn canonical(id: &str) -> Option<String> {
    let id: RegistrationId = id.parse().ok()?;
    Some(id.canonical().to_owned())
}
