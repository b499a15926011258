//! The control plane is a real one, and the harness counts and refuses what it should.

#![cfg(test)]

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, ServiceAccount};
use kube::api::{DeleteParams, DynamicObject, ListParams, ObjectMeta, PostParams, WatchParams};
use kube::{Api, Client, ResourceExt};
use rehome_testing::{Cluster, expect, expect_ok};

const MINUTE: Duration = Duration::from_mins(1);

const READER: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader}
rules:
- {apiGroups: [''], resources: [configmaps], verbs: [get, list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: reader}]
";

fn config_map(name: &str) -> ConfigMap {
    let metadata = ObjectMeta {
        name: Some(name.into()),
        ..ObjectMeta::default()
    };
    ConfigMap {
        metadata,
        ..ConfigMap::default()
    }
}

#[tokio::test]
async fn the_server_tells_the_version_that_the_module_pins() {
    let cluster = Cluster::shared().await.unwrap();
    let version = cluster.client().apiserver_version().await.unwrap();
    assert_eq!(
        (version.major.as_str(), version.minor.as_str()),
        ("1", "34")
    );
}

#[tokio::test]
async fn a_namespace_goes_with_its_content_when_the_test_is_done_with_it() {
    let cluster = Cluster::shared().await.unwrap();
    let namespace = cluster.namespace("gone").await.unwrap();
    let name = namespace.name().to_owned();
    assert!(name.starts_with("gone-"));
    let maps: Api<ConfigMap> = namespace.api();
    maps.create(&PostParams::default(), &config_map("content"))
        .await
        .unwrap();
    drop(namespace);
    let namespaces: Api<Namespace> = Api::all(cluster.client().clone());
    expect("the namespace's end", MINUTE, async || {
        namespaces
            .get_opt(&name)
            .await
            .unwrap()
            .is_none()
            .then_some(())
    })
    .await;
    assert!(maps.get_opt("content").await.unwrap().is_none());
}

#[tokio::test]
async fn a_namespace_goes_when_the_test_panics() {
    let cluster = Cluster::shared().await.unwrap();
    let namespace = cluster.namespace("panicked").await.unwrap();
    let name = namespace.name().to_owned();
    // Ends as a panic does, without the hook that keeps the logs of failed tests.
    let unwound = tokio::spawn(async move {
        let _namespace = namespace;
        std::panic::resume_unwind(Box::new("a test failed"));
    });
    assert!(unwound.await.unwrap_err().is_panic());
    let namespaces: Api<Namespace> = Api::all(cluster.client().clone());
    let namespace = namespaces.get_opt(&name).await.unwrap();
    assert!(namespace.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some()));
}

#[tokio::test]
async fn owned_objects_are_collected() {
    let cluster = Cluster::shared().await.unwrap();
    let namespace = cluster.namespace("collected").await.unwrap();
    let maps: Api<ConfigMap> = namespace.api();
    let owner = maps
        .create(&PostParams::default(), &config_map("owner"))
        .await
        .unwrap();
    let mut dependent = config_map("owned");
    let reference = kube::Resource::controller_owner_ref(&owner, &()).unwrap();
    dependent.metadata.owner_references = Some(vec![reference]);
    maps.create(&PostParams::default(), &dependent)
        .await
        .unwrap();
    maps.delete("owner", &DeleteParams::background())
        .await
        .unwrap();
    expect("the end of the owned object", MINUTE, async || {
        maps.get_opt("owned").await.unwrap().is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_service_account_may_do_what_its_role_grants_and_nothing_else() {
    let cluster = Cluster::shared().await.unwrap();
    let namespace = cluster.namespace("rbac").await.unwrap();
    namespace.apply(READER).await.unwrap();
    let reader = namespace.client_as("reader").await.unwrap();
    assert_eq!(
        reader.user,
        format!("system:serviceaccount:{}:reader", namespace.name())
    );
    let maps: Api<ConfigMap> = Api::namespaced(reader.client.clone(), namespace.name());
    // The authorizer learns of a new RoleBinding by a watch.
    expect_ok("the role to be in force", MINUTE, async || {
        maps.list(&ListParams::default()).await
    })
    .await;
    let secrets: Api<Secret> = Api::namespaced(reader.client.clone(), namespace.name());
    assert_forbidden(&secrets.list(&ListParams::default()).await.unwrap_err());
    let elsewhere: Api<ConfigMap> = Api::namespaced(reader.client.clone(), "default");
    assert_forbidden(&elsewhere.list(&ListParams::default()).await.unwrap_err());
    let create = maps
        .create(&PostParams::default(), &config_map("mine"))
        .await;
    assert_forbidden(&create.unwrap_err());
}

fn assert_forbidden(error: &kube::Error) {
    assert!(
        matches!(error, kube::Error::Api(status) if status.is_forbidden()),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_kubeconfig_of_a_service_account_works_for_processes() {
    let cluster = Cluster::shared().await.unwrap();
    let namespace = cluster.namespace("kubectl").await.unwrap();
    namespace.apply(READER).await.unwrap();
    let reader = namespace.client_as("reader").await.unwrap();
    let output = std::process::Command::new(rehome_testing::tools::kube().unwrap())
        .args(["kubectl", "auth", "whoami", "--kubeconfig"])
        .arg(&reader.kubeconfig)
        .arg("--output=jsonpath={.status.userInfo.username}")
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), reader.user);
}

#[tokio::test]
async fn helm_is_the_pinned_version_and_reaches_the_cluster() {
    let cluster = Cluster::shared().await.unwrap();
    let helm = |arguments: &[&str]| {
        let mut command = std::process::Command::new(rehome_testing::tools::helm().unwrap());
        command
            .args(arguments)
            .env("KUBECONFIG", cluster.kubeconfig());
        let output = command.output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    let pinned = include_str!("../../helm/go.mod");
    let version = helm(&["version", "--template", "{{.Version}}"]);
    assert!(
        pinned.contains(&format!("helm.sh/helm/v4 {version} ")),
        "{version}"
    );
    assert_eq!(helm(&["list", "--short", "--namespace", "default"]), "");
}

#[tokio::test]
async fn a_rule_of_a_custom_resource_definition_refuses_with_its_message() {
    let cluster = Cluster::shared().await.unwrap();
    let namespace = cluster.namespace("cel").await.unwrap();
    let group = format!("{}.example.com", namespace.name());
    let definition = format!(
        "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: pairs.{group}}}
spec:
  group: {group}
  scope: Namespaced
  names: {{plural: pairs, singular: pair, kind: Pair}}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties: {{left: {{type: integer}}, right: {{type: integer}}}}
            x-kubernetes-validations:
            - {{rule: self.left < self.right, message: left must be less than right}}
"
    );
    let pair = |left| {
        format!(
            "{{apiVersion: {group}/v1, kind: Pair, metadata: {{name: p}}, spec: {{left: {left}, right: 2}}}}"
        )
    };
    // In one go: the kind must be served before the second document is applied.
    let applied = namespace
        .apply(&format!("{definition}---\n{}\n", pair(1)))
        .await
        .unwrap();
    assert_eq!(applied[1].namespace().as_deref(), Some(namespace.name()));
    let refusal = namespace.apply(&pair(3)).await.unwrap_err();
    let Some(kube::Error::Api(status)) = refusal.downcast_ref() else {
        panic!("{refusal:?}")
    };
    assert_eq!(status.code, 422);
    assert!(
        status.message.contains("left must be less than right"),
        "{}",
        status.message
    );
    let definitions: Api<DynamicObject> =
        Api::all_with(cluster.client().clone(), &definition_resource());
    let name = applied[0].name_any();
    definitions
        .delete(&name, &DeleteParams::default())
        .await
        .unwrap();
}

fn definition_resource() -> kube::discovery::ApiResource {
    let kind =
        kube::core::GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    kube::discovery::ApiResource::from_gvk(&kind)
}

#[tokio::test]
async fn the_audit_log_counts_exactly() {
    let cluster = Cluster::shared().await.unwrap();
    let namespace = cluster.namespace("audited").await.unwrap();
    namespace
        .apply(&READER.replace("[get, list]", "['*']"))
        .await
        .unwrap();
    let reader = namespace.client_as("reader").await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(reader.client.clone(), namespace.name());
    expect_ok("the role to be in force", MINUTE, async || {
        maps.list(&ListParams::default()).await
    })
    .await;
    let audit = cluster.audit().unwrap();
    let mark = audit.mark().unwrap();
    for number in 0..40 {
        let name = format!("map-{number}");
        maps.create(&PostParams::default(), &config_map(&name))
            .await
            .unwrap();
        // Each count is taken at once: the line is there when the answer is.
        let requests = audit.since(mark).unwrap().by(&reader.user);
        assert_eq!(
            requests.count("create", "configmaps"),
            number + 1,
            "{requests}"
        );
    }
    maps.list(&ListParams::default()).await.unwrap();
    maps.delete("map-0", &DeleteParams::default())
        .await
        .unwrap();
    let create = maps
        .create(&PostParams::default(), &config_map("map-1"))
        .await;
    assert!(matches!(create, Err(kube::Error::Api(status)) if status.is_already_exists()));
    let requests = audit.since(mark).unwrap().by(&reader.user);
    assert_eq!(requests.len(), 43, "{requests}");
    let mark = audit.mark().unwrap();
    let _watch = maps.watch(&WatchParams::default(), "0").await.unwrap();
    // It counts when it begins.
    assert_eq!(
        audit
            .since(mark)
            .unwrap()
            .by(&reader.user)
            .count("watch", "configmaps"),
        1
    );
    assert_eq!(requests.writes().len(), 42);
    assert_eq!(requests.0.last().unwrap().code, 409);
    assert_eq!(requests.in_namespace(namespace.name()).len(), 43);
    assert!(
        audit
            .since(audit.mark().unwrap())
            .unwrap()
            .by(&reader.user)
            .is_empty()
    );
}

#[tokio::test]
async fn a_token_is_not_given_for_a_service_account_that_does_not_exist() {
    let cluster = Cluster::shared().await.unwrap();
    let error = cluster.client_as("default", "nobody").await.err().unwrap();
    assert!(format!("{error:#}").contains("no token for ServiceAccount default/nobody"));
}

#[tokio::test]
async fn the_shared_api_server_cannot_be_stopped() {
    let cluster = Cluster::shared().await.unwrap();
    let error = cluster.stop_api_server().await.unwrap_err();
    assert!(error.to_string().contains("Cluster::private()"));
}

#[tokio::test]
async fn an_api_server_comes_back_at_its_address_with_its_data() {
    let cluster = Cluster::private().await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client().clone());
    maps.create(&PostParams::default(), &config_map("kept"))
        .await
        .unwrap();
    cluster.stop_api_server().await.unwrap();
    let quick = quick_client(&cluster).await;
    let accounts: Api<ServiceAccount> = Api::default_namespaced(quick);
    assert!(accounts.get("default").await.is_err());
    cluster.start_api_server().await.unwrap();
    maps.get("kept").await.unwrap();
    // The controller manager is back at work too.
    let namespace = cluster.namespace("after").await.unwrap();
    assert!(namespace.client_as("default").await.is_ok());
}

async fn quick_client(cluster: &Cluster) -> Client {
    let kubeconfig = kube::config::Kubeconfig::read_from(cluster.kubeconfig()).unwrap();
    let options = kube::config::KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .unwrap();
    config.default_retry = false;
    Client::try_from(config).unwrap()
}
