//! One way in which a reason shows: the objects, as the operator leaves them.

use serde_json::{Value, json};

use rehome::api::v1alpha1::Reason;

use super::objects::{Objects, condition, hub_ref, transfer};

/// One way in which a reason shows.
pub(crate) struct Case {
    /// The object that shows it.
    pub(crate) object: &'static str,
    pub(crate) objects: Objects,
    /// What the operator wrote to it.
    pub(crate) cause: String,
    /// Whether a person has to do something.
    pub(crate) stuck: bool,
}

pub(super) const WEST: &str = "iothub/hub-west";
pub(super) const LINE: &str = "enrollment/line-3";
pub(super) const PRESS: &str = "devreg/press-7";

/// A hub that is not Ready.
pub(super) fn hub(reason: Reason, cause: &str) -> Case {
    let mut objects = Objects::new();
    let conditions = &mut objects.hub("hub-west")["status"]["conditions"];
    *conditions = json!([condition("Ready", "False", reason.as_str(), cause)]);
    case(WEST, objects, cause, true)
}

/// A hub that the operator runs and that is not Ready.
pub(super) fn managed(reason: Reason, cause: &str) -> Case {
    let mut objects = Objects::new();
    let hub = objects.hub("hub-west");
    hub["spec"] = json!({ "hostName": "hub-west.example.com", "managed": {} });
    hub["status"]["conditions"] = json!([condition("Ready", "False", reason.as_str(), cause)]);
    case(WEST, objects, cause, true)
}

/// An Enrollment that is not Ready.
pub(super) fn enrollment(reason: Reason, cause: &str) -> Case {
    let mut objects = Objects::new();
    let conditions = &mut objects.enrollments[0]["status"]["conditions"];
    *conditions = json!([condition("Ready", "False", reason.as_str(), cause)]);
    case(LINE, objects, cause, true)
}

/// A registration that is Ready.
pub(super) fn ready(reason: Reason, cause: &str) -> Case {
    let mut objects = Objects::new();
    let conditions = &mut objects.status()["conditions"];
    *conditions = json!([condition("Ready", "True", reason.as_str(), cause)]);
    case(PRESS, objects, cause, false)
}

/// A registration on its way, or waiting on it.
pub(super) fn working(reason: Reason, cause: &str) -> Case {
    let mut objects = Objects::new();
    *objects.status() = json!({
        "observedGeneration": 1, "state": "Assigning",
        "conditions": [
            condition("Ready", "False", reason.as_str(), cause),
            condition("Reconciling", "True", reason.as_str(), cause),
        ],
    });
    case(PRESS, objects, cause, true)
}

/// As `working`, begun a moment ago.
pub(super) fn begun(reason: Reason, cause: &str) -> Case {
    let mut begun = working(reason, cause);
    for condition in begun.objects.status()["conditions"].as_array_mut().unwrap() {
        condition["lastTransitionTime"] = json!("2026-05-04T11:59:30Z");
    }
    begun.stuck = false;
    begun
}

/// A registration whose request failed.
pub(super) fn failed(reason: Reason, code: i32, cause: &str) -> Case {
    let mut objects = Objects::new();
    *objects.status() = json!({
        "observedGeneration": 1, "state": "Failed", "operationId": "4.press.1",
        "errorCode": code, "errorMessage": cause, "lastChanged": "2026-05-04T09:00:00.000000Z",
        "conditions": [
            condition("Ready", "False", reason.as_str(), cause),
            condition("Stalled", "True", reason.as_str(), cause),
        ],
    });
    case(PRESS, objects, cause, true)
}

/// A move in that phase.
pub(super) fn moving(phase: &str, mut case: Case) -> Case {
    let status = case.objects.status();
    status["home"] = hub_ref("hub-west");
    status["assignedHub"] = json!("hub-west.example.com");
    status["deviceId"] = json!("press-7");
    status["transfer"] = transfer(phase);
    case
}

/// A move that was given up: the device is back home.
pub(super) fn refused(reason: Reason, cause: &str) -> Case {
    let mut refused = ready(reason, cause);
    refused.objects.status()["refused"] = json!({
        "placementHash": "h", "hostName": "hub-east.example.com", "reason": reason.as_str(),
        "attempts": 1, "until": "2026-05-04T12:05:00.000000Z",
    });
    refused.stuck = true;
    refused
}

pub(super) fn case(object: &'static str, objects: Objects, cause: &str, stuck: bool) -> Case {
    let cause = cause.to_owned();
    Case {
        object,
        objects,
        cause,
        stuck,
    }
}

pub(super) fn with(mut case: Case, change: impl FnOnce(&mut Objects)) -> Case {
    change(&mut case.objects);
    case
}

/// As `with`; what is told is not what the operator wrote, and somebody has to do something.
pub(super) fn told(cause: &str, case: Case, change: impl FnOnce(&mut Objects)) -> Case {
    let changed = with(case, change);
    Case {
        cause: cause.to_owned(),
        stuck: true,
        ..changed
    }
}

pub(super) fn enrollment_spec(objects: &mut Objects) -> &mut Value {
    &mut objects.enrollments[0]["spec"]
}

/// A quarantined group: its device is refused, as somebody wants it.
pub(super) fn disabled() -> Case {
    let reason = Reason::EnrollmentDisabled;
    let cause = "the Enrollment is disabled; enable it to let the device register";
    let mut disabled = failed(reason, 0, cause);
    let status = disabled.objects.status();
    status["state"] = json!("Disabled");
    status["errorCode"] = Value::Null;
    status["errorMessage"] = Value::Null;
    enrollment_spec(&mut disabled.objects)["provisioningStatus"] = json!("Disabled");
    disabled.stuck = false;
    disabled
}
