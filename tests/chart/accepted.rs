//! What Helm and a real API server say to every set of values, and what stays when a release goes on.

use rehome_testing::Cluster;
use rehome_testing::chart::{RELEASE, chart_directory, render_chart};
use rehome_testing::tools::foreign_crds;
use serde_json::{Value, json};

use crate::values::{Variant, variants};
use crate::{of_kind, release, rendered, run_helm, set};

#[tokio::test]
async fn helm_lint_has_nothing_to_say() {
    for Variant {
        name,
        values,
        needs,
    } in variants()
    {
        let chart = chart_directory().display().to_string();
        if !needs.is_empty() {
            // It cannot be told what the cluster has.
            continue;
        }
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
async fn the_api_server_accepts_every_variant() {
    // With the kinds of other projects, which tests that share a cluster do not expect.
    let cluster = Cluster::private().await.unwrap();
    for crd in foreign_crds().unwrap() {
        cluster.apply(&crd).await.unwrap();
    }
    for namespace in ["plant-a", "plant-b"] {
        let namespace =
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } });
        cluster.apply_object("default", namespace).await.unwrap();
    }
    for Variant {
        name,
        values,
        needs,
    } in variants()
    {
        let mut arguments = vec!["install".into(), "--dry-run=server".into()];
        arguments.extend(release(&values));
        arguments.push("--create-namespace".into());
        let said = run_helm(arguments, Some(&cluster)).await;
        let said = said.unwrap_or_else(|said| panic!("{name}: {said}"));
        assert!(said.contains("kind: Deployment"), "{name}: {said}");
        apply_dry(&cluster, name, &rendered(&values, needs).await).await;
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
            .find(|variant| variant.name == name)
            .unwrap()
            .values;
        assert_eq!(
            kept(&render_chart(&values).await.unwrap()),
            expected,
            "{name}"
        );
    }
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

/// What Artifact Hub shows of the chart is what it installs.
#[tokio::test]
async fn the_annotations_for_artifact_hub_are_true() {
    let text = std::fs::read_to_string(chart_directory().join("Chart.yaml")).unwrap();
    let chart: Value = serde_saphyr::from_str(&text).unwrap();
    let annotation = |name: &str| -> Vec<Value> {
        let text = chart["annotations"][format!("artifacthub.io/{name}")].as_str();
        serde_saphyr::from_str(text.unwrap()).unwrap()
    };
    let objects = render_chart(&json!({})).await.unwrap();
    let crds = of_kind(&objects, "CustomResourceDefinition");
    let installed: Vec<_> = crds.map(|crd| crd["metadata"]["name"].clone()).collect();
    let mut named: Vec<_> = annotation("crds")
        .iter()
        .map(|crd| crd["name"].clone())
        .collect();
    named.sort_by_key(ToString::to_string);
    assert_eq!(named, installed);
    let pod = &of_kind(&objects, "Deployment").next().unwrap()["spec"]["template"]["spec"];
    assert_eq!(
        annotation("images")[0]["image"],
        pod["containers"][0]["image"]
    );
    let cluster = Cluster::shared().await.unwrap();
    cluster.install_operator().await.unwrap();
    let namespace = cluster.namespace("examples").await.unwrap();
    for example in annotation("crdsExamples") {
        namespace.apply(&example.to_string()).await.unwrap();
    }
}
