//! The sweep, round by round, with the clock in our hands: real API server, real hub in process.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use kube::Api;
use rehome::api::v1alpha1::{
    DeviceRegistration, DeviceRegistrationStatus, FINALIZER, HubRef, IoTHub, RegistrationState,
};
use rehome::clock::{Clock, SystemClock};
use rehome::cluster::apply::apply_status;
use rehome::cluster::connect::Clients;
use rehome::cluster::finalizer;
use rehome::cluster::watch::Scope;
use rehome::controller::context::{Context, Parts};
use rehome::controller::hub::{self, Hosting};
use rehome::controller::hub_clients::TransportFactory;
use rehome::controller::sweep::Sweep;
use rehome::controller::triggers::Triggers;
use rehome::domain::attestation::{DeviceCredential, DeviceKeys};
use rehome::domain::identity::{Credential, Mark, NewIdentity};
use rehome::domain::twin::{Content, Metadata};
use rehome::hub::Hub;
use rehome::hub::rest::{Policies, router};
use rehome::random::SystemRandom;
use rehome::registry::{HubClient, Route, Transport, TransportError, TransportSetupError};
use rehome_testing::{Cluster, Namespace, Operator, expect, expect_ok};
use serde_json::{Value, json};

use super::world::{PATIENCE, POLICY_KEY, PRIMARY, SECONDARY};

/// The wall clock as it is, and a monotonic clock that tests move on.
struct TestClock {
    wall: SystemClock,
    seconds: AtomicU64,
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        self.wall.now()
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.seconds.load(Ordering::Relaxed))
    }
}

/// A hub without a network in between.
struct InProcess(Arc<Hub>);

impl Transport for InProcess {
    fn send(
        &self,
        request: Request<Bytes>,
    ) -> BoxFuture<'_, Result<Response<Bytes>, TransportError>> {
        let router = router(self.0.clone());
        async move {
            let broken = |error: axum::Error| TransportError::Broken(error.to_string());
            let response = tower::ServiceExt::oneshot(router, request.map(Body::from)).await;
            let (parts, body) = response.unwrap_or_else(|never| match never {}).into_parts();
            let body = body.collect().await.map_err(broken)?.to_bytes();
            Ok(Response::from_parts(parts, body))
        }
        .boxed()
    }
}

struct OneHub(Mutex<Arc<Hub>>);

impl TransportFactory for OneHub {
    fn transport(
        &self,
        _: &IoTHub,
        _: &Route,
        _: Duration,
    ) -> Result<Arc<dyn Transport>, TransportSetupError> {
        Ok(Arc::new(InProcess(self.0.lock().unwrap().clone())))
    }
}

struct World {
    operator: Operator,
    namespace: Namespace,
    clock: Arc<TestClock>,
    ctx: Arc<Context>,
    client: HubClient,
    hub: HubRef,
    watches: tokio::task::JoinHandle<()>,
}

impl World {
    async fn new() -> Self {
        let cluster = Cluster::shared().await.unwrap();
        let operator = cluster.install_operator().await.unwrap();
        let namespace = cluster.namespace("sweep").await.unwrap();
        let host = format!("west-{}.test", namespace.name());
        let clock = Arc::new(TestClock {
            wall: SystemClock::start(),
            seconds: AtomicU64::new(1_000_000),
        });
        let policies = json!({"policies": [{"name": "operator", "primaryKey": POLICY_KEY,
            "secondaryKey": POLICY_KEY,
            "permissions": ["RegistryRead", "RegistryWrite", "ServiceConnect"]}]});
        let policies = Policies::parse(&policies.to_string()).unwrap();
        let random = Arc::new(|bytes: &mut [u8]| aws_lc_rs::rand::fill(bytes).unwrap());
        let hub = Hub::in_memory(&host, policies, clock.clone(), random);
        let text =
            format!("HostName={host};SharedAccessKeyName=operator;SharedAccessKey={POLICY_KEY}");
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "west"},
            "stringData": {"connectionString": text}});
        let object = json!({"apiVersion": "rehome.dev/v1alpha1", "kind": "IoTHub",
            "metadata": {"name": "west"}, "spec": {"hostName": host,
                "connection": {"connectionStringSecretRef": {"name": "west"}}}});
        for object in [secret, object] {
            namespace.apply(&object.to_string()).await.unwrap();
        }
        let controller = operator.controller.client.clone();
        let parts = Parts {
            clients: Clients {
                watches: controller.clone(),
                requests: controller,
            },
            scope: Scope::of(vec![namespace.name().to_owned()]),
            clock: clock.clone(),
            random: Arc::new(SystemRandom),
            transports: Arc::new(OneHub(Mutex::new(hub))),
            call_timeout: Duration::from_secs(20),
            hosting: Hosting::default(),
            instance: "test".into(),
        };
        let (ctx, watches, _events) = Context::new(parts, Triggers::new().0);
        let watches = tokio::spawn(watches.run());
        ctx.synced().await;
        // One pass puts the finalizer on, another says that the hub is Ready.
        expect_ok("a hub that is Ready", PATIENCE, async || {
            let hub = ctx.hub(namespace.name(), "west").unwrap();
            let _ = hub::reconcile(hub.clone(), ctx.clone()).await;
            let conditions = hub.status.clone().unwrap_or_default().conditions;
            let ready = conditions
                .iter()
                .any(|known| known.type_ == "Ready" && known.status == "True");
            if ready { Ok(()) } else { Err(conditions) }
        })
        .await;
        let hub = HubRef::of(&ctx.hub(namespace.name(), "west").unwrap());
        Self {
            client: ctx.hub_client(namespace.name(), &hub).unwrap(),
            operator,
            namespace,
            clock,
            ctx,
            hub,
            watches,
        }
    }

    /// A registration as the gateway makes it, seen by the watch; its uid.
    async fn register(&self, name: &str) -> String {
        let client = self.operator.gateway.client.clone();
        let api: Api<DeviceRegistration> = Api::namespaced(client, self.namespace.name());
        let request = json!({"operationId": format!("5.{name}"), "apiVersion": "2021-06-01",
            "enrollment": {"name": "line", "uid": "uid-line"}, "credential": "c",
            "reason": "InitialAssignment", "requestedAt": "2026-11-23T06:20:33.000000Z"});
        let object: Value = json!({
            "apiVersion": "rehome.dev/v1alpha1", "kind": "DeviceRegistration",
            "metadata": {"name": name, "finalizers": [FINALIZER]},
            "spec": {"registrationId": name, "request": request}});
        let object = serde_json::from_value(object).unwrap();
        let made = api
            .create(&kube::api::PostParams::default(), &object)
            .await
            .unwrap();
        let uid = made.metadata.uid.unwrap();
        self.seen(&uid, true).await;
        uid
    }

    async fn seen(&self, uid: &str, registered: bool) {
        expect("what the watch shows", PATIENCE, async || {
            (self.ctx.index.is_registered(uid) == registered).then_some(())
        })
        .await;
    }

    /// A disabled identity with the mark of that registration.
    async fn leave(&self, device: &str, registration: &str) {
        let new = NewIdentity {
            device_id: device.into(),
            mark: Mark::new(registration, "transfer"),
            credential: Credential::Attested(DeviceCredential::Keys(DeviceKeys {
                primary: PRIMARY.parse().unwrap(),
                secondary: SECONDARY.parse().unwrap(),
            })),
            edge: false,
            content: Content::default(),
            versions: None,
            metadata: Metadata::default(),
        };
        self.client.create(&new).await.unwrap();
    }

    async fn is_there(&self, device: &str) -> bool {
        self.client.read(device).await.unwrap().is_some()
    }

    /// Gives a registration its home at the hub, as the controller would.
    async fn settle(&self, name: &str, device: &str) {
        let client = self.operator.controller.client.clone();
        let api: Api<DeviceRegistration> = Api::namespaced(client, self.namespace.name());
        let seen = api
            .get(name)
            .await
            .unwrap()
            .metadata
            .resource_version
            .unwrap();
        let status = DeviceRegistrationStatus {
            state: Some(RegistrationState::Assigned),
            home: Some(self.hub.clone()),
            device_id: Some(device.to_owned()),
            ..DeviceRegistrationStatus::default()
        };
        apply_status(&api, name, &seen, &status).await.unwrap();
    }
}

#[tokio::test]
async fn a_leftover_goes_only_when_it_is_old_and_surely_ours() {
    let world = World::new().await;
    let departed = world.register("departed").await;
    let elsewhere = world.register("elsewhere").await;
    let waiting = world.register("waiting").await;
    world.leave("of-departed", &departed).await;
    world.leave("of-waiting", &waiting).await;
    world
        .leave("of-another-cluster", "11111111-2222-3333-4444-555555555555")
        .await;
    let home = HubRef {
        uid: "some-other-hub".into(),
        ..world.hub.clone()
    };
    let here = World { hub: home, ..world };
    here.settle("elsewhere", "press").await;
    here.leave("of-elsewhere", &elsewhere).await;
    let api: Api<DeviceRegistration> = here.namespace.api();
    api.delete("departed", &kube::api::DeleteParams::default())
        .await
        .unwrap();
    let controller = here.operator.controller.client.clone();
    let api: Api<DeviceRegistration> = Api::namespaced(controller, here.namespace.name());
    let going = api.get("departed").await.unwrap();
    finalizer::remove(&api, &going).await.unwrap();
    here.seen(&departed, false).await;

    let mut sweep = Sweep::default();
    sweep.round(&here.ctx).await;
    assert!(here.is_there("of-departed").await, "too young");
    here.clock.seconds.fetch_add(16 * 60, Ordering::Relaxed);
    sweep.round(&here.ctx).await;
    assert!(!here.is_there("of-departed").await);
    assert!(!here.is_there("of-elsewhere").await);
    assert!(
        here.is_there("of-waiting").await,
        "its registration has no home yet"
    );
    assert!(
        here.is_there("of-another-cluster").await,
        "nobody here ever knew it"
    );
    here.watches.abort();
}

#[tokio::test]
async fn a_home_that_vanished_is_looked_into() {
    let world = World::new().await;
    let gone = world.register("gone").await;
    let there = world.register("there").await;
    world.leave("is-there", &there).await;
    world.settle("gone", "is-gone").await;
    world.settle("there", "is-there").await;
    expect("both homes", PATIENCE, async || {
        (world.ctx.index.homes(&world.hub.uid) == 2).then_some(())
    })
    .await;
    Sweep::default().round(&world.ctx).await;
    assert!(world.ctx.home_checks.is_wanted(&gone));
    assert!(!world.ctx.home_checks.is_wanted(&there));
    world.watches.abort();
}
