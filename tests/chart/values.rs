//! Values that take every branch of the templates between them.

use serde_json::{Value, json};

/// One way to install the chart.
pub(crate) struct Variant {
    /// Also that of its snapshot.
    pub(crate) name: &'static str,
    pub(crate) values: Value,
    /// Kinds of other projects that the cluster must have.
    pub(crate) needs: &'static [&'static str],
}

impl Variant {
    fn plain(name: &'static str, values: Value) -> Self {
        Self {
            name,
            values,
            needs: &[],
        }
    }
}

pub(crate) fn variants() -> Vec<Variant> {
    let mut variants = with_kubernetes_alone();
    variants.extend(with_other_projects());
    variants
}

fn with_kubernetes_alone() -> Vec<Variant> {
    let plain = Variant::plain;
    vec![
        plain("defaults", json!({})),
        plain(
            "own-certificate",
            json!({ "gateway": { "tls": { "existingSecret": "devices-tls" } } }),
        ),
        plain("without-crds", json!({ "crds": { "install": false } })),
        plain(
            "crds-go-with-the-release",
            json!({ "crds": { "keep": false } }),
        ),
        plain(
            "inside-the-cluster",
            json!({ "service": { "type": "ClusterIP" } }),
        ),
        plain(
            "node-ports",
            json!({ "service": { "type": "NodePort", "externalTrafficPolicy": "Cluster" } }),
        ),
        plain(
            "standalone",
            json!({ "gateway": { "mode": "standalone", "replicas": 5 } }),
        ),
        plain(
            "autoscaled",
            json!({ "gateway": { "mode": "standalone",
                                 "autoscaling": { "enabled": true, "maxReplicas": 20 } } }),
        ),
        plain(
            "some-namespaces",
            json!({ "watch": { "namespaces": ["plant-a", "plant-b"],
                               "idScopes": { "plant-b": "0ne000A1B2C" } } }),
        ),
        plain(
            "some-namespaces-standalone",
            json!({ "watch": { "namespaces": ["plant-a"] }, "gateway": { "mode": "standalone" } }),
        ),
        plain(
            "network-policy",
            json!({ "networkPolicy": { "enabled": true, "egressPorts": [6443],
                                       "metricsFrom": [{ "namespaceSelector": {} }] } }),
        ),
        plain(
            "network-policy-standalone",
            json!({ "networkPolicy": { "enabled": true }, "gateway": { "mode": "standalone" } }),
        ),
        plain(
            "one-replica",
            json!({ "replicas": 1, "podDisruptionBudget": { "enabled": false }, "topologySpread": [] }),
        ),
        plain(
            "traced",
            json!({ "tracing": { "endpoint": "http://collector.observability:4318", "ratio": 0.001 },
                    "networkPolicy": { "enabled": true } }),
        ),
        plain("everything", everything()),
    ]
}

fn with_other_projects() -> Vec<Variant> {
    vec![
        Variant {
            name: "cert-manager",
            values: json!({ "gateway": { "tls": {
                "hostNames": ["devices.example.com", "dps.example.com"],
                "certManager": { "enabled": true, "issuerRef": { "name": "letsencrypt" } },
            } } }),
            needs: &["cert-manager.io/v1"],
        },
        Variant {
            name: "gateway-api",
            values: json!({ "tlsRoute": { "enabled": true, "gateway": { "name": "edge", "namespace": "edge" } } }),
            needs: &["gateway.networking.k8s.io/v1/TLSRoute"],
        },
        Variant {
            name: "monitoring",
            values: json!({ "monitoring": {
                "podMonitor": { "enabled": true, "labels": { "release": "prometheus" } },
                "prometheusRule": { "enabled": true, "labels": { "release": "prometheus" } },
                "dashboards": { "enabled": true, "annotations": { "grafana_folder": "Rehome" } },
            } }),
            needs: &["monitoring.coreos.com/v1"],
        },
        Variant {
            name: "pod-monitor-standalone",
            values: json!({ "monitoring": { "podMonitor": { "enabled": true } },
                            "gateway": { "mode": "standalone" } }),
            needs: &["monitoring.coreos.com/v1"],
        },
    ]
}

fn everything() -> Value {
    json!({
        "replicas": 3,
        "fullnameOverride": "provisioning",
        "image": { "repository": "registry.example/rehome", "digest": format!("sha256:{:064}", 7) },
        "imagePullSecrets": [{ "name": "registry" }],
        "admissionPolicy": { "exemptUsers": ["system:serviceaccount:velero:velero", "restore"] },
        "log": { "filter": "info,rehome::gateway=debug", "format": "json" },
        "controller": { "extraArgs": ["--hub-call-timeout=10s"] },
        "gateway": { "extraArgs": ["--max-connections=1000"], "unlimitedNetworks": ["198.51.100.0/24", "2001:db8::/32"],
                     "proxyProtocolFrom": ["10.0.0.0/8", "2001:db8::/32"], "tls": { "hostNames": ["a.example", "b.example"] } },
        "service": { "loadBalancerClass": "example.com/lb", "annotations": { "a/b": "c" } },
        "serviceAccounts": { "annotations": { "a/b": "c" } },
        "podDisruptionBudget": { "maxUnavailable": "20%" },
        "podAnnotations": { "a/b": "c" }, "podLabels": { "team": "line-3" },
        "nodeSelector": { "kubernetes.io/os": "linux" },
        "tolerations": [{ "operator": "Exists" }],
        "affinity": { "nodeAffinity": {} },
        "topologySpread": [{ "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule" }],
        "priorityClassName": "system-cluster-critical",
    })
}
