//! How hubs and Enrollments report: conditions that change only when there is something to say.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::api::v1alpha1::{ConditionType, Reason};
use crate::cluster::apply::{ApplyError, Class};

/// A pass over a hub or an Enrollment that could not be finished.
#[derive(Debug, thiserror::Error)]
#[error("{what} of {object} failed")]
pub struct Error {
    what: &'static str,
    object: String,
    #[source]
    source: ApplyError,
}

impl Error {
    pub(super) fn new(what: &'static str, object: &str, source: impl Into<ApplyError>) -> Self {
        Self {
            what,
            object: object.to_owned(),
            source: source.into(),
        }
    }

    /// What follows from it.
    pub fn class(&self) -> Class {
        self.source.class()
    }
}

/// What stands in a condition: `None` for unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) holds: Option<bool>,
    pub(super) reason: Reason,
    pub(super) message: String,
}

impl Verdict {
    pub(super) fn yes(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(Some(true), reason, message)
    }

    pub(super) fn no(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(Some(false), reason, message)
    }

    pub(super) fn unknown(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(None, reason, message)
    }

    fn new(holds: Option<bool>, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            holds,
            reason,
            message: message.into(),
        }
    }

    pub(super) fn condition(
        &self,
        type_: ConditionType,
        generation: Option<i64>,
        now: jiff::Timestamp,
    ) -> Condition {
        Condition {
            type_: type_.as_str().to_owned(),
            status: match self.holds {
                Some(true) => "True",
                Some(false) => "False",
                None => "Unknown",
            }
            .to_owned(),
            reason: self.reason.as_str().to_owned(),
            message: self.message.clone(),
            observed_generation: generation,
            last_transition_time: Time(now),
        }
    }
}
