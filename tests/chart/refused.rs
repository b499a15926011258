//! Values and clusters that the chart does not take, and what a person is told.

use rehome_testing::Cluster;
use rehome_testing::chart::{chart_directory, render_chart};
use serde_json::{Value, json};

use crate::{run_helm, set};

#[tokio::test]
async fn values_that_the_chart_does_not_know_are_refused() {
    for (values, place) in [
        (json!({ "replica": 3 }), "replica"),
        (
            json!({ "gateway": { "tls": { "hostNames": [] } } }),
            "/gateway/tls/hostNames",
        ),
        (
            json!({ "image": { "repository": "x", "digest": "latest" } }),
            "/image/digest",
        ),
        (
            json!({ "gateway": { "proxyProtocolFrom": ["my-load-balancer"] } }),
            "/gateway/proxyProtocolFrom/0",
        ),
        (
            json!({ "admissionPolicy": { "exemptUsers": ["' || true || '"] } }),
            "/admissionPolicy/exemptUsers/0",
        ),
        (
            json!({ "gateway": { "mode": "daemonset" } }),
            "/gateway/mode",
        ),
        (
            json!({ "tracing": { "endpoint": "collector:4317" } }),
            "/tracing/endpoint",
        ),
        (json!({ "tracing": { "ratio": 10 } }), "/tracing/ratio"),
        (
            json!({ "log": { "filter": "info,verbose" } }),
            "/log/filter",
        ),
        (
            json!({ "watch": { "namespaces": ["Plant A"] } }),
            "/watch/namespaces/0",
        ),
        (
            json!({ "watch": { "namespaces": ["a", "a"] } }),
            "/watch/namespaces",
        ),
        (
            json!({ "podDisruptionBudget": { "maxUnavailable": 0 } }),
            "maxUnavailable",
        ),
        (
            json!({ "tlsRoute": { "enabled": true } }),
            "/tlsRoute/gateway/name",
        ),
        (
            json!({ "gateway": { "tls": { "certManager": { "enabled": true } } } }),
            "/gateway/tls/certManager/issuerRef/name",
        ),
        (
            json!({ "topologySpread": [{ "topologyKey": "zone", "whenUnsatisfiable": "Maybe" }] }),
            "/topologySpread/0/whenUnsatisfiable",
        ),
    ] {
        let error = render_chart(&values).await.unwrap_err().to_string();
        assert!(
            error.contains("values don't meet the specifications") && error.contains(place),
            "{values}: {error}"
        );
    }
}

#[tokio::test]
async fn values_that_contradict_each_other_or_the_cluster_are_refused() {
    for (values, said) in [
        (
            json!({ "gateway": { "autoscaling": { "enabled": true } } }),
            "needs gateway.mode standalone",
        ),
        (
            json!({ "gateway": { "mode": "standalone", "autoscaling": {
                "enabled": true, "minReplicas": 5, "maxReplicas": 3 } } }),
            "minReplicas (5) is more than maxReplicas (3)",
        ),
        (
            json!({ "watch": { "namespaces": ["a"], "idScopes": { "b": "0ne1" } } }),
            "watch.idScopes names b, which is not in watch.namespaces",
        ),
        (
            json!({ "gateway": { "tls": { "existingSecret": "mine", "certManager": {
                "enabled": true, "issuerRef": { "name": "letsencrypt" } } } } }),
            "two sources of one certificate",
        ),
        (
            json!({ "gateway": { "tls": { "certManager": {
                "enabled": true, "issuerRef": { "name": "letsencrypt" } } } } }),
            "needs cert-manager",
        ),
        (
            json!({ "tlsRoute": { "enabled": true, "gateway": { "name": "edge" } } }),
            "needs TLSRoute of the Gateway API",
        ),
        (
            json!({ "monitoring": { "podMonitor": { "enabled": true } } }),
            "needs the CRDs of the Prometheus operator",
        ),
        (
            json!({ "monitoring": { "prometheusRule": { "enabled": true } } }),
            "files/alerts.yaml is a plain rule file",
        ),
    ] {
        let error = render_chart(&values).await.unwrap_err().to_string();
        assert!(error.contains(said), "{values}: {error}");
    }
}

/// A second installation, on a cluster that nobody else uses.
struct Second {
    cluster: Cluster,
}

impl Second {
    /// Helm's answer to installing `name` with these values.
    async fn install(&self, name: &str, values: &Value) -> Result<String, String> {
        let chart = chart_directory().display().to_string();
        let arguments = ["install", name, &chart, "--namespace", name];
        let only = ["--create-namespace", "--dry-run=server"];
        let arguments = arguments.iter().chain(&only).map(|&it| it.to_owned());
        run_helm(arguments.chain(set(values)).collect(), Some(&self.cluster)).await
    }

    /// What Helm says when it refuses.
    async fn refused(&self, name: &str, values: &Value) -> String {
        let answer = self.install(name, values).await;
        answer.expect_err(&format!("{name} is installed with {values}"))
    }

    /// Installs the part of a release that holds for the whole cluster.
    async fn has(&self, name: &str, values: &Value) {
        let chart = chart_directory().display().to_string();
        let no_pods = ["--set", "replicas=0"];
        let arguments = ["install", name, &chart, "--namespace", name];
        let arguments = arguments
            .iter()
            .chain(&no_pods)
            .chain(&["--create-namespace"]);
        let arguments = arguments.map(|&it| it.to_owned());
        let installed = run_helm(arguments.chain(set(values)).collect(), Some(&self.cluster));
        installed
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[tokio::test]
async fn installations_share_a_cluster_but_no_namespace() {
    let second = Second {
        cluster: Cluster::private().await.unwrap(),
    };
    let [plants, a, ab, c] = [
        ["plant-a", "plant-b"].as_slice(),
        &["plant-a"],
        &["plant-b", "plant-c"],
        &["plant-c"],
    ]
    .map(|namespaces| json!({ "watch": { "namespaces": namespaces } }));
    for namespace in ["plant-a", "plant-b", "plant-c"] {
        let namespace =
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } });
        second
            .cluster
            .apply_object("default", namespace)
            .await
            .unwrap();
    }
    second.has("first", &plants).await;

    let said = second.refused("second", &a).await;
    assert!(
        said.contains("release first in namespace first serves plant-a already"),
        "{said}"
    );
    let said = second.refused("second", &ab).await;
    assert!(
        said.contains("serves plant-b already: take it out"),
        "{said}"
    );
    let said = second.refused("second", &json!({})).await;
    assert!(
        said.contains("serves plant-a, plant-b already: give this"),
        "{said}"
    );

    // CRDs are the first one's, and stay so.
    let rendered = second.install("second", &c).await.unwrap();
    assert!(!rendered.contains("kind: CustomResourceDefinition"));
    second.has("second", &c).await;
    let owner =
        crd(&second.cluster).await["metadata"]["annotations"]["meta.helm.sh/release-name"].clone();
    assert_eq!(owner, "first");

    // What the cluster has is newer than what this chart brings.
    let newer = json!({ "metadata": { "labels": { "app.kubernetes.io/version": "99.0.0" } } });
    patch_crd(&second.cluster, newer).await;
    let said = second
        .refused("third", &json!({ "watch": { "namespaces": ["plant-d"] } }))
        .await;
    assert!(
        said.contains("of Rehome 99.0.0, and this chart brings that of"),
        "{said}"
    );
    let without = json!({ "watch": { "namespaces": ["plant-d"] }, "crds": { "install": false } });
    second.install("third", &without).await.unwrap();
}

fn crds(cluster: &Cluster) -> kube::Api<kube::api::DynamicObject> {
    let kind =
        kube::core::GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    kube::Api::all_with(
        cluster.client().clone(),
        &kube::core::ApiResource::from_gvk(&kind),
    )
}

async fn crd(cluster: &Cluster) -> Value {
    let crd = crds(cluster).get("iothubs.rehome.dev").await.unwrap();
    serde_json::to_value(crd).unwrap()
}

async fn patch_crd(cluster: &Cluster, patch: Value) {
    let patch = kube::api::Patch::Merge(patch);
    let parameters = kube::api::PatchParams::default();
    let crds = crds(cluster);
    let patched = crds.patch("iothubs.rehome.dev", &parameters, &patch);
    patched.await.unwrap();
}
