//! What a pass over a registration is about, for log lines and traces.

use tracing::Span;

use crate::api::v1alpha1::{DeviceRegistration, RegistrationState};
use crate::telemetry;

/// Which operation and which move.
fn subject(object: &DeviceRegistration) -> [(&'static str, Option<&str>); 2] {
    let request = object.spec.request.as_ref();
    let status = object.status.as_ref();
    let transfer = status.and_then(|status| status.transfer.as_ref());
    [
        ("operation", request.map(|it| it.operation_id.as_str())),
        ("transfer", transfer.map(|it| it.id.as_str())),
    ]
}

/// Has log lines of the pass say it, where it is new.
pub(super) fn label(object: &DeviceRegistration, before: Option<&DeviceRegistration>) {
    let before = before.map(subject).unwrap_or_default();
    for ((field, new), (_, old)) in subject(object).into_iter().zip(before) {
        if new.is_some() && new != old {
            Span::current().record(field, new);
        }
    }
}

/// Has the pass that begins be in the trace of the device's request, if it is for that.
pub(super) fn trace(object: &DeviceRegistration) {
    if let Some(place) = traced(object) {
        telemetry::go_on(&Span::current(), place);
    }
}

/// The trace of the device's request, while what is done is done for that and nothing else: what a
/// person wants, or the controller of its own accord, is in no trace.
fn traced(object: &DeviceRegistration) -> Option<&str> {
    let request = object.spec.request.as_ref()?;
    let place = request.traceparent.as_deref()?;
    let Some(status) = &object.status else {
        return Some(place);
    };
    let is_taken_up = status.operation_id.as_ref() == Some(&request.operation_id);
    let wish = object.spec.reprovision.as_ref();
    let a_person_waits = wish.is_some_and(|wish| status.reprovision_id.as_ref() != Some(&wish.id));
    let is_for_it = match &status.transfer {
        Some(transfer) => is_taken_up && transfer.trigger.is_none(),
        None if a_person_waits => false,
        // A first assignment may take several passes. One that has been assigned before is perhaps a
        // home that was lost.
        None => {
            let is_assigning = status.state == Some(RegistrationState::Assigning);
            !is_taken_up || (is_assigning && status.created_at.is_none())
        }
    };
    is_for_it.then_some(place)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const PLACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    /// A registration with a request `now`.
    fn registration(status: &Value, wish: Option<&str>) -> DeviceRegistration {
        let mut object = json!({
            "apiVersion": "rehome.dev/v1alpha1", "kind": "DeviceRegistration",
            "metadata": { "name": "press-7" },
            "spec": { "registrationId": "press-7", "request": {
                "operationId": "now", "apiVersion": "2021-06-01", "credential": "c0ffee",
                "enrollment": { "name": "line", "uid": "1" }, "reason": "Hashed",
                "requestedAt": "2026-01-01T00:00:00.000000Z", "traceparent": PLACE,
            } },
            "status": status,
        });
        if let Some(id) = wish {
            object["spec"]["reprovision"] = json!({ "id": id, "mode": "Policy" });
        }
        serde_json::from_value(object).unwrap()
    }

    fn transfer(trigger: Option<&str>) -> Value {
        let hub = |name: &str| json!({ "name": name, "uid": name, "hostName": name });
        json!({
            "id": "t", "phase": "Open", "data": "Migrate", "policy": "MigrateData",
            "from": { "hub": hub("west"), "generationId": "1",
                      "original": { "enabled": true } },
            "to": { "hub": hub("east") }, "placementHash": "h", "trigger": trigger,
            "startedAt": "2026-01-01T00:00:00.000000Z",
        })
    }

    #[test]
    fn only_what_is_done_for_the_request_is_in_its_trace() {
        let created = "2026-01-01T00:00:00.000000Z";
        for (status, wish, expected) in [
            (Value::Null, None, true),
            (
                json!({ "operationId": "before", "state": "Assigned" }),
                None,
                true,
            ),
            (
                json!({ "operationId": "now", "state": "Assigned" }),
                None,
                false,
            ),
            (
                json!({ "operationId": "now", "state": "Assigning", "transfer": transfer(None) }),
                None,
                true,
            ),
            // The move of a request before it, which goes on first.
            (
                json!({ "operationId": "before", "state": "Assigning", "transfer": transfer(None) }),
                None,
                false,
            ),
            // A person's move.
            (
                json!({ "operationId": "now", "state": "Assigning", "transfer": transfer(Some("w")),
                        "reprovisionId": "w" }),
                Some("w"),
                false,
            ),
            // Whose turn is it?
            (
                json!({ "operationId": "before", "state": "Assigned" }),
                Some("w"),
                false,
            ),
            (
                json!({ "operationId": "before", "state": "Assigned", "reprovisionId": "w" }),
                Some("w"),
                true,
            ),
            // A first assignment, and a home that was lost.
            (
                json!({ "operationId": "now", "state": "Assigning" }),
                None,
                true,
            ),
            (
                json!({ "operationId": "now", "state": "Assigning", "createdAt": created }),
                None,
                false,
            ),
        ] {
            let object = registration(&status, wish);
            assert_eq!(
                traced(&object),
                expected.then_some(PLACE),
                "{status} {wish:?}"
            );
        }
    }
}
