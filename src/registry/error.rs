//! What can go wrong with a call to a hub, by what the caller may conclude from it.
//!
//! Two questions decide everything: may the call have acted, and is it worth trying again.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use serde_json::Value;

use super::pacing::PAUSE_AFTER_THROTTLING;

/// Most characters of a hub's own message that are passed on.
const LONGEST_MESSAGE: usize = 240;

/// A call to a hub that did not succeed.
#[derive(Debug, Clone)]
pub struct HubError {
    /// Host name of the hub.
    pub hub: String,
    /// What was tried.
    pub call: Call,
    /// Device it was about.
    pub device: Option<String>,
    /// Why it failed.
    pub cause: Cause,
}

/// What was asked of the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// Read an identity.
    Read,
    /// Read a twin.
    ReadTwin,
    /// Create an identity with its twin.
    Create,
    /// Update an identity.
    Update,
    /// Delete an identity.
    Delete,
    /// List the modules of a device.
    ListModules,
    /// Read a module and its twin.
    ReadModule,
    /// Create a module with its twin.
    CreateModule,
    /// Replace tags and desired properties.
    ReplaceTwin,
    /// Merge into tags and desired properties.
    PatchTwin,
    /// Look whether the hub answers.
    Probe,
    /// Look whether the credentials may do all that is needed.
    CheckRights,
    /// List identities that carry a mark.
    Query,
}

/// Why a call failed, by what follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The call did not reach the hub: it cannot act, now or later.
    Unreachable(String),
    /// The call may have acted, or may act yet: read again before deciding.
    FateUnknown(String),
    /// The hub does not accept the credentials, or they do not grant the call.
    Unauthorized(String),
    /// The hub asks to slow down; the call did not act.
    Throttled {
        /// When to try again.
        retry_after: Duration,
    },
    /// The identity or twin is not the version that was named.
    PreconditionFailed,
    /// The hub has no such device or module.
    NotFound,
    /// The device is fenced for a move; its twin cannot be written.
    Fenced,
    /// The hub refuses for good: the same call will be refused again.
    Refused {
        /// HTTP status.
        status: u16,
        /// The hub's error code.
        code: String,
        /// The hub's message.
        message: String,
    },
}

impl Call {
    /// The name for metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::ReadTwin => "read-twin",
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::ListModules => "list-modules",
            Self::ReadModule => "read-module",
            Self::CreateModule => "create-module",
            Self::ReplaceTwin => "replace-twin",
            Self::PatchTwin => "patch-twin",
            Self::Probe => "probe",
            Self::CheckRights => "check-rights",
            Self::Query => "query",
        }
    }
}

impl HubError {
    /// Whether the call cannot have acted and never will.
    pub fn is_without_effect(&self) -> bool {
        !matches!(self.cause, Cause::FateUnknown(_))
    }
}

impl Cause {
    /// The class for metric labels.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::FateUnknown(_) => "fate-unknown",
            Self::Unauthorized(_) => "unauthorized",
            Self::Throttled { .. } => "throttled",
            Self::PreconditionFailed => "precondition-failed",
            Self::NotFound => "not-found",
            Self::Fenced => "fenced",
            Self::Refused { .. } => "refused",
        }
    }
}

impl std::error::Error for HubError {}

impl fmt::Display for HubError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hub {}: {}", self.hub, self.call)?;
        if let Some(device) = &self.device {
            write!(f, " of device {device}")?;
        }
        write!(f, ": {}", self.cause)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "reading the identity",
            Self::ReadTwin => "reading the twin",
            Self::Create => "creating the identity",
            Self::Update => "updating the identity",
            Self::Delete => "deleting the identity",
            Self::ListModules => "listing the modules",
            Self::ReadModule => "reading a module",
            Self::CreateModule => "creating a module",
            Self::ReplaceTwin => "replacing the twin",
            Self::PatchTwin => "patching the twin",
            Self::Probe => "probing",
            Self::CheckRights => "checking what the credentials grant",
            Self::Query => "listing what was left behind",
        })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(
                f,
                "the hub was not reached ({why}); check that it runs and that connection.endpoint \
                 and connection.caBundle of its IoTHub are right"
            ),
            Self::FateUnknown(why) => write!(
                f,
                "it is not known whether it took effect ({why}); the hub is read again before \
                 anything else is done"
            ),
            Self::Unauthorized(why) => write!(
                f,
                "the hub refuses the credentials ({why}); the policy in the IoTHub's Secret needs \
                 RegistryRead, RegistryWrite and ServiceConnect, and its key must be current"
            ),
            Self::Throttled { retry_after } => write!(
                f,
                "the hub asks to slow down; tried again in {} s",
                retry_after.as_secs().max(1)
            ),
            Self::PreconditionFailed => {
                f.write_str("it changed since it was read; it is read again")
            }
            Self::NotFound => f.write_str("the hub has no such device"),
            Self::Fenced => {
                f.write_str("the device is fenced for a move; the hub refuses twin writes")
            }
            Self::Refused {
                status,
                code,
                message,
            } => write!(f, "the hub refuses with {status} {code}: {message}"),
        }
    }
}

impl Cause {
    /// What a response that is not a success means.
    pub(super) fn of_response(response: &Response<Bytes>) -> Self {
        let status = response.status();
        let refusal = Refusal::read(response);
        if status == StatusCode::TOO_MANY_REQUESTS {
            return Self::Throttled {
                retry_after: retry_after(response.headers()),
            };
        }
        if refusal.code.is_empty() && !status.is_server_error() {
            return Self::not_a_hub(status);
        }
        refusal.cause(status)
    }

    /// What a failure inside the answer to a bulk call means; `code` is a name or a number.
    pub(super) fn of_bulk(code: &str, message: &str) -> Self {
        let refusal = Refusal {
            code: code.to_owned(),
            message: clean(message),
        };
        let status = code
            .get(..3)
            .and_then(|digits| digits.parse().ok())
            .and_then(|number: u16| StatusCode::from_u16(number).ok())
            .unwrap_or_else(|| status_of(code));
        if status == StatusCode::TOO_MANY_REQUESTS {
            return Self::Throttled {
                retry_after: PAUSE_AFTER_THROTTLING,
            };
        }
        refusal.cause(status)
    }

    /// A load balancer or some other server answered. Above all, its 404 does not mean that a
    /// device is gone.
    fn not_a_hub(status: StatusCode) -> Self {
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Self::Unauthorized(status.to_string())
            }
            StatusCode::REQUEST_TIMEOUT => Self::FateUnknown(status.to_string()),
            StatusCode::PRECONDITION_FAILED => Self::PreconditionFailed,
            _ => Self::Unreachable(format!(
                "what answers there with {status} does not speak the IoT Hub service API"
            )),
        }
    }
}

/// A hub's refusal: name of the code, or its number where the hub gives no name.
struct Refusal {
    code: String,
    message: String,
}

impl Refusal {
    /// Reads the header `iothub-errorcode` and both envelopes that hubs use, one inside the other.
    fn read(response: &Response<Bytes>) -> Self {
        let body: Value = serde_json::from_slice(response.body()).unwrap_or_default();
        let outer = body
            .get("Message")
            .or_else(|| body.get("message"))
            .and_then(Value::as_str)
            .unwrap_or_default();
        let inner: Value = serde_json::from_str(outer).unwrap_or_default();
        let number = [&body, &inner]
            .iter()
            .find_map(|envelope| envelope.get("errorCode").and_then(Value::as_u64));
        let code = response
            .headers()
            .get("iothub-errorcode")
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
            .or_else(|| {
                let text = outer.strip_prefix("ErrorCode:")?;
                text.split(';').next().map(str::to_owned)
            })
            .or_else(|| number.map(|number| number.to_string()))
            .unwrap_or_default();
        let message = inner
            .get("message")
            .and_then(Value::as_str)
            .unwrap_or(outer);
        Self {
            code,
            message: clean(message),
        }
    }

    fn cause(self, status: StatusCode) -> Cause {
        let Self { code, message } = self;
        let said = |code: &str| format!("{} {code}: {message}", status.as_u16());
        match status {
            StatusCode::UNAUTHORIZED => Cause::Unauthorized(said(&code)),
            StatusCode::FORBIDDEN if is_about_rights(&code) => Cause::Unauthorized(said(&code)),
            StatusCode::NOT_FOUND if is_about_absence(&code) => Cause::NotFound,
            // 404012 IotHubFailingOver and its like: this hub is not serving now.
            StatusCode::NOT_FOUND => Cause::Unreachable(said(&code)),
            StatusCode::REQUEST_TIMEOUT => Cause::FateUnknown(said(&code)),
            StatusCode::PRECONDITION_FAILED => Cause::PreconditionFailed,
            StatusCode::TOO_MANY_REQUESTS => Cause::Throttled {
                retry_after: PAUSE_AFTER_THROTTLING,
            },
            status if status.is_server_error() => Cause::FateUnknown(said(&code)),
            status => Cause::Refused {
                status: status.as_u16(),
                code,
                message,
            },
        }
    }
}

/// A hub's own word that a device, or a module of it, does not exist.
fn is_about_absence(code: &str) -> bool {
    matches!(
        code,
        "DeviceNotFound" | "404001" | "ModuleNotFound" | "404010"
    )
}

/// Entra ID answers a missing role with 403, shared access policies with 401.
fn is_about_rights(code: &str) -> bool {
    code.contains("Unauthorized") || matches!(code, "GenericForbidden" | "403000" | "Forbidden")
}

/// HTTP status of a code that a bulk answer gives by name.
fn status_of(code: &str) -> StatusCode {
    match code {
        "DeviceAlreadyExists" | "GenericConflict" | "Conflict" => StatusCode::CONFLICT,
        "DeviceNotFound" | "ModuleNotFound" => StatusCode::NOT_FOUND,
        "PreconditionFailed" | "EtagDoesNotMatch" => StatusCode::PRECONDITION_FAILED,
        "TooManyDevices" | "TooManyModulesOnDevice" | "MessageTooLarge" => {
            StatusCode::PAYLOAD_TOO_LARGE
        }
        "IotHubQuotaExceeded" | "OperationNotAvailableInCurrentTier" | "IotHubSuspended" => {
            StatusCode::FORBIDDEN
        }
        code if code.contains("Unauthorized") => StatusCode::UNAUTHORIZED,
        code if code.contains("Throttl") => StatusCode::TOO_MANY_REQUESTS,
        code if code.starts_with("Server") || code.contains("Unavailable") => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
        "GenericTimeout" | "InternalServerError" | "GenericServerError" => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
        _ => StatusCode::BAD_REQUEST,
    }
}

fn retry_after(headers: &HeaderMap) -> Duration {
    headers
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.trim().parse().ok())
        .map_or(PAUSE_AFTER_THROTTLING, |seconds: u64| {
            Duration::from_secs(seconds.min(300))
        })
}

/// One line of bounded length: it ends up in conditions and events.
fn clean(message: &str) -> String {
    message
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(LONGEST_MESSAGE)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, code: Option<&str>, body: &str) -> Response<Bytes> {
        let mut builder = Response::builder().status(status);
        if let Some(code) = code {
            builder = builder.header("iothub-errorcode", code);
        }
        builder
            .body(Bytes::copy_from_slice(body.as_bytes()))
            .unwrap()
    }

    fn cause(status: u16, code: Option<&str>, body: &str) -> Cause {
        Cause::of_response(&response(status, code, body))
    }

    #[test]
    fn only_a_hub_s_own_word_means_that_a_device_is_gone() {
        assert_eq!(cause(404, Some("DeviceNotFound"), ""), Cause::NotFound);
        assert_eq!(
            cause(404, None, r#"{"Message":"ErrorCode:DeviceNotFound;gone"}"#),
            Cause::NotFound
        );
        assert_eq!(
            cause(
                404,
                None,
                r#"{"Message":"{\"errorCode\":404001,\"message\":\"gone\"}"}"#
            ),
            Cause::NotFound
        );
        for body in [
            "",
            "<html>default backend - 404</html>",
            r#"{"message":"no route"}"#,
        ] {
            assert!(
                matches!(cause(404, None, body), Cause::Unreachable(_)),
                "{body}"
            );
        }
        let failing_over = cause(404, Some("IotHubFailingOver"), "");
        assert!(matches!(failing_over, Cause::Unreachable(_)));
    }

    #[test]
    fn every_status_has_its_class() {
        let class = |status, code| cause(status, code, "").class();
        for (status, code, expected) in [
            (401, Some("IotHubUnauthorizedAccess"), "unauthorized"),
            (403, Some("IotHubUnauthorizedAccess"), "unauthorized"),
            (403, Some("IotHubQuotaExceeded"), "refused"),
            (403, Some("OperationNotAvailableInCurrentTier"), "refused"),
            (403, None, "unauthorized"),
            (400, Some("ArgumentInvalid"), "refused"),
            (413, Some("TooManyDevices"), "refused"),
            (409, Some("GenericConflict"), "refused"),
            (408, Some("GenericTimeout"), "fate-unknown"),
            (412, Some("PreconditionFailed"), "precondition-failed"),
            (429, Some("ThrottlingException"), "throttled"),
            (429, None, "throttled"),
            (500, None, "fate-unknown"),
            (503, Some("ServerBusy"), "fate-unknown"),
            (302, None, "unreachable"),
            (404, None, "unreachable"),
        ] {
            assert_eq!(class(status, code), expected, "{status} {code:?}");
        }
    }

    #[test]
    fn bulk_failures_are_read_by_name_and_by_number() {
        for code in ["TooManyDevices", "413002"] {
            assert!(matches!(
                Cause::of_bulk(code, "full"),
                Cause::Refused { status: 413, .. }
            ));
        }
        assert!(matches!(
            Cause::of_bulk("429001", ""),
            Cause::Throttled { .. }
        ));
        assert!(matches!(
            Cause::of_bulk("IotHubUnauthorizedAccess", ""),
            Cause::Unauthorized(_)
        ));
        assert!(matches!(
            Cause::of_bulk("ServerError", ""),
            Cause::FateUnknown(_)
        ));
    }

    #[test]
    fn a_message_says_where_what_why_and_stays_short() {
        let error = HubError {
            hub: "hub-west.example.com".into(),
            call: Call::Delete,
            device: Some("press-7".into()),
            cause: cause(
                403,
                Some("IotHubQuotaExceeded"),
                &format!(r#"{{"Message":"{}\nx"}}"#, "long ".repeat(100)),
            ),
        };
        let text = error.to_string();
        assert!(text.starts_with(
            "hub hub-west.example.com: deleting the identity of device press-7: the hub refuses \
             with 403 IotHubQuotaExceeded: long"
        ));
        assert!(text.len() < 400 && !text.contains('\n'), "{text}");
    }
}
