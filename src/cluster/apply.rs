//! Writes to the API server: guarded by resourceVersion, bounded in time, classified on failure.

use std::fmt::Debug;
use std::time::Duration;

use kube::api::{Api, Patch, PatchParams};
use kube::{Resource, error::Error as KubeError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::timeout;

/// Field manager of everything that the controller writes.
pub const CONTROLLER: &str = "rehome-controller";
/// Longest that one write may take.
const WRITE_BUDGET: Duration = Duration::from_secs(10);

/// What follows from a failed request to the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The object is not the version that was seen: look again, decide again.
    Conflict,
    /// The object is gone.
    Gone,
    /// It may work later; a write may even have happened.
    Transient,
    /// The API server asks to slow down.
    Throttled,
    /// The request itself is refused: it will be refused again.
    Invalid,
}

/// A request to the API server that failed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The API server or the way to it failed.
    #[error("the API server did not accept it")]
    Api(#[source] Box<KubeError>),
    /// Another object has the name now.
    #[error("the object was deleted and its name taken by another")]
    Replaced,
    /// No answer in time; the write may have happened.
    #[error("the API server did not answer within {} s", WRITE_BUDGET.as_secs())]
    Timeout,
}

impl ApplyError {
    /// What follows from it.
    pub fn class(&self) -> Class {
        match self {
            Self::Api(error) => class_of(error),
            Self::Replaced => Class::Gone,
            Self::Timeout => Class::Transient,
        }
    }

    /// What the API server says, where it refuses the request as it is: a rule, a quota or a right
    /// is against it.
    pub fn refusal(&self) -> Option<&str> {
        match self {
            Self::Api(error) => {
                let KubeError::Api(status) = &**error else {
                    return None;
                };
                let is_refusal = [400, 403, 405, 413, 422].contains(&status.code);
                is_refusal.then_some(status.message.as_str())
            }
            Self::Replaced | Self::Timeout => None,
        }
    }
}

impl From<KubeError> for ApplyError {
    fn from(error: KubeError) -> Self {
        Self::Api(Box::new(error))
    }
}

impl Class {
    /// The label for metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Gone => "gone",
            Self::Transient => "transient",
            Self::Throttled => "throttled",
            Self::Invalid => "invalid",
        }
    }
}

/// What follows from an error of the API server.
pub fn class_of(error: &KubeError) -> Class {
    let KubeError::Api(status) = error else {
        return Class::Transient;
    };
    match status.code {
        409 => Class::Conflict,
        404 | 410 => Class::Gone,
        429 => Class::Throttled,
        400 | 405 | 413 | 415 | 422 => Class::Invalid,
        // 401 and 403 too: credentials and rights come back without a change of ours.
        _ => Class::Transient,
    }
}

/// Writes the whole status, if the object still is the version that was seen.
///
/// Every field that the controller owns must be in `status`: what is left out is given up.
pub async fn apply_status<K>(
    api: &Api<K>,
    name: &str,
    seen: &str,
    status: &(impl Serialize + Sync),
) -> Result<K, ApplyError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let patch = Patch::Apply(json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": { "resourceVersion": seen },
        "status": status,
    }));
    let params = PatchParams::apply(CONTROLLER).force();
    bounded(api.patch_status(name, &params, &patch)).await
}

/// Runs a write within its budget.
pub async fn bounded<T>(
    write: impl Future<Output = Result<T, KubeError>>,
) -> Result<T, ApplyError> {
    match timeout(WRITE_BUDGET, write).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(ApplyError::Timeout),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn every_answer_has_its_class() {
        let class = |code| {
            class_of(&KubeError::Api(Box::new(Status {
                code,
                ..Status::default()
            })))
        };
        for (code, expected) in [
            (409, Class::Conflict),
            (404, Class::Gone),
            (410, Class::Gone),
            (429, Class::Throttled),
            (422, Class::Invalid),
            (400, Class::Invalid),
            (403, Class::Transient),
            (500, Class::Transient),
            (503, Class::Transient),
        ] {
            assert_eq!(class(code), expected, "{code}");
        }
    }
}
