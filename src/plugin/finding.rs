//! How an object stands, in one finding: whether a person should look, why, and what to type next.

mod registration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Resource, ResourceExt as _};
use serde::Serialize;

use super::advice::{self, About};
use crate::api::v1alpha1::{Enrollment, IoTHub, Reason};

pub use registration::state_of;

/// How long the operator may take to look at something.
const TAKEN_UP: SignedDuration = SignedDuration::from_mins(1);

/// One of the three kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Kind {
    /// A hub.
    IoTHub,
    /// An Enrollment.
    Enrollment,
    /// A registration.
    DeviceRegistration,
}

impl Kind {
    /// As kubectl takes it.
    pub const fn resource(self) -> &'static str {
        match self {
            Self::IoTHub => "iothub",
            Self::Enrollment => "enrollment",
            Self::DeviceRegistration => "devreg",
        }
    }
}

/// Whether a person should look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Standing {
    /// It does not go on: it waits for something, or for a person.
    Stuck,
    /// Work is under way.
    Working,
    /// Somebody disabled it, and it is.
    Disabled,
    /// It is as it should be.
    Fine,
}

/// How one object stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Whether a person should look.
    pub standing: Standing,
    /// The reason in its conditions; `NotTakenUp` when the operator has not looked at it.
    pub reason: String,
    /// Since when it stands so.
    pub since: Option<Timestamp>,
    /// What is the cause, in the operator's words.
    pub cause: String,
    /// The command to type next.
    pub next: String,
}

/// Stands in place of a reason when the operator has not looked at an object.
pub const NOT_TAKEN_UP: &str = "NotTakenUp";

impl Finding {
    /// Of a hub.
    pub fn of_hub(hub: &IoTHub, now: Timestamp) -> Self {
        // A managed hub's is the operator's own.
        let connection = hub.spec.connection.as_ref();
        let secret =
            connection.map(|connection| connection.connection_string_secret_ref.name.clone());
        let about = About {
            hub: hub.name_any(),
            secret: secret.unwrap_or_default(),
            host: hub.spec.host_name.clone(),
            ..About::of(Kind::IoTHub, hub)
        };
        let status = hub.status.as_ref();
        let conditions = status.map_or(&[][..], |status| &status.conditions);
        of_conditions(&about, hub, conditions, now)
    }

    /// Of an Enrollment.
    pub fn of_enrollment(enrollment: &Enrollment, now: Timestamp) -> Self {
        let spec = &enrollment.spec;
        let hubs = spec.allocation.as_ref().and_then(|it| it.hubs.as_ref());
        let about = About {
            enrollment: enrollment.name_any(),
            secret: spec.attestation.secret().unwrap_or("SECRET").to_owned(),
            hub: hubs
                .and_then(|hubs| hubs.first())
                .cloned()
                .unwrap_or_default(),
            is_tpm: spec.attestation.tpm.is_some(),
            ..About::of(Kind::Enrollment, enrollment)
        };
        let status = enrollment.status.as_ref();
        let conditions = status.map_or(&[][..], |status| &status.conditions);
        let mut finding = of_conditions(&about, enrollment, conditions, now);
        if finding.standing == Standing::Fine && spec.is_disabled() {
            finding.standing = Standing::Disabled;
            Reason::EnrollmentDisabled
                .as_str()
                .clone_into(&mut finding.reason);
            "the spec says provisioningStatus: Disabled".clone_into(&mut finding.cause);
            finding.next = advice::next_command(Reason::EnrollmentDisabled, &about);
        }
        finding
    }

    /// What a person calls the object.
    pub fn object(&self) -> String {
        format!("{}/{}", self.kind.resource(), self.name)
    }
}

impl About {
    fn of<K: Resource<DynamicType = ()>>(kind: Kind, object: &K) -> Self {
        Self {
            kind,
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            registration: String::new(),
            hub: String::new(),
            host: String::new(),
            enrollment: String::new(),
            secret: String::new(),
            is_tpm: false,
        }
    }

    fn finding(
        &self,
        standing: Standing,
        reason: Option<Reason>,
        word: &str,
        since: Option<Timestamp>,
        cause: &str,
    ) -> Finding {
        let meaning = || reason.map_or("", Reason::meaning).replace('`', "");
        let next = match reason {
            Some(reason) => advice::next_command(reason, self),
            // A newer operator's word.
            None => self.describe(),
        };
        Finding {
            kind: self.kind,
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            standing,
            reason: word.to_owned(),
            since,
            cause: if cause.is_empty() {
                meaning()
            } else {
                cause.to_owned()
            },
            next,
        }
    }

    fn idle_operator(&self, standing: Standing, since: Option<Timestamp>, cause: &str) -> Finding {
        Finding {
            next: "kubectl rehome logs --container controller".to_owned(),
            ..self.finding(standing, None, NOT_TAKEN_UP, since, cause)
        }
    }
}

/// An object without conditions.
fn untouched<K: Resource>(about: &About, object: &K, now: Timestamp) -> Finding {
    let since = object.meta().creation_timestamp.as_ref().map(|time| time.0);
    let late = since.is_some_and(|since| now.duration_since(since) > TAKEN_UP);
    if late {
        let cause = "it has no status: the controller is down or behind";
        about.idle_operator(Standing::Stuck, since, cause)
    } else {
        about.idle_operator(
            Standing::Working,
            since,
            "it is new; the controller is about to look",
        )
    }
}

/// Of an object whose only question is whether it is Ready.
fn of_conditions<K: Resource<DynamicType = ()>>(
    about: &About,
    object: &K,
    conditions: &[Condition],
    now: Timestamp,
) -> Finding {
    let Some(ready) = ready(conditions) else {
        return untouched(about, object, now);
    };
    let standing = if ready.status == "True" {
        Standing::Fine
    } else {
        Standing::Stuck
    };
    let reason = Reason::parse(&ready.reason);
    let since = Some(ready.last_transition_time.0);
    about.finding(standing, reason, &ready.reason, since, &ready.message)
}

fn ready(conditions: &[Condition]) -> Option<&Condition> {
    conditions.iter().find(|one| one.type_ == "Ready")
}
