//! The chart as Helm renders it, and its rights installed on a test cluster.
//!
//! Tests take users, Roles and admission policies from here, so that what they prove
//! holds for an installation.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::{DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::cluster::{Cluster, Identity};
use crate::wait::until;
use crate::{scratch, tools};

/// Name of the release that tests install.
pub const RELEASE: &str = "rehome";

/// Namespace of the release that tests install.
pub const RELEASE_NAMESPACE: &str = "rehome-system";

/// Longest time for new Roles and policies to be in force.
const IN_FORCE: Duration = Duration::from_secs(30);

/// The operator's two users, with exactly the rights that the chart gives them.
pub struct Operator {
    /// Namespace of the release: the Lease and the users are here.
    pub namespace: String,
    /// The controller's ServiceAccount.
    pub controller: Identity,
    /// The gateway's ServiceAccount.
    pub gateway: Identity,
}

/// The chart's directory.
pub fn chart_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/rehome")
}

/// Runs Helm, built if need be, on the cluster of `kubeconfig` if there is one.
pub async fn helm(arguments: &[&str], kubeconfig: Option<&Path>) -> Result<Output> {
    let program = tokio::task::spawn_blocking(tools::helm).await??;
    // Neither the user's settings nor the user's cluster may have a part in it.
    let home = scratch("helm")?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("HOME", &home)
        .env("KUBECONFIG", home.join("none"));
    for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(variable, &home);
    }
    if let Some(kubeconfig) = kubeconfig {
        command.env("KUBECONFIG", kubeconfig);
    }
    command.output().await.context("cannot run helm")
}

/// What `helm template` prints for the chart with these values, on a cluster that has these groups
/// and kinds besides Kubernetes' own.
pub async fn render_text(values: &Value, capabilities: &[&str]) -> Result<String> {
    let file = scratch("values")?.join("values.json");
    std::fs::write(&file, serde_json::to_vec(values)?)?;
    let (chart, file) = (chart_directory(), file.display().to_string());
    let chart = chart.display().to_string();
    let arguments = [
        "template",
        RELEASE,
        &chart,
        "--namespace",
        RELEASE_NAMESPACE,
        "-f",
        &file,
    ];
    let capabilities = capabilities.iter().flat_map(|it| ["--api-versions", it]);
    let arguments: Vec<_> = arguments.into_iter().chain(capabilities).collect();
    let output = helm(&arguments, None).await?;
    if !output.status.success() {
        bail!("helm template: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Every object of the chart with these values, on a cluster with nothing but Kubernetes.
pub async fn render_chart(values: &Value) -> Result<Vec<Value>> {
    let text = render_text(values, &[]).await?;
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).context("rendered chart")?;
    Ok(documents
        .into_iter()
        .filter(|document| !document.is_null())
        .collect())
}

impl Cluster {
    /// Installs what the rendered chart says except what runs (Deployment, the Pod of `helm test`) and
    /// what reaches it (Service, TLS Secret), and waits until it is in force.
    ///
    /// Every test may call it: what is there already is applied again without a change.
    pub async fn install_operator(&self) -> Result<Operator> {
        let objects = render_chart(&json!({})).await?;
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": RELEASE_NAMESPACE },
        });
        let runs = |object: &Value| {
            let kind = object["kind"].as_str().unwrap_or_default();
            ["Deployment", "Pod", "Service", "Secret"].contains(&kind)
        };
        let documents = std::iter::once(namespace).chain(objects);
        for document in documents.filter(|object| !runs(object)) {
            self.apply_object(RELEASE_NAMESPACE, document).await?;
        }
        let operator = Operator {
            namespace: RELEASE_NAMESPACE.into(),
            controller: self
                .client_as(RELEASE_NAMESPACE, "rehome-controller")
                .await?,
            gateway: self.client_as(RELEASE_NAMESPACE, "rehome-gateway").await?,
        };
        for identity in [&operator.controller, &operator.gateway] {
            in_force("the chart's Roles", async || {
                may_list(&identity.client).await
            })
            .await?;
        }
        in_force("the admission policy", async || {
            refuses_people(self.client()).await
        })
        .await?;
        Ok(operator)
    }
}

async fn in_force(what: &str, probe: impl AsyncFnMut() -> Result<()>) -> Result<()> {
    until(IN_FORCE, probe)
        .await
        .map_err(|error| error.unwrap_or_else(|| anyhow::anyhow!("no answer")))
        .with_context(|| format!("{what} not in force after {IN_FORCE:?}"))
}

/// Whether the client's user may list registrations by now.
async fn may_list(client: &Client) -> Result<()> {
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                verb: Some("list".into()),
                group: Some("rehome.dev".into()),
                resource: Some("deviceregistrations".into()),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let review = Api::all(client.clone())
        .create(&PostParams::default(), &review)
        .await?;
    ensure!(
        review.status.is_some_and(|status| status.allowed),
        "not allowed yet"
    );
    Ok(())
}

/// Whether the policies refuse a registration that a person creates by now.
async fn refuses_people(client: &Client) -> Result<()> {
    let kind = GroupVersionKind::gvk("rehome.dev", "v1alpha1", "DeviceRegistration");
    let resource = ApiResource::from_gvk(&kind);
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), RELEASE_NAMESPACE, &resource);
    let person = DynamicObject::new("made-by-a-person", &resource)
        .data(json!({ "spec": { "registrationId": "made-by-a-person" } }));
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    match api.create(&dry_run, &person).await {
        Err(kube::Error::Api(status)) if status.is_forbidden() => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => bail!("a person may create a DeviceRegistration"),
    }
}
