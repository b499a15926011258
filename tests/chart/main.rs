//! The chart renders, is accepted by Helm and the API server, and its pods are restricted.

#![cfg(test)]

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use rehome_testing::chart::{RELEASE, RELEASE_NAMESPACE, chart_directory, helm};
use rehome_testing::{Cluster, render_chart};
use serde_json::{Value, json};

/// Values that take every branch of the templates between them, by name.
fn variants() -> Vec<(&'static str, Value)> {
    vec![
        ("defaults", json!({})),
        (
            "own-certificate",
            json!({ "gateway": { "tls": { "existingSecret": "devices-tls" } } }),
        ),
        (
            "without-crds",
            json!({ "crds": { "install": false }, "service": { "type": "ClusterIP" } }),
        ),
        (
            "crds-go-with-the-release",
            json!({ "crds": { "keep": false }, "service": { "type": "NodePort" } }),
        ),
        ("everything", everything()),
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
        "controller": { "extraArgs": ["--verbose"] },
        "gateway": { "extraArgs": ["--verbose"], "unlimitedNetworks": ["198.51.100.0/24"],
                     "proxyProtocolFrom": ["10.0.0.0/8", "2001:db8::/32"], "tls": { "hostNames": ["a.example", "b.example"] } },
        "service": { "loadBalancerClass": "example.com/lb", "annotations": { "a/b": "c" } },
        "serviceAccounts": { "annotations": { "a/b": "c" } },
        "podAnnotations": { "a/b": "c" }, "podLabels": { "team": "line-3" },
        "nodeSelector": { "kubernetes.io/os": "linux" },
        "tolerations": [{ "operator": "Exists" }],
        "affinity": { "nodeAffinity": {} },
        "priorityClassName": "system-cluster-critical",
    })
}

/// Arguments that name the chart, the release and the values, after Helm's subcommand.
fn release(values: &Value) -> Vec<String> {
    let chart = chart_directory().display().to_string();
    let mut arguments = vec![
        "rehome".into(),
        chart,
        "--namespace".into(),
        RELEASE_NAMESPACE.into(),
    ];
    arguments.extend(set(values));
    arguments
}

fn set(values: &Value) -> impl Iterator<Item = String> {
    let values = values.as_object().unwrap();
    values
        .iter()
        .flat_map(|(key, value)| ["--set-json".to_owned(), format!("{key}={value}")])
}

async fn run_helm(arguments: Vec<String>, cluster: Option<&Cluster>) -> Result<String, String> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = helm(&arguments, cluster.map(Cluster::kubeconfig))
        .await
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}

fn of_kind<'a>(objects: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}

fn deployment(objects: &[Value]) -> &Value {
    of_kind(objects, "Deployment").next().unwrap()
}

#[tokio::test]
async fn helm_lint_has_nothing_to_say() {
    for (name, values) in variants() {
        let chart = chart_directory().display().to_string();
        let mut arguments = vec!["lint".into(), "--strict".into(), chart];
        arguments.extend(set(&values));
        let said = run_helm(arguments, None)
            .await
            .unwrap_or_else(|said| panic!("{name}: {said}"));
        assert!(said.contains("0 chart(s) failed"), "{name}: {said}");
        assert!(
            !said.contains("[WARNING]") && !said.contains("[ERROR]"),
            "{name}: {said}"
        );
    }
}

#[tokio::test]
async fn values_that_the_chart_does_not_know_are_refused() {
    for values in [
        json!({ "replica": 3 }),
        json!({ "gateway": { "tls": { "hostNames": [] } } }),
        json!({ "image": { "repository": "x", "digest": "latest" } }),
        json!({ "gateway": { "proxyProtocolFrom": ["my-load-balancer"] } }),
        json!({ "admissionPolicy": { "exemptUsers": ["' || true || '"] } }),
    ] {
        let error = render_chart(&values).await.unwrap_err().to_string();
        assert!(
            error.contains("values don't meet the specifications"),
            "{values}: {error}"
        );
    }
}

#[tokio::test]
async fn the_api_server_accepts_every_variant() {
    let cluster = Cluster::shared().await.unwrap();
    for (name, values) in variants() {
        let mut arguments = vec!["install".into(), "--dry-run=server".into()];
        arguments.extend(release(&values));
        // Tests share the cluster: what another has installed is no conflict.
        arguments.extend(["--create-namespace".into(), "--take-ownership".into()]);
        let said = run_helm(arguments, Some(&cluster)).await;
        let said = said.unwrap_or_else(|said| panic!("{name}: {said}"));
        assert!(said.contains("kind: Deployment"), "{name}: {said}");
        apply_dry(&cluster, name, &render_chart(&values).await.unwrap()).await;
    }
}

/// Helm's dry run checks kinds and fields; this has the API server validate each object.
async fn apply_dry(cluster: &Cluster, variant: &str, objects: &[Value]) {
    let namespace = cluster.namespace("chart").await.unwrap();
    for object in objects {
        let mut object = object.clone();
        if object["metadata"]["namespace"].is_string() {
            object["metadata"]["namespace"] = namespace.name().into();
        }
        let name = object["metadata"]["name"].as_str().unwrap();
        let accepted = cluster.dry_run(&object).await;
        accepted.unwrap_or_else(|error| panic!("{variant}: {} {name}: {error:#}", object["kind"]));
    }
}

#[tokio::test]
async fn crds_stay_when_the_release_goes_unless_told_otherwise() {
    let kept = |objects: &[Value]| {
        let crds = of_kind(objects, "CustomResourceDefinition");
        let policy =
            |crd: &Value| crd["metadata"]["annotations"]["helm.sh/resource-policy"].clone();
        crds.map(policy).collect::<Vec<_>>()
    };
    for (name, expected) in [
        ("defaults", vec![json!("keep"); 3]),
        ("crds-go-with-the-release", vec![Value::Null; 3]),
        ("without-crds", vec![]),
    ] {
        let values = variants()
            .into_iter()
            .find(|(known, _)| *known == name)
            .unwrap()
            .1;
        assert_eq!(
            kept(&render_chart(&values).await.unwrap()),
            expected,
            "{name}"
        );
    }
}

#[tokio::test]
async fn pods_satisfy_the_restricted_level() {
    let cluster = Cluster::shared().await.unwrap();
    let namespace = cluster.namespace("restricted").await.unwrap();
    let enforce = json!({ "metadata": { "labels": {
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/enforce-version": "latest",
    } } });
    Api::<Namespace>::all(cluster.client().clone())
        .patch(
            namespace.name(),
            &PatchParams::default(),
            &Patch::Merge(&enforce),
        )
        .await
        .unwrap();
    for (name, values) in variants() {
        let objects = render_chart(&values).await.unwrap();
        let pod = pod_of(deployment(&objects));
        let dry_run = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let created = namespace.api::<Pod>().create(&dry_run, &pod).await;
        created.unwrap_or_else(|error| panic!("{name}: {error}"));

        let mut lax = pod;
        lax.spec.as_mut().unwrap().containers[0].security_context = None;
        let error = namespace
            .api::<Pod>()
            .create(&dry_run, &lax)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("violates PodSecurity \"restricted:latest\""),
            "{name}: {error}"
        );
    }
}

/// The Deployment's pod with the namespace's own ServiceAccount, the chart's not being there.
fn pod_of(deployment: &Value) -> Pod {
    let mut spec = deployment["spec"]["template"]["spec"].clone();
    spec["serviceAccountName"] = "default".into();
    serde_json::from_value(json!({ "metadata": { "name": "pod" }, "spec": spec })).unwrap()
}

#[tokio::test]
async fn the_gateway_never_mounts_the_controllers_token() {
    for (name, values) in variants() {
        let objects = render_chart(&values).await.unwrap();
        let pod = pod_of(deployment(&objects)).spec.unwrap();
        assert_eq!(pod.automount_service_account_token, Some(false), "{name}");
        let with_token: BTreeSet<_> = pod
            .volumes
            .iter()
            .flatten()
            .filter(|volume| {
                serde_json::to_string(volume)
                    .unwrap()
                    .contains("serviceAccountToken")
            })
            .map(|volume| volume.name.as_str())
            .collect();
        assert_eq!(with_token, BTreeSet::from(["controller-api"]), "{name}");
        let gateway = &pod.init_containers.as_ref().unwrap()[0];
        assert_eq!(gateway.restart_policy.as_deref(), Some("Always"), "{name}");
        for mount in gateway.volume_mounts.iter().flatten() {
            assert!(
                !with_token.contains(mount.name.as_str()),
                "{name}: {}",
                mount.name
            );
            assert_eq!(mount.read_only, Some(true), "{name}: {}", mount.name);
        }
    }
}

#[tokio::test]
async fn r24_the_service_has_exactly_the_ports_that_sdks_hard_wire() {
    for (name, values) in variants() {
        let objects = render_chart(&values).await.unwrap();
        let pod = pod_of(deployment(&objects)).spec.unwrap();
        let gateway = &pod.init_containers.as_ref().unwrap()[0];
        let named: BTreeSet<_> = gateway
            .ports
            .iter()
            .flatten()
            .filter_map(|port| port.name.as_deref())
            .collect();
        let mut services = of_kind(&objects, "Service");
        let ports = services.next().unwrap()["spec"]["ports"].clone();
        assert!(services.next().is_none(), "{name}");
        let ports = ports.as_array().unwrap();
        let numbers: BTreeSet<_> = ports.iter().filter_map(|it| it["port"].as_u64()).collect();
        assert_eq!(numbers, BTreeSet::from([443, 5671, 8883]), "{name}");
        for port in ports {
            let target = port["targetPort"].as_str().unwrap();
            assert!(named.contains(target), "{name}: {target}");
        }
    }
}

#[tokio::test]
async fn the_program_knows_the_arguments_that_the_chart_gives_it() {
    let networks = json!({ "unlimitedNetworks": ["198.51.100.0/24", "2001:db8::/32"],
                           "proxyProtocolFrom": ["10.0.0.0/8"] });
    let objects = render_chart(&json!({ "gateway": networks })).await.unwrap();
    let pod = pod_of(deployment(&objects)).spec.unwrap();
    let gateway = pod.init_containers.unwrap().remove(0);
    // The first argument that it does not know ends it with a word about that one.
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_rehome"))
        .args(gateway.args.unwrap())
        .arg("--beyond-the-chart")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("unexpected argument '--beyond-the-chart'"),
        "{said}"
    );
}

#[tokio::test]
async fn the_gateway_may_read_no_secret_by_the_chart() {
    let objects = render_chart(&json!({})).await.unwrap();
    let roles = of_kind(&objects, "ClusterRole").chain(of_kind(&objects, "Role"));
    let gateways: Vec<_> = roles
        .filter(|role| role["metadata"]["name"] == "rehome-gateway")
        .collect();
    assert_eq!(gateways.len(), 1);
    assert!(
        !gateways[0]["rules"].to_string().contains("secrets"),
        "{}",
        gateways[0]["rules"]
    );
}

#[tokio::test]
async fn a_certificate_that_the_chart_made_stays_over_upgrades() {
    let cluster = Cluster::shared().await.unwrap();
    let namespace = cluster.namespace("upgrade").await.unwrap();
    // Helm refuses what other tests may have applied: these names are this test's own.
    let values = json!({ "fullnameOverride": "upgrade", "crds": { "install": false } });
    let rendered = async || -> Value {
        let chart = chart_directory().display().to_string();
        let arguments = ["template", RELEASE, &chart, "--namespace", namespace.name()];
        let only = ["--dry-run=server", "--show-only", "templates/tls.yaml"];
        let arguments = arguments
            .iter()
            .chain(&only)
            .map(|&argument| argument.into());
        let arguments = arguments.chain(set(&values)).collect();
        serde_saphyr::from_str(&run_helm(arguments, Some(&cluster)).await.unwrap()).unwrap()
    };
    let mut first = rendered().await;
    assert!(first["data"]["tls.crt"].is_string(), "{first}");
    assert_ne!(
        first["data"],
        rendered().await["data"],
        "nothing to keep yet"
    );

    // As Helm marks what it installed.
    first["metadata"]["annotations"] = json!({
        "meta.helm.sh/release-name": RELEASE, "meta.helm.sh/release-namespace": namespace.name(),
    });
    namespace.apply(&first.to_string()).await.unwrap();
    assert_eq!(first["data"], rendered().await["data"]);
}
