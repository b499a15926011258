//! A tenant with a hub and a group of devices, and gateways that serve it.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace as NamespaceObject, Secret};
use kube::Api;
use kube::api::{Patch, PatchParams};
use rehome::api::v1alpha1::{
    DeviceRegistration, Enrollment, ID_SCOPE_ANNOTATION, IoTHub, RegistrationState,
};
use rehome::domain::allocation::{Member, Pool};
use rehome::domain::attestation::{SymmetricKey, derive_device_key};
use rehome::domain::sas::SasToken;
use rehome_testing::{
    Authority, Cluster, Identity, Mark, Namespace, Operator, Process, Requests, expect, expect_ok,
    free_port, loopback, scratch,
};
use serde_json::{Value, json};

pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
/// 32 × 0x5a.
pub(crate) const KEY: &str = "WlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlo=";
/// 32 × 0xa5.
pub(crate) const OTHER_KEY: &str = "paWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaU=";

/// One namespace with what a device needs.
pub(crate) struct Plant {
    pub(crate) cluster: Cluster,
    pub(crate) operator: Operator,
    pub(crate) namespace: Namespace,
    pub(crate) scope: String,
}

impl Plant {
    pub(crate) async fn new() -> Self {
        Self::on(Cluster::shared().await.unwrap()).await
    }

    pub(crate) async fn on(cluster: Cluster) -> Self {
        let operator = cluster.install_operator().await.unwrap();
        let namespace = cluster.namespace("gateway").await.unwrap();
        let scope = format!("0ne{}", namespace.name().to_uppercase());
        let plant = Self {
            cluster,
            operator,
            namespace,
            scope,
        };
        let namespaces: Api<NamespaceObject> = Api::all(plant.cluster.client().clone());
        let annotation =
            json!({ "metadata": { "annotations": { ID_SCOPE_ANNOTATION: plant.scope } } });
        let name = plant.namespace.name();
        namespaces
            .patch(name, &PatchParams::default(), &Patch::Merge(annotation))
            .await
            .unwrap();
        plant.set_keys(KEY, Some("true")).await;
        plant.namespace.apply(ROLE).await.unwrap();
        plant.namespace.apply(HUB_AND_ENROLLMENT).await.unwrap();
        plant.set_hub_ready("west").await;
        plant
    }

    /// The Secret of the group; the secondary key is always the same.
    pub(crate) async fn set_keys(&self, primary: &str, label: Option<&str>) {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": "line-3", "labels": { "rehome.dev/attestation": label } },
            "stringData": { "primaryKey": primary, "secondaryKey": "AAECAwQFBgcICQoLDA0ODw==" },
        });
        let api: Api<Secret> = self.namespace.api();
        let params = PatchParams::apply("test").force();
        api.patch("line-3", &params, &Patch::Apply(secret))
            .await
            .unwrap();
    }

    /// What the controller found out about a hub.
    pub(crate) async fn set_hub_ready(&self, name: &str) {
        let condition = json!({
            "type": "Ready", "status": "True", "reason": "Settled", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        let status = json!({ "status": { "conditions": [condition] } });
        let api: Api<IoTHub> = self.controllers();
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
    }

    pub(crate) async fn change_enrollment(&self, spec: Value) {
        let api: Api<Enrollment> = self.namespace.api();
        let patch = Patch::Merge(json!({ "spec": spec }));
        api.patch("line-3", &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    /// Plays the controller: the device's last request ends.
    pub(crate) async fn finish(&self, name: &str, state: RegistrationState) {
        let record = self.record(name).await.unwrap();
        let hub: Api<IoTHub> = self.namespace.api();
        let hub = hub.get("west").await.unwrap();
        let member = Member::of(&hub);
        let pool = Pool::of(None, [&hub]);
        let now = now();
        let mut status = json!({
            "state": state, "operationId": record.spec.request.unwrap().operation_id,
            "createdAt": now, "lastChanged": now,
        });
        if state == RegistrationState::Assigned {
            let assigned = json!({
                "substatus": "InitialAssignment", "assignedHub": member.hub.host_name,
                "home": member.hub, "deviceId": name, "generationId": "1", "policy": "Default",
                "placementHash": pool.hash(),
            });
            status
                .as_object_mut()
                .unwrap()
                .extend(assigned.as_object().unwrap().clone());
        }
        let api: Api<DeviceRegistration> = self.controllers();
        let patch = Patch::Merge(json!({ "status": status }));
        api.patch_status(name, &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    /// Plays the controller: the device is gone from its hubs, so the record may go.
    pub(crate) async fn let_go(&self, name: &str) {
        let api: Api<DeviceRegistration> = self.controllers();
        let patch = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
        api.patch(name, &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    pub(crate) async fn record(&self, name: &str) -> Option<DeviceRegistration> {
        self.namespace
            .api::<DeviceRegistration>()
            .get_opt(name)
            .await
            .unwrap()
    }

    pub(crate) fn mark(&self) -> Mark {
        self.cluster.audit().unwrap().mark().unwrap()
    }

    /// What the gateways asked of the API server since, watches apart.
    pub(crate) fn asked_since(&self, mark: Mark) -> Requests {
        let requests = self.cluster.audit().unwrap().since(mark).unwrap();
        let requests = requests.by(&self.operator.gateway.user);
        let requests = requests.in_namespace(self.namespace.name());
        requests.only(|request| request.verb != "watch" && request.verb != "list")
    }

    fn controllers<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(
            self.operator.controller.client.clone(),
            self.namespace.name(),
        )
    }

    /// A gateway that serves everybody, ready.
    pub(crate) async fn gateway(&self) -> Gateway {
        let gateway = Gateway::spawn(&self.operator.gateway, &[]);
        gateway.until_ready().await;
        gateway
    }

    pub(crate) fn device(&self, id: &str) -> Device {
        let key = derive_device_key(&KEY.parse().unwrap(), id);
        Device {
            id: id.to_owned(),
            scope: self.scope.clone(),
            key,
            api_version: "2019-03-31",
        }
    }
}

/// A gateway process.
pub(crate) struct Gateway {
    pub(crate) process: Process,
    https: String,
    health: String,
    client: reqwest::Client,
}

impl Gateway {
    pub(crate) fn spawn(identity: &Identity, arguments: &[&str]) -> Self {
        let kubeconfig = format!("--kubeconfig={}", identity.kubeconfig.display());
        let arguments = [&[kubeconfig.as_str()], arguments].concat();
        Self::spawn_with(&arguments)
    }

    pub(crate) fn spawn_with(arguments: &[&str]) -> Self {
        let directory = scratch("gateway").unwrap();
        let authority = Authority::new("the device's CA").unwrap();
        let issued = authority.issue(&["localhost"]).unwrap();
        let (cert, key) = (directory.join("tls.crt"), directory.join("tls.key"));
        std::fs::write(&cert, &issued.cert_pem).unwrap();
        std::fs::write(&key, &issued.key_pem).unwrap();
        let here = loopback(1);
        let port = || free_port(here).unwrap();
        let (https, mqtt, amqp, health) = (port(), port(), port(), port());
        let own = [
            "gateway".to_owned(),
            format!("--https-listen={here}:{https}"),
            format!("--mqtt-listen={here}:{mqtt}"),
            format!("--amqp-listen={here}:{amqp}"),
            format!("--health-listen={here}:{health}"),
            format!("--tls-cert={}", cert.display()),
            format!("--tls-key={}", key.display()),
            "--log=info,rehome=debug".to_owned(),
        ];
        let arguments = own
            .into_iter()
            .chain(arguments.iter().map(|&it| it.to_owned()));
        let process = Process::spawn(
            "gateway",
            env!("CARGO_BIN_EXE_rehome"),
            arguments,
            BTreeMap::<String, String>::new(),
            directory.join("gateway.log"),
        )
        .unwrap();
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let ca = reqwest::Certificate::from_pem(authority.cert_pem().as_bytes()).unwrap();
        let client = reqwest::Client::builder()
            .tls_certs_only([ca])
            .resolve("localhost", (here, https).into())
            .timeout(PATIENCE)
            .build()
            .unwrap();
        Self {
            process,
            https: format!("https://localhost:{https}"),
            health: format!("http://{here}:{health}"),
            client,
        }
    }

    pub(crate) async fn until_ready(&self) {
        expect_ok("a ready gateway", PATIENCE, async || {
            self.health("readyz").await.0.ok_or_ready()
        })
        .await;
    }

    /// Status and text of a health path; status 0 while nobody listens.
    pub(crate) async fn health(&self, path: &str) -> (Status, String) {
        let answer = self
            .client
            .get(format!("{}/{path}", self.health))
            .send()
            .await;
        match answer {
            Ok(answer) => (
                Status(answer.status().as_u16()),
                answer.text().await.unwrap(),
            ),
            Err(error) => (Status(0), error.to_string()),
        }
    }

    pub(crate) async fn register(&self, device: &Device) -> Reply {
        let url = format!("{}{}", self.https, device.path("register"));
        self.send(self.client.put(url).body("{}"), device).await
    }

    pub(crate) async fn poll(&self, device: &Device, operation: &str) -> Reply {
        let url = format!(
            "{}{}",
            self.https,
            device.path(&format!("operations/{operation}"))
        );
        self.send(self.client.get(url), device).await
    }

    async fn send(&self, request: reqwest::RequestBuilder, device: &Device) -> Reply {
        let answer = request
            .header("Authorization", device.token())
            .send()
            .await
            .unwrap();
        let status = answer.status().as_u16();
        Reply {
            status,
            body: answer.json().await.unwrap(),
        }
    }

    /// Registers until the gateway knows what the test has just changed.
    pub(crate) async fn register_until(&self, device: &Device, status: u16) -> Reply {
        expect("the expected answer", PATIENCE, async || {
            let reply = self.register(device).await;
            (reply.status == status).then_some(reply)
        })
        .await
    }

    /// Waits until the gateway answers with that state.
    pub(crate) async fn poll_until(&self, device: &Device, operation: &str, state: &str) -> Value {
        expect("the expected state", PATIENCE, async || {
            let reply = self.poll(device, operation).await;
            (reply.body["status"] == state).then_some(reply.body)
        })
        .await
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status(pub(crate) u16);

impl Status {
    fn ok_or_ready(self) -> Result<(), Self> {
        if self.0 == 200 { Ok(()) } else { Err(self) }
    }
}

/// One device.
#[derive(Clone)]
pub(crate) struct Device {
    pub(crate) id: String,
    pub(crate) scope: String,
    pub(crate) key: SymmetricKey,
    pub(crate) api_version: &'static str,
}

impl Device {
    fn path(&self, rest: &str) -> String {
        let Self {
            id,
            scope,
            api_version,
            ..
        } = self;
        format!("/{scope}/registrations/{id}/{rest}?api-version={api_version}")
    }

    fn token(&self) -> String {
        let resource = format!("{}/registrations/{}", self.scope, self.id);
        SasToken::sign(&resource, &self.key, 4_000_000_000, None)
    }
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Reply {
    pub(crate) fn operation(&self) -> &str {
        self.body["operationId"]
            .as_str()
            .unwrap_or_else(|| panic!("no operation: {self:?}"))
    }
}

/// The clock of the machine, as the controller would write it.
pub(crate) fn now() -> String {
    use rehome::clock::Clock as _;
    rehome::clock::SystemClock::start().now().to_string()
}

/// What the controller grants the gateway.
const ROLE: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: gateway-secrets}
rules:
  - apiGroups: [""]
    resources: [secrets]
    resourceNames: [line-3]
    verbs: [get, list, watch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: gateway-secrets}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: gateway-secrets}
subjects:
  - {kind: ServiceAccount, name: rehome-gateway, namespace: rehome-system}
"#;

const HUB_AND_ENROLLMENT: &str = r"
apiVersion: rehome.dev/v1alpha1
kind: IoTHub
metadata: {name: west}
spec:
  hostName: west.example.com
  connection: {connectionStringSecretRef: {name: west}}
---
apiVersion: rehome.dev/v1alpha1
kind: Enrollment
metadata: {name: line-3}
spec:
  group: {}
  attestation: {symmetricKey: {secretRef: {name: line-3}}}
";
