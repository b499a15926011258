//! What runs: restricted, each process with its own token only, and reached at the right ports.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use kube::api::PostParams;
use rehome_testing::Cluster;
use rehome_testing::chart::render_chart;
use serde_json::{Value, json};

use crate::values::variants;
use crate::{of_kind, rendered};

/// A pod of a Deployment, which set of values it is from, and whether devices reach it.
struct Planned {
    variant: &'static str,
    pod: Pod,
    gateway: Option<Container>,
}

async fn planned() -> Vec<Planned> {
    let mut planned = Vec::new();
    for variant in variants() {
        let objects = rendered(&variant.values, variant.needs).await;
        let deployments: Vec<_> = of_kind(&objects, "Deployment").map(pod_of).collect();
        assert!(!deployments.is_empty(), "{}", variant.name);
        let all = deployments.into_iter().map(|pod| Planned {
            variant: variant.name,
            gateway: gateway_of(pod.spec.as_ref().unwrap()),
            pod,
        });
        planned.extend(all);
    }
    planned
}

/// The Deployment's pod with the namespace's own ServiceAccount, the chart's not being there.
fn pod_of(deployment: &Value) -> Pod {
    let mut spec = deployment["spec"]["template"]["spec"].clone();
    spec["serviceAccountName"] = "default".into();
    let metadata =
        json!({ "name": "pod", "labels": deployment["spec"]["template"]["metadata"]["labels"] });
    serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()
}

/// The pod of `helm test`.
fn probe(objects: &[Value]) -> Pod {
    let mut pods = of_kind(objects, "Pod");
    let pod = pods.next().unwrap().clone();
    assert!(pods.next().is_none());
    serde_json::from_value(pod).unwrap()
}

fn gateway_of(pod: &PodSpec) -> Option<Container> {
    let containers = pod.init_containers.iter().flatten().chain(&pod.containers);
    let mut gateways = containers.filter(|container| container.name == "gateway");
    gateways.next().cloned()
}

#[tokio::test]
async fn pods_satisfy_the_restricted_level() {
    let cluster = Cluster::shared().await.unwrap();
    let namespace = cluster.namespace("restricted").await.unwrap();
    namespace.restrict().await.unwrap();
    let mut pods: Vec<_> = planned()
        .await
        .into_iter()
        .map(|it| (it.variant, it.pod))
        .collect();
    for variant in variants() {
        let mut pod = probe(&rendered(&variant.values, variant.needs).await);
        pod.metadata.namespace = None;
        pods.push((variant.name, pod));
    }
    for (name, pod) in pods {
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

#[tokio::test]
async fn no_process_mounts_the_token_of_the_other() {
    for Planned {
        variant,
        pod,
        gateway,
    } in planned().await
    {
        let spec = pod.spec.unwrap();
        assert_eq!(
            spec.automount_service_account_token,
            Some(false),
            "{variant}"
        );
        let tokens: BTreeSet<_> = spec
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
        let alone = spec.containers[0].name == "gateway";
        let expected = if alone {
            "gateway-api"
        } else {
            "controller-api"
        };
        assert_eq!(tokens, BTreeSet::from([expected]), "{variant}");
        let Some(gateway) = gateway else { continue };
        for mount in gateway.volume_mounts.iter().flatten() {
            assert_eq!(mount.read_only, Some(true), "{variant}: {}", mount.name);
            // Alone in its pod, whose ServiceAccount is its own.
            assert!(
                alone || !tokens.contains(mount.name.as_str()),
                "{variant}: {}",
                mount.name
            );
        }
        let sidecar = gateway.restart_policy.as_deref() == Some("Always");
        assert_ne!(sidecar, alone, "{variant}");
    }
}

#[tokio::test]
async fn r24_the_service_has_exactly_the_ports_that_sdks_hard_wire() {
    for variant in variants() {
        let name = variant.name;
        let objects = rendered(&variant.values, variant.needs).await;
        let hook =
            |service: &&Value| service["metadata"]["annotations"]["helm.sh/hook"].is_string();
        let mut services = of_kind(&objects, "Service").filter(|service| !hook(service));
        let service = services.next().unwrap()["spec"].clone();
        assert!(services.next().is_none(), "{name}");
        let selected = |pod: &&Pod| {
            let labels = json!(pod.metadata.labels);
            let selector = service["selector"].as_object().unwrap();
            selector.iter().all(|(key, value)| labels[key] == *value)
        };
        let pods: Vec<_> = of_kind(&objects, "Deployment").map(pod_of).collect();
        let behind: Vec<_> = pods.iter().filter(selected).collect();
        let [pod] = behind[..] else {
            panic!(
                "{name}: {} Deployments are behind the Service",
                behind.len()
            )
        };
        let gateway = gateway_of(pod.spec.as_ref().unwrap()).unwrap();
        let ports = gateway.ports.iter().flatten();
        let named: BTreeSet<_> = ports.filter_map(|port| port.name.as_deref()).collect();
        let ports = service["ports"].as_array().unwrap();
        let numbers: BTreeSet<_> = ports.iter().filter_map(|it| it["port"].as_u64()).collect();
        assert_eq!(numbers, BTreeSet::from([443, 5671, 8883]), "{name}");
        for port in ports {
            let target = port["targetPort"].as_str().unwrap();
            assert!(named.contains(target), "{name}: {target}");
        }
    }
}

/// What `helm test` runs holds no secret, and nothing takes its pod for one of the operator's.
#[tokio::test]
async fn the_probe_holds_no_secret_and_is_nobody_elses_pod() {
    for variant in variants() {
        let name = variant.name;
        let objects = rendered(&variant.values, variant.needs).await;
        let pod = probe(&objects);
        let spec = pod.spec.unwrap();
        assert_eq!(spec.automount_service_account_token, Some(false), "{name}");
        let [volume] = &spec.volumes.unwrap()[..] else {
            panic!("{name}: one volume")
        };
        let items = volume.secret.as_ref().unwrap().items.as_ref().unwrap();
        let keys: Vec<_> = items.iter().map(|item| item.key.as_str()).collect();
        assert_eq!(keys, ["tls.crt"], "{name}");
        let labels = json!(pod.metadata.labels);
        for object in &objects {
            let selectors = [
                "/spec/selector",
                "/spec/selector/matchLabels",
                "/spec/podSelector/matchLabels",
            ];
            for selector in selectors.iter().filter_map(|it| object.pointer(it)) {
                let selector = selector.as_object().unwrap();
                let mut strings = selector
                    .iter()
                    .filter(|(_, value)| value.is_string())
                    .peekable();
                let found =
                    strings.peek().is_some() && strings.all(|(key, value)| labels[key] == *value);
                assert!(
                    !found,
                    "{name}: {} {}",
                    object["kind"], object["metadata"]["name"]
                );
            }
        }
    }
}

#[tokio::test]
async fn the_program_knows_the_arguments_that_the_chart_gives_it() {
    let mut pods: Vec<_> = planned()
        .await
        .into_iter()
        .map(|it| (it.variant, it.pod))
        .collect();
    pods.push(("probe", probe(&render_chart(&json!({})).await.unwrap())));
    for (variant, pod) in pods {
        let spec = pod.spec.unwrap();
        for container in spec
            .init_containers
            .into_iter()
            .flatten()
            .chain(spec.containers)
        {
            // The first argument that it does not know ends it with a word about that one.
            let output = std::process::Command::new(env!("CARGO_BIN_EXE_rehome"))
                .args(container.args.unwrap())
                .arg("--beyond-the-chart")
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(
                said.contains("unexpected argument '--beyond-the-chart'"),
                "{variant}, {}: {said}",
                container.name
            );
        }
    }
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
