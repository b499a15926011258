//! A record as devices are shown it: `RegistrationOperationStatus` and `DeviceRegistrationResult` of
//! the Azure device API.
//!
//! Every member stands there because some SDK breaks without it, and none that some SDK breaks with;
//! the rules are numbered in the tests.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

use super::record::Record;
use crate::api::v1alpha1::{RegistrationState, Substatus};
use crate::domain::ids::{ApiVersion, RegistrationId};

/// Error code of a registration whose Enrollment is disabled (ours: the service's is not public).
const DISABLED: i32 = 401_002;
/// Error code of a failure that names none.
const FAILED: i32 = 500_000;
/// Longest error message shown to a device, in characters: an answer must stay far below 64 KiB,
/// the largest that the C SDK takes.
const MESSAGE: usize = 4096;

/// Who asks, as far as it changes the answer.
#[derive(Debug, Clone)]
pub struct Asker<'a> {
    /// In the spelling of this request.
    pub id: &'a RegistrationId,
    pub api_version: &'a ApiVersion,
    /// The group that the device is in, when it is known and one.
    pub group: Option<&'a Group>,
    /// The device's key for its hub, encrypted to its TPM, once it has a hub.
    pub authentication_key: Option<&'a str>,
}

/// A group of devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    /// Its devices have certificates, not keys.
    pub x509: bool,
}

/// One operation, as it stands or ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    pub state: RegistrationState,
    pub body: Value,
}

impl Shown {
    /// Whether there is nothing to poll for any more.
    pub fn is_final(&self) -> bool {
        self.state != RegistrationState::Assigning
    }
}

/// The operation as under way, whatever the record says.
pub fn assigning(record: &Record, operation: &str, asker: &Asker<'_>) -> Shown {
    shown(
        record,
        operation,
        asker,
        RegistrationState::Assigning,
        |_| {},
    )
}

/// What the record says about the operation; `None` when it does not know it. Names no hub while a
/// move is open.
pub fn operation(record: &Record, operation: &str, asker: &Asker<'_>) -> Option<Shown> {
    let requested = record
        .request
        .as_ref()
        .is_some_and(|it| it.operation_id == operation);
    let current = record.operation_id.as_deref() == Some(operation);
    if current && record.state.is_some() && !record.moving {
        return Some(current_state(record, operation, asker));
    }
    if current || requested {
        return Some(assigning(record, operation, asker));
    }
    past(record, operation, asker)
}

/// The registration as `DeviceRegistrationResult`; `None` before the first operation.
pub fn registration(record: &Record, asker: &Asker<'_>) -> Option<Value> {
    let operation_id = record
        .request
        .as_ref()
        .map(|request| request.operation_id.as_str())?;
    operation(record, operation_id, asker)?
        .body
        .get("registrationState")
        .cloned()
}

/// A time as the service writes it: seven fractional digits and `Z`.
pub fn timestamp(time: Timestamp) -> String {
    let civil = time.to_zoned(TimeZone::UTC);
    let fraction = civil.subsec_nanosecond() / 100;
    format!("{}.{fraction:07}Z", civil.strftime("%Y-%m-%dT%H:%M:%S"))
}

fn current_state(record: &Record, operation: &str, asker: &Asker<'_>) -> Shown {
    let state = record.state.unwrap_or(RegistrationState::Assigning);
    shown(record, operation, asker, state, |members| match state {
        RegistrationState::Assigning => {}
        RegistrationState::Assigned => {
            assigned(
                members,
                record.assigned_hub.as_deref(),
                record.device_id.as_deref(),
                asker,
            );
            substatus(members, record.substatus, asker.api_version);
        }
        RegistrationState::Failed => failure(
            members,
            record.error_code.unwrap_or(FAILED),
            record
                .error_message
                .as_deref()
                .unwrap_or("the registration failed"),
        ),
        RegistrationState::Disabled => disabled(members),
    })
}

fn past(record: &Record, operation: &str, asker: &Asker<'_>) -> Option<Shown> {
    let past = record
        .history
        .iter()
        .find(|past| past.operation_id == operation)?;
    let mut shown = shown(record, operation, asker, past.state, |members| {
        match past.state {
            RegistrationState::Assigning => {}
            RegistrationState::Assigned => {
                assigned(
                    members,
                    past.assigned_hub.as_deref(),
                    record.device_id.as_deref(),
                    asker,
                );
                substatus(members, past.substatus, asker.api_version);
            }
            RegistrationState::Failed => failure(members, FAILED, &past.reason),
            RegistrationState::Disabled => disabled(members),
        }
    });
    stamp(&mut shown.body, record, operation, past.completed_at.0);
    Some(shown)
}

fn shown(
    record: &Record,
    operation: &str,
    asker: &Asker<'_>,
    state: RegistrationState,
    fill: impl FnOnce(&mut Map<String, Value>),
) -> Shown {
    let mut members = Map::new();
    members.insert("registrationId".into(), asker.id.as_str().into());
    members.insert("status".into(), word(state).into());
    fill(&mut members);
    let mut body = json!({
        "operationId": operation,
        "status": word(state),
        "registrationState": members,
    });
    stamp(
        &mut body,
        record,
        operation,
        record.last_changed.unwrap_or(record.created),
    );
    Shown { state, body }
}

/// Times and etag. The etag is opaque to devices; it changes when the registration does, and is the
/// same at every replica.
fn stamp(body: &mut Value, record: &Record, operation: &str, changed: Timestamp) {
    let created = record.assigned_first.unwrap_or(record.created);
    let text = format!("{} {operation} {changed}", record.uid);
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    let mut guid = [0; 16];
    guid.copy_from_slice(&digest.as_ref()[..16]);
    let guid = uuid::Uuid::from_bytes(guid);
    let state = &mut body["registrationState"];
    state["createdDateTimeUtc"] = timestamp(created).into();
    state["lastUpdatedDateTimeUtc"] = timestamp(changed).into();
    state["etag"] = STANDARD.encode(format!("\"{guid}\"")).into();
}

fn assigned(
    members: &mut Map<String, Value>,
    hub: Option<&str>,
    device_id: Option<&str>,
    asker: &Asker<'_>,
) {
    members.insert("assignedHub".into(), hub.unwrap_or_default().into());
    members.insert(
        "deviceId".into(),
        device_id.unwrap_or(asker.id.as_str()).into(),
    );
    if let Some(key) = asker.authentication_key {
        members.insert("tpm".into(), json!({ "authenticationKey": key }));
    }
    if let Some(group) = asker.group {
        // Nothing else of `x509`: the Java SDK wants all of it or none.
        let kind = if group.x509 { "x509" } else { "symmetricKey" };
        members.insert(kind.into(), json!({ "enrollmentGroupId": group.name }));
    }
}

fn substatus(members: &mut Map<String, Value>, substatus: Option<Substatus>, api: &ApiVersion) {
    let word = match substatus {
        Some(Substatus::DeviceDataMigrated) => "deviceDataMigrated",
        Some(Substatus::DeviceDataReset) => "deviceDataReset",
        Some(Substatus::ReprovisionedToInitialAssignment) if api.has_reprovisioned_substatus() => {
            "reprovisionedToInitialAssignment"
        }
        Some(Substatus::ReprovisionedToInitialAssignment | Substatus::InitialAssignment) | None => {
            "initialAssignment"
        }
    };
    members.insert("substatus".into(), word.into());
}

fn failure(members: &mut Map<String, Value>, code: i32, message: &str) {
    members.insert("errorCode".into(), code.into());
    members.insert(
        "errorMessage".into(),
        message.chars().take(MESSAGE).collect::<String>().into(),
    );
}

fn disabled(members: &mut Map<String, Value>) {
    failure(members, DISABLED, "the enrollment is disabled");
}

fn word(state: RegistrationState) -> &'static str {
    match state {
        RegistrationState::Assigning => "assigning",
        RegistrationState::Assigned => "assigned",
        RegistrationState::Failed => "failed",
        RegistrationState::Disabled => "disabled",
    }
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
