//! The chart renders, is accepted by Helm and the API server, and its pods are restricted.

#![cfg(test)]

mod accepted;
mod pods;
mod readme;
mod refused;
mod snapshots;
mod values;

use rehome_testing::Cluster;
use rehome_testing::chart::{RELEASE_NAMESPACE, chart_directory, helm, render_text};
use serde_json::Value;

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

/// Every object, on a cluster that has these kinds besides Kubernetes' own.
async fn rendered(values: &Value, needs: &[&str]) -> Vec<Value> {
    let text = render_text(values, needs).await.unwrap();
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    objects.into_iter().filter(|it| !it.is_null()).collect()
}
