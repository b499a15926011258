//! What can go wrong with a device's request, and how each protocol says it. One table: a front end
//! renders [`Problem`]s and invents none.
//!
//! Numbers follow the Azure device API: error code = HTTP status × 1000 + n, and some SDKs divide it
//! again. Where the service's own number is not public, ours is marked.

use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::render::timestamp;
use crate::wire::incidents::Incident;

/// Seconds after which a device is told to ask again. Every SDK honours values from 2 to 5.
pub const RETRY_AFTER: u32 = 3;

/// Why a request is not answered with a registration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The request itself is wrong; the text is for the device's developer.
    #[error("{0}")]
    BadRequest(String),
    /// No token, or one that is malformed, expired or for something else.
    #[error("{0}")]
    Unauthorized(&'static str),
    /// The token is signed with a key that the enrollment does not know.
    #[error(
        "the signature does not match the enrollment's keys; check the device's key and, for a group, \
         that it was derived from the registration id as the device spells it"
    )]
    WrongKey,
    /// No such ID scope, or nothing in it that enrolls this device.
    #[error(
        "no enrollment of this ID scope covers the device; check the ID scope and the enrollment"
    )]
    NotEnrolled,
    /// Nothing is registered under this id.
    #[error("the device is not registered; register it first")]
    NotRegistered,
    /// The operation id is unknown, or older than 24 hours.
    #[error("the operation is unknown or long over; register again")]
    UnknownOperation,
    /// The path leads nowhere.
    #[error(
        "there is nothing at this path; the registration API is at /{{idScope}}/registrations/…"
    )]
    UnknownPath,
    /// The path exists, the method does not.
    #[error("this path does not support the method")]
    MethodNotAllowed,
    /// The body exceeds the limit.
    #[error("the request is larger than {0} bytes")]
    TooLarge(usize),
    /// The Enrollment has as many registrations as it may.
    #[error("the enrollment group has reached its maxRegistrations; ask its operator")]
    QuotaExceeded,
    /// The device, or its address, asks too often.
    #[error("too many requests; ask again after the time in retry-after")]
    Throttled,
    /// Something we need does not answer.
    #[error("the service cannot answer now; ask again after the time in retry-after")]
    Unavailable,
    /// Something is broken on our side; the log says what.
    #[error("the service failed; its log says more under this trackingId")]
    Internal,
}

impl Problem {
    /// The number in the body.
    pub fn code(&self) -> u32 {
        match self {
            Self::BadRequest(_) => 400_001, // ours
            Self::WrongKey => 401_000,
            Self::Unauthorized(_) => 401_002,
            Self::QuotaExceeded => 403_001, // ours
            Self::UnknownPath => 404_000,   // ours
            Self::NotEnrolled | Self::NotRegistered => 404_201,
            Self::UnknownOperation => 404_204, // ours
            Self::MethodNotAllowed => 405_000, // ours
            Self::TooLarge(_) => 413_001,      // ours
            Self::Throttled => 429_001,        // ours
            Self::Internal => 500_000,
            Self::Unavailable => 503_000, // ours
        }
    }

    /// The HTTP status, which MQTT puts into the topic.
    pub fn status(&self) -> StatusCode {
        let status = u16::try_from(self.code() / 1000).unwrap_or(500);
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The condition of an AMQP error. Node maps these to its kinds of errors, and repeats a request
    /// for two of them: the throttled and the internal.
    pub fn condition(&self) -> &'static str {
        match self {
            Self::BadRequest(_)
            | Self::UnknownPath
            | Self::MethodNotAllowed
            | Self::TooLarge(_) => "com.microsoft:argument-error",
            Self::Unauthorized(_) | Self::WrongKey => "amqp:unauthorized-access",
            Self::NotEnrolled | Self::NotRegistered | Self::UnknownOperation => "amqp:not-found",
            Self::QuotaExceeded => "amqp:resource-limit-exceeded",
            Self::Throttled => "com.microsoft:device-container-throttled",
            Self::Unavailable | Self::Internal => "amqp:internal-error",
        }
    }

    /// Seconds after which the same request may succeed; none when it never will.
    pub fn retry_after(&self) -> Option<u32> {
        match self {
            Self::Throttled | Self::Unavailable | Self::Internal => Some(RETRY_AFTER),
            Self::BadRequest(_)
            | Self::Unauthorized(_)
            | Self::WrongKey
            | Self::NotEnrolled
            | Self::NotRegistered
            | Self::UnknownOperation
            | Self::UnknownPath
            | Self::MethodNotAllowed
            | Self::TooLarge(_)
            | Self::QuotaExceeded => None,
        }
    }

    /// The word in metrics and logs.
    pub fn label(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad_request",
            Self::Unauthorized(_) => "unauthorized",
            Self::WrongKey => "wrong_key",
            Self::NotEnrolled => "not_enrolled",
            Self::NotRegistered => "not_registered",
            Self::UnknownOperation => "unknown_operation",
            Self::UnknownPath => "unknown_path",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::TooLarge(_) => "too_large",
            Self::QuotaExceeded => "quota_exceeded",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }

    /// What to count it as besides, when nothing else does. Wrong keys count where clients do.
    pub fn incident(&self) -> Option<Incident> {
        match self {
            Self::BadRequest(_) => Some(Incident::Malformed),
            Self::QuotaExceeded => Some(Incident::TooManyRegistrations),
            Self::Unauthorized(_)
            | Self::WrongKey
            | Self::NotEnrolled
            | Self::NotRegistered
            | Self::UnknownOperation
            | Self::UnknownPath
            | Self::MethodNotAllowed
            | Self::TooLarge(_)
            | Self::Throttled
            | Self::Unavailable
            | Self::Internal => None,
        }
    }

    /// The body, `ProvisioningServiceErrorDetails` of the device API. Holds neither `operationId`
    /// nor `status`: the Java SDK reads only the body and would take it for an answer.
    pub fn body(&self, tracking_id: &str, now: Timestamp) -> Value {
        json!({
            "errorCode": self.code(),
            "trackingId": tracking_id,
            "message": self.to_string(),
            "timestampUtc": timestamp(now),
        })
    }

    /// One of each, for the tests of the front ends.
    pub fn every() -> Vec<Self> {
        vec![
            Self::BadRequest("the body is not JSON".to_owned()),
            Self::Unauthorized("the token has expired"),
            Self::WrongKey,
            Self::NotEnrolled,
            Self::NotRegistered,
            Self::UnknownOperation,
            Self::UnknownPath,
            Self::MethodNotAllowed,
            Self::TooLarge(96 * 1024),
            Self::QuotaExceeded,
            Self::Throttled,
            Self::Unavailable,
            Self::Internal,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_give_their_status_and_labels_are_distinct() {
        let mut labels = std::collections::HashSet::new();
        for problem in Problem::every() {
            assert!(problem.status().is_client_error() || problem.status().is_server_error());
            assert_eq!(problem.code() / 1000, u32::from(problem.status().as_u16()));
            let transient = problem.status() == 429 || problem.status().is_server_error();
            assert_eq!(problem.retry_after().is_some(), transient, "{problem:?}");
            assert!(labels.insert(problem.label()), "{problem:?}");
        }
    }
}
