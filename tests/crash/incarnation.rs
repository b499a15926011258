//! One life of the controller: the production context with a memory of its own, over the stores
//! that real watches fill.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client, Resource, ResourceExt as _};
use rehome::api::v1alpha1::{DeviceRegistration, Enrollment, IoTHub};
use rehome::clock::SystemClock;
use rehome::cluster::connect::Clients;
use rehome::cluster::watch::Scope;
use rehome::controller::context::{Context, Life, Parts};
use rehome::controller::hub::{Access, Hosting};
use rehome::controller::hub_clients::{NetworkTransports, TransportFactory};
use rehome::controller::triggers::Triggers;
use rehome::random::SystemRandom;
use rehome::registry::{Route, Transport, TransportSetupError};
use rehome_testing::expect_ok;
use tokio::task::JoinHandle;

use crate::wire::{self, Actor};
use crate::world::World;

/// How long one call may take, and how long it may take to act.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(10);
pub(crate) const CALL_LIFE: Duration = Duration::from_secs(15);

/// Longest time for a watch to show what the API server holds.
const WATCH_LAG: Duration = Duration::from_secs(20);

/// What the watches show, to all lives of all plans.
pub(crate) struct Caches {
    context: Arc<Context>,
    hubs: Vec<(IoTHub, Access)>,
    work: Vec<JoinHandle<()>>,
}

impl Caches {
    pub(crate) async fn fill(client: &Client, namespace: &str) -> Result<Self> {
        let clients = Clients {
            watches: client.clone(),
            requests: client.clone(),
        };
        let parts = Parts {
            clients,
            scope: Scope::Namespaces(vec![namespace.to_owned()]),
            clock: Arc::new(SystemClock::start()),
            random: Arc::new(SystemRandom),
            transports: Arc::new(NetworkTransports),
            call_timeout: CALL_TIMEOUT,
            hosting: Hosting::default(),
            instance: "crash".into(),
        };
        let (triggers, _) = Triggers::new();
        let (context, watches, events) = Context::new(parts, triggers);
        assert_eq!(context.call_life(), CALL_LIFE);
        let work = vec![tokio::spawn(watches.run()), tokio::spawn(events)];
        context.synced().await;
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let mut hubs = Vec::new();
        for hub in context.hubs(namespace) {
            let connection = hub.spec.connection.as_ref().unwrap();
            let name = &connection.connection_string_secret_ref.name;
            let secret = secrets.get(name).await?;
            let access = Access::elsewhere(&hub, connection, Some(&secret));
            hubs.push((IoTHub::clone(&hub), access));
        }
        Ok(Self {
            context,
            hubs,
            work,
        })
    }

    /// Waits until the watch shows that version; without one, until it shows that it is gone.
    pub(crate) async fn show(&self, namespace: &str, name: &str, version: Option<&str>) {
        let key = ObjectRef::<DeviceRegistration>::new(name).within(namespace);
        shows(&self.context.stores.registrations, &key, version).await;
    }

    /// Waits until the watch shows that Enrollment as it is.
    pub(crate) async fn show_enrollment(&self, enrollment: &Enrollment) {
        let key = ObjectRef::from_obj(enrollment);
        let version = enrollment.resource_version();
        shows(&self.context.stores.enrollments, &key, version.as_deref()).await;
    }
}

impl Drop for Caches {
    fn drop(&mut self) {
        for work in &self.work {
            work.abort();
        }
    }
}

async fn shows<K>(store: &Store<K>, key: &ObjectRef<K>, version: Option<&str>)
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    expect_ok("the watch to catch up", WATCH_LAG, async || {
        let shown = store.get(key).and_then(|object| object.resource_version());
        if shown.as_deref() == version {
            Ok(())
        } else {
            Err(shown)
        }
    })
    .await;
}

/// A controller that just began.
pub(crate) fn start(world: &Arc<World>, actor: Actor) -> Arc<Context> {
    let caches = &world.ground.caches;
    let context = caches.context.reborn(Life {
        client: wire::client(world, actor),
        clock: world.clock.clone(),
        random: Arc::new(SystemRandom),
        transports: Arc::new(Transports {
            world: Arc::clone(world),
            actor,
        }),
        mutant: world.mutant,
    });
    for (hub, access) in &caches.hubs {
        context.hubs.refresh(hub, access).unwrap();
    }
    context
}

struct Transports {
    world: Arc<World>,
    actor: Actor,
}

impl TransportFactory for Transports {
    fn transport(
        &self,
        hub: &IoTHub,
        _: &Route,
        _: Duration,
    ) -> Result<Arc<dyn Transport>, TransportSetupError> {
        Ok(wire::transport(
            &self.world,
            self.actor,
            &hub.spec.host_name,
        ))
    }
}
