//! A namespace with a controller process that serves it, and hub processes.

use std::fmt::Debug;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Resource};
use rehome::api::v1alpha1::{Enrollment, IoTHub};
use rehome_testing::{
    Authority, Cluster, Namespace, Operator, Process, expect, expect_ok, free_port, scratch,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
pub(crate) const POLICY_KEY: &str = "cHJpbWFyeS1rZXktMDEyMw==";
pub(crate) const PRIMARY: &str = "cHJpbWFyeS1wcmltYXJ5IQ==";
pub(crate) const SECONDARY: &str = "c2Vjb25kYXJ5LXNlY29uZA==";

pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) operator: Operator,
    pub(crate) namespace: Namespace,
    pub(crate) folder: PathBuf,
    controller: Process,
}

/// A `rehome hub` process and what an `IoTHub` says about it.
pub(crate) struct Hub {
    pub(crate) host: String,
    address: SocketAddr,
    folder: PathBuf,
    ca: String,
    process: Option<Process>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let cluster = Cluster::shared().await.unwrap();
        let operator = cluster.install_operator().await.unwrap();
        let namespace = cluster.namespace("operator").await.unwrap();
        let folder = scratch("controller").unwrap();
        let kubeconfig = operator.controller.kubeconfig.display().to_string();
        let token_dir = folder.display().to_string();
        let arguments = [
            "controller",
            "--kubeconfig",
            &kubeconfig,
            "--namespace",
            namespace.name(),
            "--gateway-service-account",
            "rehome-system/rehome-gateway",
            "--gateway-token-dir",
            &token_dir,
            "--no-leader-election",
            "--log",
            "info,rehome=debug",
        ];
        let environment: [(&str, &str); 0] = [];
        let log = folder.join("controller.log");
        let binary = env!("CARGO_BIN_EXE_rehome");
        let mut controller =
            Process::spawn("controller", binary, arguments, environment, log).unwrap();
        controller
            .wait_for_line("the controller acts", PATIENCE)
            .await
            .unwrap();
        Self {
            cluster,
            operator,
            namespace,
            folder,
            controller,
        }
    }

    /// SIGTERM; whether the controller ended well.
    pub(crate) async fn stop(mut self) -> bool {
        self.controller.terminate(PATIENCE).await.unwrap().success()
    }

    pub(crate) async fn apply(&self, object: Value) {
        self.namespace.apply(&object.to_string()).await.unwrap();
    }

    pub(crate) async fn get<K>(&self, name: &str) -> Option<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + Debug + DeserializeOwned,
    {
        self.namespace.api::<K>().get_opt(name).await.unwrap()
    }

    pub(crate) async fn delete<K>(&self, name: &str)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + Debug + DeserializeOwned,
    {
        let api = self.namespace.api::<K>();
        api.delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// Applies an object until it is younger than `elder`: creation times have full seconds, and of
    /// one second the uid decides who is older.
    pub(crate) async fn apply_younger<K>(&self, object: Value, elder: &str)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + Debug + DeserializeOwned,
    {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let created = async |name: &str| {
            let object = self.get::<K>(name).await.unwrap();
            object.meta().creation_timestamp.clone().unwrap().0
        };
        let elder = created(elder).await;
        expect("a younger object", PATIENCE, async || {
            self.apply(object.clone()).await;
            if created(&name).await > elder {
                return Some(());
            }
            self.delete::<K>(&name).await;
            self.gone::<K>(&name).await;
            None
        })
        .await;
    }

    /// Waits until nothing of that name is there.
    pub(crate) async fn gone<K>(&self, name: &str)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + Debug + DeserializeOwned,
    {
        let api = self.namespace.api::<K>();
        let what = format!("{name} is gone");
        expect_ok(&what, PATIENCE, async || match api.get_opt(name).await {
            Ok(None) => Ok(()),
            found => Err(found),
        })
        .await;
    }

    pub(crate) async fn merge<K>(&self, name: &str, change: Value)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + Debug + DeserializeOwned,
    {
        let api = self.namespace.api::<K>();
        let params = PatchParams::default();
        api.patch(name, &params, &Patch::Merge(&change))
            .await
            .unwrap();
    }

    pub(crate) async fn hub_is(&self, name: &str, status: &str, reason: &str) -> IoTHub {
        let api: Api<IoTHub> = self.namespace.api();
        let conditions = |hub: &IoTHub| {
            hub.status
                .clone()
                .map(|status| status.conditions)
                .unwrap_or_default()
        };
        ready_is(&api, name, status, reason, conditions).await
    }

    pub(crate) async fn enrollment_is(
        &self,
        name: &str,
        status: &str,
        reason: &str,
    ) -> (Enrollment, String) {
        let api: Api<Enrollment> = self.namespace.api();
        let conditions = |enrollment: &Enrollment| {
            enrollment
                .status
                .clone()
                .map(|status| status.conditions)
                .unwrap_or_default()
        };
        let enrollment = ready_is(&api, name, status, reason, conditions).await;
        let message = conditions(&enrollment)[0].message.clone();
        (enrollment, message)
    }

    pub(crate) async fn attestation_secret(&self, name: &str) {
        self.apply(json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": name, "labels": {"rehome.dev/attestation": "true"}},
            "stringData": {"primaryKey": PRIMARY, "secondaryKey": SECONDARY},
        }))
        .await;
    }

    /// Creates an object as the gateway.
    pub(crate) async fn create_as_gateway<K>(&self, object: Value) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + Debug + DeserializeOwned + serde::Serialize,
    {
        let client = self.operator.gateway.client.clone();
        let api: Api<K> = Api::namespaced(client, self.namespace.name());
        let object = serde_json::from_value(object).unwrap();
        api.create(&PostParams::default(), &object).await.unwrap()
    }

    /// A hub process whose Secret and `IoTHub` are applied.
    pub(crate) async fn hub(&self, name: &str) -> Hub {
        let hub = Hub::start(&format!("{name}-{}.test", self.namespace.name())).await;
        self.apply(hub.secret(name, POLICY_KEY)).await;
        self.apply(hub.object(name, name)).await;
        hub
    }
}

/// Waits until the object's Ready condition has this status and reason.
async fn ready_is<K>(
    api: &Api<K>,
    name: &str,
    status: &str,
    reason: &str,
    conditions: impl Fn(&K) -> Vec<Condition>,
) -> K
where
    K: Clone + Debug + DeserializeOwned,
{
    let what = format!("{name} is Ready={status} ({reason})");
    expect_ok(&what, PATIENCE, async || {
        let object = api.get(name).await.map_err(|error| error.to_string())?;
        let ready = conditions(&object)
            .into_iter()
            .find(|known| known.type_ == "Ready");
        match ready {
            Some(ready) if ready.status == status && ready.reason == reason => Ok(object),
            seen => Err(format!("{seen:?}")),
        }
    })
    .await
}

impl Hub {
    pub(crate) async fn start(host: &str) -> Self {
        let folder = scratch("hub").unwrap();
        let authority = Authority::new("Test Root").unwrap();
        let issued = authority.issue(&[host, "127.0.0.1"]).unwrap();
        let write = |name: &str, text: String| std::fs::write(folder.join(name), text).unwrap();
        write("tls.crt", issued.cert_pem.clone());
        write("tls.key", issued.key_pem.clone());
        let permissions = ["RegistryRead", "RegistryWrite", "ServiceConnect"];
        let owner = json!({"name": "operator", "permissions": permissions,
            "primaryKey": POLICY_KEY, "secondaryKey": POLICY_KEY});
        write("policies.json", json!({"policies": [owner]}).to_string());
        let mut hub = Self {
            host: host.to_owned(),
            address: free_address(),
            folder,
            ca: authority.cert_pem(),
            process: None,
        };
        hub.restart().await;
        hub
    }

    pub(crate) async fn restart(&mut self) {
        let path = |name: &str| self.folder.join(name).display().to_string();
        let (store, cert, key) = (path("devices.redb"), path("tls.crt"), path("tls.key"));
        let policies = path("policies.json");
        let (https, mqtt) = (self.address.to_string(), free_address().to_string());
        let arguments = [
            "hub",
            "--host-name",
            &self.host,
            "--store",
            &store,
            "--tls-cert",
            &cert,
            "--tls-key",
            &key,
            "--policies",
            &policies,
            "--https-address",
            &https,
            "--mqtt-address",
            &mqtt,
        ];
        let environment: [(&str, &str); 0] = [];
        let log = self.folder.join("hub.log");
        let binary = env!("CARGO_BIN_EXE_rehome");
        let mut process = Process::spawn("hub", binary, arguments, environment, log).unwrap();
        process
            .wait_for_line("the hub serves", PATIENCE)
            .await
            .unwrap();
        self.process = Some(process);
    }

    pub(crate) fn kill(&mut self) {
        self.process.take().unwrap().kill().unwrap();
    }

    /// The Secret with the connection string.
    pub(crate) fn secret(&self, name: &str, key: &str) -> Value {
        let text = format!(
            "HostName={};SharedAccessKeyName=operator;SharedAccessKey={key}",
            self.host
        );
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
            "stringData": {"connectionString": text}})
    }

    pub(crate) fn object(&self, name: &str, secret: &str) -> Value {
        json!({"apiVersion": "rehome.dev/v1alpha1", "kind": "IoTHub", "metadata": {"name": name},
            "spec": {"hostName": self.host, "connection": {
                "connectionStringSecretRef": {"name": secret},
                "endpoint": format!("https://{}", self.address),
                "caBundle": self.ca}}})
    }
}

fn free_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port(Ipv4Addr::LOCALHOST).unwrap()))
}

/// An Enrollment of a group.
pub(crate) fn group(name: &str, secret: &str, fields: &Value) -> Value {
    enrollment(name, &json!({"group": {}}), secret, fields)
}

/// An Enrollment of one device.
pub(crate) fn individual(name: &str, id: &str, secret: &str) -> Value {
    let one = json!({"individual": {"registrationId": id}});
    enrollment(name, &one, secret, &json!({}))
}

fn enrollment(name: &str, who: &Value, secret: &str, fields: &Value) -> Value {
    let mut spec = json!({"attestation": {"symmetricKey": {"secretRef": {"name": secret}}}});
    for part in [who, fields] {
        let part = part.as_object().unwrap().clone();
        spec.as_object_mut().unwrap().extend(part);
    }
    json!({"apiVersion": "rehome.dev/v1alpha1", "kind": "Enrollment",
        "metadata": {"name": name}, "spec": spec})
}
