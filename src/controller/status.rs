//! How hubs and Enrollments report: conditions that change only when there is something to say.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::Resource;
use kube::runtime::controller::Action;

use super::context::Context;
use crate::api::v1alpha1::{ConditionType, Reason};
use crate::cluster::apply::{ApplyError, Class};

/// How long the watch is given to show a change that a write ran into.
const CAUGHT_UP: Duration = Duration::from_millis(200);

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

/// When to come back after a pass failed.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the signature that the controller runtime asks for"
)]
pub(super) fn retry<K: Resource<DynamicType = ()>>(
    object: Arc<K>,
    error: &Error,
    ctx: Arc<Context>,
) -> Action {
    let kind = K::kind(&());
    let class = error.class();
    ctx.metrics.failed(controller(&kind), class.as_str());
    match class {
        Class::Gone => Action::await_change(),
        // The watch is about to show what we have not seen.
        Class::Conflict => Action::requeue(CAUGHT_UP),
        Class::Transient | Class::Throttled | Class::Invalid => {
            let source = std::error::Error::source(error).map(ToString::to_string);
            tracing::warn!(%kind, %error, source, "a pass failed; it is tried again");
            Action::requeue(
                ctx.backoff
                    .next(&object.meta().uid.clone().unwrap_or_default()),
            )
        }
    }
}

/// Metric labels are fixed words.
fn controller(kind: &str) -> &'static str {
    match kind {
        "IoTHub" => "hub",
        "Enrollment" => "enrollment",
        _ => "registration",
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
