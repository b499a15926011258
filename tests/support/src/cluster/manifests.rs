//! Applying manifests as `kubectl apply --server-side` does.

use std::time::Duration;

use anyhow::{Context, Result};
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::{GroupVersionKind, TypeMeta};
use kube::discovery::{ApiCapabilities, ApiResource, Scope, pinned_kind};
use serde_json::Value;

use super::Cluster;
use crate::wait::until;

/// Longest time for a `CustomResourceDefinition` to be served after it was applied.
const SERVED: Duration = Duration::from_secs(30);

impl Cluster {
    /// Applies every document of `yaml` in order, by server-side apply with all rights. Namespaced
    /// objects that name no namespace go into `default`. A refusal of the API server can be taken
    /// out of the error with `downcast_ref::<kube::Error>()`.
    pub async fn apply(&self, yaml: &str) -> Result<Vec<DynamicObject>> {
        self.apply_in("default", yaml).await
    }

    pub(super) async fn apply_in(&self, namespace: &str, yaml: &str) -> Result<Vec<DynamicObject>> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).context("invalid YAML")?;
        let mut applied = Vec::new();
        for document in documents.into_iter().filter(|document| !document.is_null()) {
            applied.push(self.apply_object(namespace, document).await?);
        }
        Ok(applied)
    }

    /// Applies one object; a namespaced one that names no namespace goes into `namespace`.
    pub async fn apply_object(&self, namespace: &str, document: Value) -> Result<DynamicObject> {
        let params = PatchParams::apply("rehome-testing").force();
        self.patch_object(namespace, document, &params).await
    }

    /// Has the API server check what applying the object would do, and changes nothing.
    pub async fn dry_run(&self, object: &Value) -> Result<DynamicObject> {
        let params = PatchParams::apply("rehome-testing").force().dry_run();
        self.patch_object("default", object.clone(), &params).await
    }

    async fn patch_object(
        &self,
        namespace: &str,
        document: Value,
        params: &PatchParams,
    ) -> Result<DynamicObject> {
        let types: TypeMeta =
            serde_json::from_value(document.clone()).context("no apiVersion or no kind")?;
        let kind = GroupVersionKind::try_from(&types)?;
        let name = document["metadata"]["name"].as_str();
        let name = name
            .with_context(|| format!("{} without a name", kind.kind))?
            .to_owned();
        let (resource, capabilities) = self.discover(&kind).await?;
        let api: Api<DynamicObject> = match (capabilities.scope, &document["metadata"]["namespace"])
        {
            (Scope::Cluster, _) => Api::all_with(self.client.clone(), &resource),
            (Scope::Namespaced, other) => {
                let namespace = other.as_str().unwrap_or(namespace);
                Api::namespaced_with(self.client.clone(), namespace, &resource)
            }
        };
        api.patch(&name, params, &Patch::Apply(document))
            .await
            .with_context(|| format!("cannot apply {} {name}", kind.kind))
    }

    /// Waits for a kind that a document before may have defined.
    async fn discover(&self, kind: &GroupVersionKind) -> Result<(ApiResource, ApiCapabilities)> {
        until(SERVED, async || pinned_kind(&self.client, kind).await)
            .await
            .map_err(|error| error.map_or_else(|| anyhow::anyhow!("no answer"), Into::into))
            .with_context(|| {
                format!(
                    "{}/{} {} is not served",
                    kind.group, kind.version, kind.kind
                )
            })
    }
}
