//! A namespace that admits restricted pods only, and a controller process that serves it.

use std::fmt::Debug;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use kube::api::{DeleteParams, Patch, PatchParams};
use rehome::api::v1alpha1::IoTHub;
use rehome_testing::{Cluster, Namespace, Operator, Process, expect_ok, free_port, scratch};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
pub(crate) const IMAGE: &str = "registry.example/rehome:1";

/// What a test can ask the API server for.
pub(crate) trait Object:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned
{
}

impl<K> Object for K where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
{
}

pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) operator: Operator,
    pub(crate) namespace: Namespace,
    /// Where the Service of hub `west` is reached.
    pub(crate) west: SocketAddr,
    pub(crate) controller: Process,
}

impl World {
    pub(crate) async fn new() -> Self {
        let cluster = Cluster::shared().await.unwrap();
        let operator = cluster.install_operator().await.unwrap();
        let namespace = cluster.namespace("managed").await.unwrap();
        namespace.restrict().await.unwrap();
        let west = free_address();
        let controller = start(&operator, namespace.name(), west, IMAGE).await;
        Self {
            cluster,
            operator,
            namespace,
            west,
            controller,
        }
    }

    /// Ends the controller and starts one with another image of hubs.
    pub(crate) async fn upgrade(&mut self, image: &str) {
        assert!(self.controller.terminate(PATIENCE).await.unwrap().success());
        self.controller = start(&self.operator, self.namespace.name(), self.west, image).await;
    }

    /// Applies an `IoTHub` with this in `managed`.
    pub(crate) async fn hub(&self, name: &str, managed: Value) {
        self.apply(json!({
            "apiVersion": "rehome.dev/v1alpha1", "kind": "IoTHub", "metadata": { "name": name },
            "spec": { "hostName": self.host(name), "managed": managed },
        }))
        .await;
    }

    pub(crate) fn host(&self, name: &str) -> String {
        format!("{name}-{}.test", self.namespace.name())
    }

    pub(crate) async fn apply(&self, object: Value) {
        self.namespace.apply(&object.to_string()).await.unwrap();
    }

    pub(crate) async fn find<K: Object>(&self, name: &str) -> Option<K> {
        self.namespace.api::<K>().get_opt(name).await.unwrap()
    }

    /// Waits until the object is there and `probe` finds what it looks for.
    pub(crate) async fn until<K: Object, T>(
        &self,
        what: &str,
        name: &str,
        probe: impl Fn(&K) -> Option<T>,
    ) -> T {
        expect_ok(what, PATIENCE, async || {
            let found = self.find::<K>(name).await;
            found.as_ref().and_then(&probe).ok_or(found)
        })
        .await
    }

    pub(crate) async fn there<K: Object>(&self, name: &str) -> K {
        self.until(&format!("{} {name}", K::kind(&())), name, |found: &K| {
            Some(found.clone())
        })
        .await
    }

    pub(crate) async fn gone<K: Object>(&self, name: &str) {
        let what = format!("{} {name} is gone", K::kind(&()));
        expect_ok(&what, PATIENCE, async || match self.find::<K>(name).await {
            None => Ok(()),
            found => Err(found),
        })
        .await;
    }

    pub(crate) async fn delete<K: Object>(&self, name: &str) {
        let api = self.namespace.api::<K>();
        api.delete(name, &DeleteParams::default()).await.unwrap();
    }

    pub(crate) async fn merge<K: Object>(&self, name: &str, change: Value) {
        let api = self.namespace.api::<K>();
        api.patch(name, &PatchParams::default(), &Patch::Merge(&change))
            .await
            .unwrap();
    }

    /// Waits until a condition of the hub has this status and reason; gives its message.
    pub(crate) async fn hub_is(
        &self,
        name: &str,
        type_: &str,
        status: &str,
        reason: &str,
    ) -> String {
        let what = format!("{name} is {type_}={status} ({reason})");
        expect_ok(&what, PATIENCE, async || {
            let hub = self.find::<IoTHub>(name).await;
            match hub.as_ref().and_then(|hub| condition(hub, type_)) {
                Some(seen) if seen.status == status && seen.reason == reason => Ok(seen.message),
                _ => Err(hub.and_then(|hub| hub.status)),
            }
        })
        .await
    }

    /// The image of a hub's pod template.
    pub(crate) async fn image(&self, hub: &str) -> String {
        image(&self.there::<StatefulSet>(&format!("iothub-{hub}")).await)
    }
}

pub(crate) fn image(set: &StatefulSet) -> String {
    let pod = set.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
    pod.containers[0].image.clone().unwrap()
}

pub(crate) fn condition(hub: &IoTHub, type_: &str) -> Option<Condition> {
    let conditions = hub.status.iter().flat_map(|status| &status.conditions);
    conditions
        .into_iter()
        .find(|known| known.type_ == type_)
        .cloned()
}

pub(crate) fn free_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port(Ipv4Addr::LOCALHOST).unwrap()))
}

async fn start(operator: &Operator, namespace: &str, west: SocketAddr, image: &str) -> Process {
    let folder = scratch("controller").unwrap();
    let arguments = [
        "controller".to_owned(),
        format!("--kubeconfig={}", operator.controller.kubeconfig.display()),
        format!("--namespace={namespace}"),
        "--no-leader-election".to_owned(),
        format!("--hub-image={image}"),
        format!("--hub-forward={namespace}/west={west}"),
        "--log=info,rehome=debug".to_owned(),
    ];
    let environment: [(&str, &str); 0] = [];
    let log = folder.join("controller.log");
    let binary = env!("CARGO_BIN_EXE_rehome");
    let mut controller = Process::spawn("controller", binary, arguments, environment, log).unwrap();
    controller
        .wait_for_line("the controller acts", PATIENCE)
        .await
        .unwrap();
    controller
}
