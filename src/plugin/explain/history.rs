//! What happened to a registration: its past operations and its Events, in one list.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use serde::Serialize;

use crate::api::v1alpha1::{DeviceRegistrationStatus, PastOperation, RegistrationState, Substatus};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Past {
    /// When.
    pub at: Timestamp,
    /// Why: the same word as in a condition.
    pub reason: String,
    /// What.
    pub what: String,
}

/// Newest first.
pub(super) fn of(status: &DeviceRegistrationStatus, events: &[Event]) -> Vec<Past> {
    let mut all: Vec<_> = status.history.iter().map(of_operation).collect();
    all.extend(current(status));
    all.extend(events.iter().filter_map(of_event));
    all.extend(status.created_at.as_ref().map(|created| Past {
        at: created.0,
        reason: "–".to_owned(),
        what: "registered for the first time".to_owned(),
    }));
    all.extend(status.home_checked_at.as_ref().map(|checked| Past {
        at: checked.0,
        reason: "–".to_owned(),
        what: "its home was verified at the hub".to_owned(),
    }));
    all.sort_by_key(|past| std::cmp::Reverse(past.at));
    all
}

/// The operation that the status answers, once it is over.
fn current(status: &DeviceRegistrationStatus) -> Option<Past> {
    let ready = status.conditions.iter().find(|one| one.type_ == "Ready")?;
    let over = PastOperation {
        operation_id: status.operation_id.clone()?,
        state: status
            .state
            .filter(|state| *state != RegistrationState::Assigning)?,
        substatus: status.substatus,
        assigned_hub: status.assigned_hub.clone(),
        reason: ready.reason.clone(),
        completed_at: status.last_changed.clone()?,
    };
    Some(of_operation(&over))
}

fn of_operation(operation: &PastOperation) -> Past {
    let hub = operation.assigned_hub.as_deref().unwrap_or("no hub");
    let answer = match operation.state {
        RegistrationState::Assigned => format!("was told {hub}{}", described(operation.substatus)),
        RegistrationState::Failed => "was told that the registration failed".to_owned(),
        RegistrationState::Disabled => "was told that its Enrollment is disabled".to_owned(),
        RegistrationState::Assigning => "was told to wait".to_owned(),
    };
    Past {
        at: operation.completed_at.0,
        reason: operation.reason.clone(),
        what: format!("operation {}: {answer}", operation.operation_id),
    }
}

fn described(substatus: Option<Substatus>) -> String {
    substatus.map_or(String::new(), |substatus| format!(" ({substatus:?})"))
}

fn of_event(event: &Event) -> Option<Past> {
    let at = event.event_time.as_ref().map(|time| time.0);
    let at = at.or(event.last_timestamp.as_ref().map(|time| time.0));
    Some(Past {
        at: at.or(event
            .metadata
            .creation_timestamp
            .as_ref()
            .map(|time| time.0))?,
        reason: event.reason.clone().unwrap_or_default(),
        what: event.message.clone().unwrap_or_default(),
    })
}
