//! One writer per field: what the chart's Roles and admission policies allow to the gateway, the
//! controller and people, each acting with a token of its own `ServiceAccount`.

#![cfg(test)]

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace as NamespaceObject, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt as _};
use rehome::api::v1alpha1::{DeviceRegistration, Enrollment, FINALIZER, IoTHub};
use rehome_testing::{Cluster, Namespace, Operator, expect, expect_ok};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_mins(1);

/// A namespace with one of each kind, and the three who write there.
struct Tenant {
    namespace: Namespace,
    operator: Operator,
    person: Client,
    cluster: Cluster,
}

impl Tenant {
    async fn new() -> Self {
        let cluster = Cluster::shared().await.unwrap();
        let operator = cluster.install_operator().await.unwrap();
        let namespace = cluster.namespace("admission").await.unwrap();
        namespace.apply(PERSON).await.unwrap();
        namespace.apply(HUB_AND_ENROLLMENT).await.unwrap();
        let person = namespace.client_as("person").await.unwrap().client;
        let tenant = Self {
            namespace,
            operator,
            person,
            cluster,
        };
        tenant
            .create(&tenant.operator.gateway.client, registration("press-7"))
            .await
            .unwrap();
        // The controller manager gathers the chart's rules for people into `edit`.
        let nothing = json!({});
        let may_patch = async || {
            tenant
                .merge::<IoTHub>(&tenant.person, "west", nothing.clone())
                .await
        };
        expect_ok("a person's rights", PATIENCE, may_patch).await;
        tenant
    }

    fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(client.clone(), self.namespace.name())
    }

    async fn create(&self, client: &Client, object: Value) -> kube::Result<DeviceRegistration> {
        let object = serde_json::from_value(object).unwrap();
        self.api(client)
            .create(&PostParams::default(), &object)
            .await
    }

    /// Merges `change` into an object as the user of `client`.
    async fn merge<K>(&self, client: &Client, name: &str, change: Value) -> kube::Result<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
        K: Clone + Debug + DeserializeOwned,
    {
        self.api(client)
            .patch(name, &PatchParams::default(), &Patch::Merge(change))
            .await
    }

    async fn change(&self, client: &Client, change: Value) -> kube::Result<DeviceRegistration> {
        self.merge(client, "press-7", change).await
    }

    async fn merge_status<K>(&self, client: &Client, name: &str, status: Value) -> kube::Result<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
        K: Clone + Debug + DeserializeOwned,
    {
        let change = Patch::Merge(json!({ "status": status }));
        self.api(client)
            .patch_status(name, &PatchParams::default(), &change)
            .await
    }
}

const PERSON: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: person}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: person}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}
subjects: [{kind: ServiceAccount, name: person}]
";

const HUB_AND_ENROLLMENT: &str = "
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

fn registration(id: &str) -> Value {
    json!({
        "apiVersion": "rehome.dev/v1alpha1", "kind": "DeviceRegistration",
        "metadata": { "name": id, "finalizers": [FINALIZER] },
        "spec": { "registrationId": id, "request": request("first") },
    })
}

fn request(operation: &str) -> Value {
    json!({
        "operationId": operation, "apiVersion": "2019-03-31", "credential": "print",
        "enrollment": { "name": "line-3", "uid": "some-uid" },
        "reason": "InitialAssignment", "requestedAt": "2026-01-01T00:00:00Z",
    })
}

#[track_caller]
fn assert_refused<T: Debug>(result: kube::Result<T>, why: &str) {
    match result {
        Err(kube::Error::Api(status)) => {
            assert_eq!(status.code, 403, "{}", status.message);
            assert!(
                status.message.contains(why),
                "not {why:?}: {}",
                status.message
            );
        }
        other => panic!("not refused with {why:?}: {other:?}"),
    }
}

#[tokio::test]
async fn only_the_gateway_creates_registrations() {
    let tenant = Tenant::new().await;
    let administrator = tenant.cluster.client();
    let why = "is created by the Rehome gateway once a device has proved who it is";
    assert_refused(tenant.create(administrator, registration("a")).await, why);
    let without_rights = "cannot create resource \"deviceregistrations\"";
    for client in [&tenant.person, &tenant.operator.controller.client] {
        assert_refused(
            tenant.create(client, registration("a")).await,
            without_rights,
        );
    }
}

#[tokio::test]
async fn the_gateway_creates_with_request_and_finalizer_and_nothing_else() {
    let tenant = Tenant::new().await;
    let gateway = &tenant.operator.gateway.client;
    let nothing_else = "with registrationId and request and nothing else of the spec";
    for (field, value) in [
        ("request", Value::Null),
        ("reprovision", json!({ "id": "1", "mode": "Policy" })),
        ("deletionPolicy", json!("Retain")),
    ] {
        let mut object = registration("a");
        object["spec"][field] = value;
        assert_refused(tenant.create(gateway, object).await, nothing_else);
    }
    for finalizers in [
        json!([]),
        json!(["other.example/finalizer"]),
        json!([FINALIZER, "a.b/c"]),
    ] {
        let mut object = registration("a");
        object["metadata"]["finalizers"] = finalizers;
        assert_refused(
            tenant.create(gateway, object).await,
            "with the finalizer rehome.dev/reg",
        );
    }
    tenant.create(gateway, registration("a")).await.unwrap();
}

#[tokio::test]
async fn only_the_gateway_writes_the_request() {
    let tenant = Tenant::new().await;
    let why = "spec.request records what the device asked for";
    for client in [
        tenant.cluster.client(),
        &tenant.person,
        &tenant.operator.controller.client,
    ] {
        for request in [json!({ "operationId": "forged" }), Value::Null] {
            let change = json!({ "spec": { "request": request } });
            assert_refused(tenant.change(client, change).await, why);
        }
    }
    let change = json!({ "spec": { "request": request("second") } });
    let changed = tenant
        .change(&tenant.operator.gateway.client, change)
        .await
        .unwrap();
    assert_eq!(changed.spec.request.unwrap().operation_id, "second");
}

#[tokio::test]
async fn people_write_the_trigger_and_the_deletion_policy() {
    let tenant = Tenant::new().await;
    for spec in [
        json!({ "reprovision": { "id": "1", "mode": "ResetData" } }),
        json!({ "deletionPolicy": "Retain" }),
    ] {
        let change = json!({ "spec": spec });
        let operator = &tenant.operator;
        let as_gateway = tenant
            .change(&operator.gateway.client, change.clone())
            .await;
        assert_refused(
            as_gateway,
            "the gateway writes spec.request and nothing else of the spec",
        );
        let as_controller = tenant
            .change(&operator.controller.client, change.clone())
            .await;
        assert_refused(
            as_controller,
            "the controller writes the status and its finalizer",
        );
        tenant.change(&tenant.person, change).await.unwrap();
    }
}

#[tokio::test]
async fn only_the_controller_writes_a_status() {
    let tenant = Tenant::new().await;
    let counted = json!({ "observedGeneration": 1 });
    let controller = &tenant.operator.controller.client;
    let why = "the status is written by the Rehome controller only";
    macro_rules! check {
        ($kind:ty, $name:literal) => {
            for (client, why) in [
                (tenant.cluster.client(), why),
                (&tenant.person, "cannot patch resource"),
                (&tenant.operator.gateway.client, "cannot patch resource"),
            ] {
                let result = tenant
                    .merge_status::<$kind>(client, $name, counted.clone())
                    .await;
                assert_refused(result, why);
            }
            let written = tenant
                .merge_status::<$kind>(controller, $name, counted.clone())
                .await;
            assert_eq!(
                written.unwrap().status.unwrap().observed_generation,
                Some(1)
            );
        };
    }
    check!(IoTHub, "west");
    check!(Enrollment, "line-3");
    check!(DeviceRegistration, "press-7");
}

#[tokio::test]
async fn only_the_controller_writes_its_finalizer() {
    let tenant = Tenant::new().await;
    let finalizers = |names: &[&str]| json!({ "metadata": { "finalizers": names } });
    let (person, gateway) = (&tenant.person, &tenant.operator.gateway.client);
    let controller = &tenant.operator.controller.client;
    let why = "the finalizer rehome.dev/registry belongs to the Rehome controller";

    for client in [person, gateway, tenant.cluster.client()] {
        assert_refused(tenant.change(client, finalizers(&[])).await, why);
    }
    tenant
        .change(person, finalizers(&[FINALIZER, "other.example/keep"]))
        .await
        .unwrap();
    tenant
        .change(controller, finalizers(&["other.example/keep"]))
        .await
        .unwrap();

    assert_refused(
        tenant
            .merge::<IoTHub>(person, "west", finalizers(&[FINALIZER]))
            .await,
        why,
    );
    let added = tenant
        .merge::<IoTHub>(controller, "west", finalizers(&[FINALIZER]))
        .await;
    assert_eq!(added.unwrap().finalizers(), [FINALIZER]);
    assert_refused(
        tenant
            .merge::<IoTHub>(person, "west", finalizers(&[]))
            .await,
        why,
    );
    tenant
        .merge::<IoTHub>(controller, "west", finalizers(&[]))
        .await
        .unwrap();

    let on_enrollment = tenant.merge::<Enrollment>(person, "line-3", finalizers(&[FINALIZER]));
    assert_refused(on_enrollment.await, why);
    let added = tenant
        .merge::<Enrollment>(controller, "line-3", finalizers(&[FINALIZER]))
        .await;
    assert_eq!(added.unwrap().finalizers(), [FINALIZER]);
    tenant
        .merge::<Enrollment>(controller, "line-3", finalizers(&[]))
        .await
        .unwrap();
}

#[tokio::test]
async fn the_controller_never_writes_a_spec() {
    let tenant = Tenant::new().await;
    let controller = &tenant.operator.controller.client;
    let cordon = json!({ "spec": { "allocation": { "cordoned": true } } });
    let as_controller = tenant
        .merge::<IoTHub>(controller, "west", cordon.clone())
        .await;
    assert_refused(
        as_controller,
        "the controller writes the status and its finalizer",
    );
    tenant
        .merge::<IoTHub>(&tenant.person, "west", cordon)
        .await
        .unwrap();
    let disable = json!({ "spec": { "provisioningStatus": "Disabled" } });
    let as_controller = tenant
        .merge::<Enrollment>(controller, "line-3", disable.clone())
        .await;
    assert_refused(
        as_controller,
        "the controller writes the status and its finalizer",
    );
    tenant
        .merge::<Enrollment>(&tenant.person, "line-3", disable)
        .await
        .unwrap();
}

#[tokio::test]
async fn deletion_goes_its_way_in_background_foreground_and_with_the_owner() {
    let tenant = Tenant::new().await;
    let gateway = &tenant.operator.gateway.client;
    let mut owner = ConfigMap::default();
    owner.metadata.name = Some("owner".into());
    let owners: Api<ConfigMap> = tenant.namespace.api();
    let owner = owners.create(&PostParams::default(), &owner).await.unwrap();
    for name in ["background", "foreground", "owned"] {
        let mut object = registration(name);
        if name == "owned" {
            let reference: OwnerReference = owner.owner_ref(&()).unwrap();
            object["metadata"]["ownerReferences"] = json!([reference]);
        }
        tenant.create(gateway, object).await.unwrap();
    }
    let people: Api<DeviceRegistration> = tenant.api(&tenant.person);
    people
        .delete("background", &DeleteParams::background())
        .await
        .unwrap();
    people
        .delete("foreground", &DeleteParams::foreground())
        .await
        .unwrap();
    owners
        .delete("owner", &DeleteParams::background())
        .await
        .unwrap();
    for name in ["background", "foreground", "owned"] {
        let is_going = async || people.get(name).await.unwrap().metadata.deletion_timestamp;
        expect("the deletion of a registration", PATIENCE, is_going).await;
        // As the controller does it: the others' finalizers stay, here the API server's own.
        let mut finalizers = people.get(name).await.unwrap().finalizers().to_vec();
        finalizers.retain(|finalizer| finalizer != FINALIZER);
        let let_go = json!({ "metadata": { "finalizers": finalizers } });
        let controller = &tenant.operator.controller.client;
        tenant
            .merge::<DeviceRegistration>(controller, name, let_go)
            .await
            .unwrap();
        let is_gone = async || people.get_opt(name).await.unwrap().is_none().then_some(());
        expect("the end of a registration", PATIENCE, is_gone).await;
    }
}

#[tokio::test]
async fn a_namespace_goes_once_the_controller_has_let_go() {
    let tenant = Tenant::new().await;
    let name = tenant.namespace.name();
    let namespaces: Api<NamespaceObject> = Api::all(tenant.cluster.client().clone());
    namespaces
        .delete(name, &DeleteParams::default())
        .await
        .unwrap();
    let registrations: Api<DeviceRegistration> = tenant.namespace.api();
    let is_going = async || {
        registrations
            .get("press-7")
            .await
            .unwrap()
            .metadata
            .deletion_timestamp
    };
    expect(
        "the deletion of the namespace's registration",
        PATIENCE,
        is_going,
    )
    .await;
    let let_go = json!({ "metadata": { "finalizers": null } });
    tenant
        .change(&tenant.operator.controller.client, let_go)
        .await
        .unwrap();
    let is_gone = async || {
        namespaces
            .get_opt(name)
            .await
            .unwrap()
            .is_none()
            .then_some(())
    };
    expect("the end of the namespace", PATIENCE, is_gone).await;
}

#[tokio::test]
async fn the_controller_grants_the_gateway_named_secrets_and_nothing_else() {
    let tenant = Tenant::new().await;
    let controller = &tenant.operator.controller.client;
    let roles: Api<Role> = tenant.api(controller);
    let bindings: Api<RoleBinding> = tenant.api(controller);
    let post = PostParams::default();
    let role = |name: &str, rule: Value| -> Role {
        serde_json::from_value(json!({ "metadata": { "name": name }, "rules": [rule] })).unwrap()
    };
    let read = json!({ "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["line-3"],
        "verbs": ["get", "list", "watch"] });
    let without_names = json!({ "apiGroups": [""], "resources": ["secrets"], "verbs": ["get"] });
    // What it may do itself, or the API server would refuse before the policy does.
    let more = json!({ "apiGroups": ["rehome.dev"], "resources": ["iothubs"],
        "resourceNames": ["west"], "verbs": ["list"] });

    let named = roles.create(&post, &role("other", read.clone())).await;
    assert_refused(
        named,
        "writes Roles and RoleBindings named rehome-gateway-* only",
    );
    for rule in [without_names, more] {
        let granted = roles.create(&post, &role("rehome-gateway-1", rule)).await;
        assert_refused(granted, "grants reading Secrets by name and nothing else");
    }
    roles
        .create(&post, &role("rehome-gateway-1", read.clone()))
        .await
        .unwrap();

    let binding = |role: &str, user: &str| -> RoleBinding {
        serde_json::from_value(json!({
            "metadata": { "name": "rehome-gateway-1" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role },
            "subjects": [
                { "kind": "ServiceAccount", "namespace": "rehome-system", "name": user },
            ],
        }))
        .unwrap()
    };
    let why = "binds the gateway's ServiceAccount to a Role named rehome-gateway-*";
    let to_another = bindings
        .create(&post, &binding("rehome-gateway-1", "default"))
        .await;
    assert_refused(to_another, why);
    bindings
        .create(&post, &binding("rehome-gateway-1", "rehome-gateway"))
        .await
        .unwrap();

    tenant
        .namespace
        .api::<Role>()
        .create(&post, &role("peoples", read))
        .await
        .unwrap();
    let of_people = roles.delete("peoples", &DeleteParams::default()).await;
    assert_refused(of_people.map(drop), "named rehome-gateway-* only");
    roles
        .delete("rehome-gateway-1", &DeleteParams::default())
        .await
        .unwrap();
}

#[tokio::test]
async fn the_controller_gets_tokens_for_the_gateway_only() {
    let tenant = Tenant::new().await;
    let token = async |client: &Client, account: &str| {
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "rehome-system");
        let request = TokenRequest::default();
        accounts
            .create_token_request(account, &PostParams::default(), &request)
            .await
    };
    let (controller, gateway) = (&tenant.operator.controller, &tenant.operator.gateway);
    token(&controller.client, "rehome-gateway").await.unwrap();
    let without_rights = "cannot create resource \"serviceaccounts/token\"";
    for (client, account) in [
        (&controller.client, "default"),
        (&gateway.client, "rehome-gateway"),
        (&gateway.client, "rehome-controller"),
    ] {
        assert_refused(token(client, account).await.map(drop), without_rights);
    }
}

#[tokio::test]
async fn neither_has_a_right_that_it_does_not_need() {
    let tenant = Tenant::new().await;
    let may = async |client: &Client, verb: &str, group: &str, resource: &str| {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let review = serde_json::from_value(json!({ "spec": { "resourceAttributes": {
            "namespace": tenant.namespace.name(), "verb": verb, "group": group,
            "resource": resource, "subresource": subresource,
        } } }));
        let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
        let answer = api
            .create(&PostParams::default(), &review.unwrap())
            .await
            .unwrap();
        answer.status.unwrap().allowed
    };
    let (controller, gateway) = (
        &tenant.operator.controller.client,
        &tenant.operator.gateway.client,
    );
    for (client, verb, group, resource, expected) in [
        (controller, "list", "", "secrets", true),
        (controller, "update", "", "secrets", false),
        (
            controller,
            "create",
            "rehome.dev",
            "deviceregistrations",
            false,
        ),
        (controller, "delete", "rehome.dev", "iothubs", false),
        (controller, "patch", "", "namespaces", false),
        (controller, "create", "", "serviceaccounts/token", false),
        (
            controller,
            "create",
            "rbac.authorization.k8s.io",
            "clusterroles",
            false,
        ),
        (gateway, "watch", "rehome.dev", "enrollments", true),
        (gateway, "get", "", "secrets", false),
        (gateway, "patch", "rehome.dev", "enrollments", false),
        (
            gateway,
            "patch",
            "rehome.dev",
            "deviceregistrations/status",
            false,
        ),
        (
            gateway,
            "delete",
            "rehome.dev",
            "deviceregistrations",
            false,
        ),
        (
            gateway,
            "create",
            "rbac.authorization.k8s.io",
            "rolebindings",
            false,
        ),
    ] {
        let who = if std::ptr::eq(client, controller) {
            "controller"
        } else {
            "gateway"
        };
        let allowed = may(client, verb, group, resource).await;
        assert_eq!(allowed, expected, "{who} {verb} {resource}");
    }
}

#[tokio::test]
async fn the_policies_pass_the_type_checker() {
    let tenant = Tenant::new().await;
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(tenant.cluster.client().clone());
    for name in [
        "rehome-registrations",
        "rehome-controller-fields",
        "rehome-grants",
    ] {
        let checked = async || policies.get(name).await.unwrap().status?.type_checking;
        let checked = expect("the type checker's verdict", PATIENCE, checked).await;
        assert_eq!(checked.expression_warnings, None, "{name}");
    }
}
