//! How a registration stands.

use jiff::{SignedDuration, Timestamp};
use kube::Resource as _;

use super::{Finding, Kind, Standing, ready, untouched};
use crate::api::v1alpha1::{
    DeviceRegistration, DeviceRegistrationStatus, Reason, RegistrationState,
};
use crate::plugin::advice::{self, About};

/// How long work without a stated obstacle may take.
const WORK: SignedDuration = SignedDuration::from_mins(5);

impl Finding {
    /// Of a registration.
    pub fn of_registration(registration: &DeviceRegistration, now: Timestamp) -> Self {
        let nothing = DeviceRegistrationStatus::default();
        let status = registration.status.as_ref().unwrap_or(&nothing);
        let ready = ready(&status.conditions);
        let reason = ready.and_then(|ready| Reason::parse(&ready.reason));
        let about = about_registration(registration, status, reason);
        if let Some(finding) = not_taken_up(registration, status, &about, now) {
            return finding;
        }
        let Some(ready) = ready else {
            return untouched(&about, registration, now);
        };
        let since = Some(ready.last_transition_time.0);
        let age = now.duration_since(ready.last_transition_time.0);
        let is = |type_: &str| {
            let mut conditions = status.conditions.iter();
            conditions.any(|one| one.type_ == type_ && one.status == "True")
        };
        let deleting = registration.meta().deletion_timestamp.is_some();
        let standing = if reason == Some(Reason::EnrollmentDisabled) {
            Standing::Disabled
        } else if is("Stalled") {
            Standing::Stuck
        } else if ready.status == "True" && !deleting {
            Standing::Fine
        } else if reason.is_some_and(advice::is_progress) && age < WORK {
            Standing::Working
        } else if deleting && ready.status == "True" {
            leaving(registration, now)
        } else {
            Standing::Stuck
        };
        let finding = about.finding(standing, reason, &ready.reason, since, &ready.message);
        if standing == Standing::Fine {
            move_refused(status, &about)
                .or_else(|| left_behind(status, &about, now))
                .unwrap_or(finding)
        } else {
            finding
        }
    }
}

/// The state in a word; a registration that nobody has looked at has none.
pub fn state_of(registration: &DeviceRegistration) -> &'static str {
    match registration.status.as_ref().and_then(|status| status.state) {
        Some(RegistrationState::Assigned) => "Assigned",
        Some(RegistrationState::Assigning) => "Assigning",
        Some(RegistrationState::Failed) => "Failed",
        Some(RegistrationState::Disabled) => "Disabled",
        None => "New",
    }
}

fn about_registration(
    registration: &DeviceRegistration,
    status: &DeviceRegistrationStatus,
    reason: Option<Reason>,
) -> About {
    let request = registration.spec.request.as_ref();
    let transfer = status.transfer.as_ref();
    let source = transfer.map(|transfer| &transfer.from.hub);
    let target = transfer.map(|transfer| &transfer.to.hub);
    let home = status.home.as_ref();
    let first = status.first_assignment.as_ref().map(|first| &first.hub);
    let hub = match reason {
        Some(Reason::SourceUnreachable) => source.or(home),
        _ => target.or(first).or(home),
    };
    let hub_name = hub.map(|hub| hub.name.clone());
    let proposed = || request.and_then(|request| request.proposed_hub.clone());
    About {
        registration: registration.spec.registration_id.clone(),
        hub: hub_name.or_else(proposed).unwrap_or_default(),
        host: hub.map_or(String::new(), |hub| hub.host_name.clone()),
        enrollment: request.map_or(String::new(), |request| request.enrollment.name.clone()),
        ..About::of(Kind::DeviceRegistration, registration)
    }
}

/// A request or a trigger that the controller should have taken up by now.
fn not_taken_up(
    registration: &DeviceRegistration,
    status: &DeviceRegistrationStatus,
    about: &About,
    now: Timestamp,
) -> Option<Finding> {
    let request = registration.spec.request.as_ref()?;
    let pending = status.operation_id.as_ref() != Some(&request.operation_id);
    let since = request.requested_at.0;
    let untouched = status.observed_generation != registration.meta().generation;
    let late = now.duration_since(since) > super::TAKEN_UP;
    (pending && untouched && late && status.transfer.is_none()).then(|| {
        let cause = "the device's request has not been taken up: the controller is down or behind";
        about.idle_operator(Standing::Stuck, Some(since), cause)
    })
}

/// A registration that is being deleted and says nothing of an obstacle.
fn leaving(registration: &DeviceRegistration, now: Timestamp) -> Standing {
    let since = registration.meta().deletion_timestamp.as_ref();
    let late = since.is_some_and(|since| now.duration_since(since.0) > WORK);
    if late {
        Standing::Stuck
    } else {
        Standing::Working
    }
}

/// A device that is well where it is, and should be elsewhere.
fn move_refused(status: &DeviceRegistrationStatus, about: &About) -> Option<Finding> {
    let refused = status.refused.as_ref()?;
    let ready = ready(&status.conditions)?;
    let about = About {
        // Its name is not recorded.
        hub: String::new(),
        host: refused.host_name.clone(),
        ..about.clone()
    };
    let reason = Reason::parse(&refused.reason);
    let since = Some(ready.last_transition_time.0);
    let cause = format!(
        "{}; the move to {} is tried again after {}",
        ready.message, refused.host_name, refused.until.0
    );
    Some(about.finding(Standing::Stuck, reason, &refused.reason, since, &cause))
}

/// What should be gone from a former hub by now.
fn left_behind(
    status: &DeviceRegistrationStatus,
    about: &About,
    now: Timestamp,
) -> Option<Finding> {
    let left = status
        .cleanup
        .iter()
        .find(|entry| now.duration_since(entry.since.0) > WORK)?;
    let about = About {
        hub: left.name.clone(),
        host: left.host_name.clone(),
        ..about.clone()
    };
    let cause = format!("something of the device may be left at {}", left.host_name);
    let (reason, since) = (Reason::LeftBehind, Some(left.since.0));
    Some(about.finding(
        Standing::Stuck,
        Some(reason),
        reason.as_str(),
        since,
        &cause,
    ))
}
