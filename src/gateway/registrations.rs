//! Registration records: read from memory, written to the API server.
//!
//! Every call waits a bounded time and is not retried here: a device is waiting, and it asks again.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::mirror::Mirror;
use super::record::Record;
use crate::api::v1alpha1::{
    DeviceRegistration, DeviceRegistrationSpec, FINALIZER, RegistrationRequest,
};
use crate::domain::ids::RegistrationId;
use crate::domain::object_name::object_name;

/// Who writes `spec.request`, in managed fields and in the audit log.
const FIELD_MANAGER: &str = "rehome-gateway";
/// Longest time for one call to the API server.
const CALL: Duration = Duration::from_secs(5);

/// Why a record was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else was faster: look again.
    #[error("the registration was changed meanwhile")]
    Conflict,
    /// The API server cannot be reached, or is overloaded.
    #[error("the API server cannot be reached")]
    Unavailable(#[source] kube::Error),
    /// The API server says nothing.
    #[error("the API server did not answer within {0:?}")]
    Silent(Duration),
    /// The API server refuses us: rights, admission or schema.
    #[error("the API server refuses the registration")]
    Refused(#[source] kube::Error),
}

impl StoreError {
    /// What a person can act on.
    pub fn cause(&self) -> String {
        let source = std::error::Error::source(self);
        source.map_or_else(|| self.to_string(), ToString::to_string)
    }
}

/// Where registration records are.
pub trait Registrations: Send + Sync + 'static {
    /// The record as last seen; costs nothing.
    fn cached(&self, namespace: &str, id: &RegistrationId) -> Option<Arc<Record>>;

    /// How many registrations an Enrollment has, as last seen.
    fn count(&self, enrollment_uid: &str) -> u32;

    /// The record as it is.
    fn read(
        &self,
        namespace: &str,
        id: &RegistrationId,
    ) -> impl Future<Output = Result<Option<Arc<Record>>, StoreError>> + Send;

    /// Creates the record.
    fn create(
        &self,
        namespace: &str,
        id: &RegistrationId,
        request: RegistrationRequest,
    ) -> impl Future<Output = Result<Arc<Record>, StoreError>> + Send;

    /// Replaces the request of a record, if that is still the one that was looked at.
    fn update(
        &self,
        namespace: &str,
        record: &Record,
        request: RegistrationRequest,
    ) -> impl Future<Output = Result<Arc<Record>, StoreError>> + Send;

    /// Waits until `is_it` holds, at most so long, and returns the record as last seen.
    fn until(
        &self,
        namespace: &str,
        id: &RegistrationId,
        at_most: Duration,
        is_it: impl Fn(Option<&Record>) -> bool + Send + Sync,
    ) -> impl Future<Output = Option<Arc<Record>>> + Send;
}

/// Records in a Kubernetes cluster.
pub struct Cluster {
    client: Client,
    mirror: Arc<Mirror>,
}

impl Cluster {
    /// Reads from `mirror`, which somebody keeps current, and writes with `client`.
    pub fn new(client: Client, mirror: Arc<Mirror>) -> Self {
        Self { client, mirror }
    }

    fn api(&self, namespace: &str) -> Api<DeviceRegistration> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// What we wrote counts at once, before the watch brings it.
    fn learn(&self, namespace: &str, object: DeviceRegistration) -> Arc<Record> {
        let record = Arc::new(Record::from(object));
        self.mirror.apply(namespace, record.clone());
        record
    }
}

impl Registrations for Cluster {
    fn cached(&self, namespace: &str, id: &RegistrationId) -> Option<Arc<Record>> {
        self.mirror.get(namespace, &object_name(id))
    }

    fn count(&self, enrollment_uid: &str) -> u32 {
        self.mirror.count(enrollment_uid)
    }

    async fn read(
        &self,
        namespace: &str,
        id: &RegistrationId,
    ) -> Result<Option<Arc<Record>>, StoreError> {
        let object = call(self.api(namespace).get_opt(&object_name(id))).await?;
        Ok(object.map(|object| self.learn(namespace, object)))
    }

    async fn create(
        &self,
        namespace: &str,
        id: &RegistrationId,
        request: RegistrationRequest,
    ) -> Result<Arc<Record>, StoreError> {
        let object = DeviceRegistration {
            metadata: ObjectMeta {
                name: Some(object_name(id)),
                // In the create: no moment exists in which the record could go and leave a device.
                finalizers: Some(vec![FINALIZER.to_owned()]),
                ..ObjectMeta::default()
            },
            spec: DeviceRegistrationSpec {
                registration_id: id.as_str().to_owned(),
                request: Some(request),
                reprovision: None,
                deletion_policy: None,
            },
            status: None,
        };
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let created = call(self.api(namespace).create(&params, &object)).await?;
        Ok(self.learn(namespace, created))
    }

    async fn update(
        &self,
        namespace: &str,
        record: &Record,
        request: RegistrationRequest,
    ) -> Result<Arc<Record>, StoreError> {
        let patch = Patch::Merge(json!({
            "metadata": { "resourceVersion": record.resource_version, "uid": record.uid },
            "spec": { "request": replacement(&request) },
        }));
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let api = self.api(namespace);
        let updated = call(api.patch(&record.name, &params, &patch)).await?;
        Ok(self.learn(namespace, updated))
    }

    async fn until(
        &self,
        namespace: &str,
        id: &RegistrationId,
        at_most: Duration,
        is_it: impl Fn(Option<&Record>) -> bool + Send + Sync,
    ) -> Option<Arc<Record>> {
        let name = object_name(id);
        match timeout(at_most, self.mirror.until(namespace, &name, is_it)).await {
            Ok(record) => record,
            Err(_) => self.mirror.get(namespace, &name),
        }
    }
}

/// The request as a merge patch that leaves nothing of the one before.
fn replacement(request: &RegistrationRequest) -> Value {
    // Destructured, so that a new optional member cannot be forgotten here.
    let RegistrationRequest {
        operation_id: _,
        api_version: _,
        enrollment: _,
        credential: _,
        proposed_hub: _,
        reason: _,
        payload_digest: _,
        storage_root_key: _,
        verify_home: _,
        traceparent: _,
        requested_at: _,
    } = request;
    let mut patch = json!({
        "proposedHub": null, "payloadDigest": null, "storageRootKey": null, "verifyHome": null,
        "traceparent": null,
    });
    if let (Some(all), Ok(Value::Object(set))) =
        (patch.as_object_mut(), serde_json::to_value(request))
    {
        all.extend(set);
    }
    patch
}

async fn call<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, StoreError> {
    match timeout(CALL, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(classify(error)),
        Err(_) => Err(StoreError::Silent(CALL)),
    }
}

fn classify(error: kube::Error) -> StoreError {
    let kube::Error::Api(status) = &error else {
        return StoreError::Unavailable(error);
    };
    match status.code {
        // Of an update: gone, or made again, since it was looked at.
        404 | 409 => StoreError::Conflict,
        400 | 403 | 405 | 413 | 415 | 422 => StoreError::Refused(error),
        _ => StoreError::Unavailable(error),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    use super::*;
    use crate::api::v1alpha1::EnrollmentRef;

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_says_nothing_is_a_cause_that_can_be_told() {
        let never = std::future::pending::<Result<(), kube::Error>>();
        let error = call(never).await.unwrap_err();
        assert_eq!(error.cause(), "the API server did not answer within 5s");
        let broken = kube::Error::LinesCodecMaxLineLengthExceeded;
        let said = broken.to_string();
        assert_eq!(StoreError::Unavailable(broken).cause(), said);
    }

    #[test]
    fn an_update_leaves_nothing_of_the_request_before() {
        let request = RegistrationRequest {
            operation_id: "o".into(),
            api_version: "2019-03-31".into(),
            enrollment: EnrollmentRef {
                name: "e".into(),
                uid: "u".into(),
            },
            credential: "c".into(),
            proposed_hub: None,
            reason: "MigrateData".into(),
            payload_digest: None,
            storage_root_key: None,
            verify_home: false,
            traceparent: None,
            requested_at: MicroTime(Timestamp::UNIX_EPOCH),
        };
        let patch = replacement(&request);
        for absent in [
            "proposedHub",
            "payloadDigest",
            "storageRootKey",
            "verifyHome",
            "traceparent",
        ] {
            assert_eq!(patch.get(absent), Some(&Value::Null), "{absent}");
        }
        assert_eq!(patch["operationId"], "o");
        let full = RegistrationRequest {
            proposed_hub: Some("h".into()),
            payload_digest: Some("d".into()),
            verify_home: true,
            ..request
        };
        let patch = replacement(&full);
        assert_eq!(
            (&patch["proposedHub"], &patch["verifyHome"]),
            (&"h".into(), &true.into())
        );
    }
}
