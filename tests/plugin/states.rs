//! Registrations in every state, whatever the reason.

use rehome::api::v1alpha1::Reason;
use serde_json::json;

use super::case::{Case, PRESS, begun, case, disabled, enrollment_spec, failed, ready, told, with};
use super::objects::Objects;

const ASSIGNED: &str = "assigned to hub-west.example.com";
const LATE: &str = "the device's request has not been taken up: the controller is down or behind";

/// Registrations in every state, those included that no reason tells of.
pub(crate) fn states() -> Vec<(&'static str, Case)> {
    let soon = "it is new; the controller is about to look";
    let assigning = "assigning to hub-west.example.com";
    let refused = "hub-west.example.com: create device: refused (403)";
    vec![
        (
            "state-new",
            case(PRESS, untouched("2026-05-04T11:59:50"), soon, false),
        ),
        (
            "state-not-taken-up",
            case(PRESS, untouched("2026-05-04T11:00:00"), LATE, true),
        ),
        ("state-asked-again", asked_again()),
        (
            "state-assigning",
            begun(Reason::InitialAssignment, assigning),
        ),
        ("state-assigned", ready(Reason::InitialAssignment, ASSIGNED)),
        ("state-assigned-elsewhere-wanted", wanted_elsewhere()),
        ("state-assigned-triggered", triggered()),
        ("state-failed", failed(Reason::HubRefused, 403_201, refused)),
        ("state-disabled", disabled()),
    ]
}

/// A request from that moment on which nobody has looked at.
fn untouched(requested: &str) -> Objects {
    let mut objects = Objects::new();
    let registration = &mut objects.registrations[0];
    registration["spec"]["request"]["requestedAt"] = json!(format!("{requested}.000000Z"));
    registration["metadata"]["creationTimestamp"] = json!(format!("{requested}Z"));
    registration.as_object_mut().unwrap().remove("status");
    objects
}

/// A device with a home that asked again, three hours ago.
fn asked_again() -> Case {
    told(
        LATE,
        ready(Reason::InitialAssignment, ASSIGNED),
        |objects| {
            let registration = &mut objects.registrations[0];
            registration["spec"]["request"]["operationId"] = json!("4.press.2");
            registration["metadata"]["generation"] = json!(2);
        },
    )
}

fn wanted_elsewhere() -> Case {
    with(ready(Reason::InitialAssignment, ASSIGNED), |objects| {
        enrollment_spec(objects)["allocation"]["hubs"] = json!(["hub-east"]);
        objects.enrollments[0]["status"]["registrations"]["wouldMove"] = json!(1);
    })
}

fn triggered() -> Case {
    with(ready(Reason::InitialAssignment, ASSIGNED), |objects| {
        objects.registrations[0]["spec"]["reprovision"] =
            json!({ "id": "to-the-east", "mode": "ResetData", "hub": "hub-east" });
    })
}
