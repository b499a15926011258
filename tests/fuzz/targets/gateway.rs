//! The gateway that the protocol targets speak to: the real service with one enrollment, and a store
//! that panics when anything reaches it that nobody with a key can have asked for.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use rehome::api::v1alpha1::{
    ATTESTATION_LABEL, DeviceRegistration, Enrollment, RegistrationRequest,
};
use rehome::clock::Clock;
use rehome::domain::ids::RegistrationId;
use rehome::gateway::limits::{Rate, RequestLimits};
use rehome::gateway::metrics::Metrics;
use rehome::gateway::record::Record;
use rehome::gateway::registrations::{Registrations, StoreError};
use rehome::gateway::service::{Service, Settings};
use rehome::gateway::tenants::{Enrolled, Tenants};
use rehome::wire::tls::Peer;
use serde_json::json;

/// As in the seeds.
pub(super) const SCOPE: &str = "0ne000TEST1";
/// The group's key, 32 × 0x5a, with which the tokens in the seeds are signed.
pub(super) const KEY: &str = "WlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlo=";
/// The only device whose tokens are in the seeds.
const DEVICE: &str = "device-001";
const NAMESPACE: &str = "plant";

/// A service that has served nobody yet: an input must not depend on the inputs before it. What is
/// enrolled is the same for all.
pub(super) fn service() -> Arc<Service<Guarded>> {
    static TENANTS: LazyLock<Arc<Tenants>> = LazyLock::new(tenants);
    static CLOCK: LazyLock<Arc<Stopped>> = LazyLock::new(|| Arc::new(Stopped));
    static METRICS: LazyLock<Arc<Metrics>> =
        LazyLock::new(|| Arc::new(Metrics::new(CLOCK.clone())));
    let often = Rate {
        burst: u32::MAX,
        per_ten_seconds: u32::MAX,
    };
    let settings = Settings {
        limits: RequestLimits {
            register: often,
            poll: often,
            poll_unpaced: often,
            failures: often,
            tracked: 4,
        },
        ..Settings::default()
    };
    let (clock, random) = (CLOCK.clone(), || 7);
    let tenants = TENANTS.clone();
    Arc::new(Service::new(
        tenants,
        Guarded,
        clock,
        random,
        settings,
        METRICS.clone(),
    ))
}

/// A client without a certificate.
pub(super) fn peer() -> Peer {
    Peer {
        address: ([192, 0, 2, 1], 40_000).into(),
        certificates: Arc::default(),
        server_name: None,
    }
}

fn tenants() -> Arc<Tenants> {
    let tenants = Arc::new(Tenants::default());
    let scope = SCOPE.parse().expect("a scope");
    tenants.update_scopes(|scopes| scopes.fix([(NAMESPACE.to_owned(), Some(scope))]));
    let enrollment: Enrollment = serde_json::from_value(json!({
        "apiVersion": "rehome.dev/v1alpha1",
        "kind": "Enrollment",
        "metadata": { "name": "line-3", "namespace": NAMESPACE, "uid": "uid-line-3" },
        "spec": {
            "group": {},
            "attestation": { "symmetricKey": { "secretRef": { "name": "keys" } } },
        },
    }))
    .expect("an Enrollment");
    tenants.apply_enrollment(Enrolled::new(&enrollment).expect("it is complete"));
    let key = |name: &str| (name.to_owned(), ByteString(KEY.as_bytes().to_vec()));
    let mut secret = Secret {
        data: Some(BTreeMap::from([key("primaryKey"), key("secondaryKey")])),
        ..Secret::default()
    };
    secret.metadata.labels = Some([(ATTESTATION_LABEL.to_owned(), "true".to_owned())].into());
    tenants.set_secret(NAMESPACE, "keys", Some(secret));
    tenants
}

/// The middle of the validity of the tokens in the seeds.
struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(1_800_000_000).expect("a time")
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(1000)
    }
}

thread_local! {
    /// How often the device with a token came as far as the store, on this thread.
    pub(super) static CREATED: Cell<usize> = const { Cell::new(0) };
}

/// Records of nobody. Whoever asks for one has proved to be the one device with a token.
pub(super) struct Guarded;

impl Guarded {
    fn guard(namespace: &str, id: &RegistrationId) {
        assert_eq!(namespace, NAMESPACE);
        assert_eq!(
            id.canonical(),
            DEVICE,
            "reached the API server without a key"
        );
    }
}

impl Registrations for Guarded {
    fn cached(&self, namespace: &str, id: &RegistrationId) -> Option<Arc<Record>> {
        Self::guard(namespace, id);
        None
    }

    fn count(&self, _: &str) -> u32 {
        0
    }

    async fn read(
        &self,
        namespace: &str,
        id: &RegistrationId,
    ) -> Result<Option<Arc<Record>>, StoreError> {
        Self::guard(namespace, id);
        Ok(None)
    }

    async fn create(
        &self,
        namespace: &str,
        id: &RegistrationId,
        request: RegistrationRequest,
    ) -> Result<Arc<Record>, StoreError> {
        Self::guard(namespace, id);
        CREATED.set(CREATED.get() + 1);
        let object: DeviceRegistration = serde_json::from_value(json!({
            "apiVersion": "rehome.dev/v1alpha1",
            "kind": "DeviceRegistration",
            "metadata": { "name": DEVICE, "namespace": namespace, "resourceVersion": "1" },
            "spec": { "registrationId": id.as_str(), "request": request },
        }))
        .expect("a registration");
        Ok(Arc::new(Record::from(object)))
    }

    async fn update(
        &self,
        namespace: &str,
        _: &Record,
        _: RegistrationRequest,
    ) -> Result<Arc<Record>, StoreError> {
        unreachable!("there are no records in {namespace}")
    }

    async fn until(
        &self,
        namespace: &str,
        id: &RegistrationId,
        at_most: Duration,
        _: impl Fn(Option<&Record>) -> bool + Send + Sync,
    ) -> Option<Arc<Record>> {
        Self::guard(namespace, id);
        tokio::time::sleep(at_most).await;
        None
    }
}
