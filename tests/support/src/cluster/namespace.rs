//! A namespace that lives as long as a test.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use k8s_openapi::api::core::v1::{Namespace as Object, ServiceAccount};
use kube::api::{DeleteParams, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use super::{Cluster, Identity, connect};
use crate::wait::until;

/// Longest time for the controller manager to give a new namespace its ServiceAccount, or for the
/// API server to accept a deletion.
const PATIENCE: Duration = Duration::from_mins(1);

/// A namespace of a test's own. It is deleted when this is dropped, also by a panic; its end is
/// not waited for.
pub struct Namespace {
    name: String,
    cluster: Cluster,
}

impl Cluster {
    /// Makes a namespace whose name begins with `prefix` and goes on at random. It can be used at
    /// once: its ServiceAccount `default` exists.
    pub async fn namespace(&self, prefix: &str) -> Result<Namespace> {
        let object = Object {
            metadata: ObjectMeta {
                generate_name: Some(format!("{prefix}-")),
                ..ObjectMeta::default()
            },
            ..Object::default()
        };
        let api: Api<Object> = Api::all(self.client.clone());
        let made = api.create(&PostParams::default(), &object).await;
        let made = made.with_context(|| format!("cannot make a namespace {prefix}-…"))?;
        let name = made.metadata.name.context("a namespace without a name")?;
        let namespace = Namespace {
            name,
            cluster: self.clone(),
        };
        let accounts: Api<ServiceAccount> = namespace.api();
        until(PATIENCE, async || accounts.get("default").await)
            .await
            .map_err(|error| error.map_or_else(|| anyhow::anyhow!("no answer"), Into::into))
            .with_context(|| format!("namespace {} has no ServiceAccount", namespace.name))?;
        Ok(namespace)
    }
}

impl Namespace {
    /// The name that the API server chose.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// An API of a namespaced kind here, with all rights.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.cluster.client.clone(), &self.name)
    }

    /// As [`Cluster::apply`]; namespaced objects that name no namespace go into this one.
    pub async fn apply(&self, yaml: &str) -> Result<Vec<DynamicObject>> {
        self.cluster.apply_in(&self.name, yaml).await
    }

    /// From now on takes only pods that the level `restricted` of pod security allows.
    pub async fn restrict(&self) -> Result<()> {
        let labels = json!({ "metadata": { "labels": {
            "pod-security.kubernetes.io/enforce": "restricted",
            "pod-security.kubernetes.io/enforce-version": "latest",
        } } });
        let api: Api<Object> = Api::all(self.cluster.client.clone());
        let (labels, parameters) = (Patch::Merge(labels), PatchParams::default());
        api.patch(&self.name, &parameters, &labels).await?;
        Ok(())
    }

    /// Deletes it and waits until it is gone: whoever holds finalizers in it must be at work.
    pub async fn delete(self) -> Result<()> {
        let api: Api<Object> = Api::all(self.cluster.client.clone());
        api.delete(&self.name, &DeleteParams::background()).await?;
        let gone = until(PATIENCE, async || match api.get_opt(&self.name).await {
            Ok(None) => Ok(()),
            Ok(Some(left)) => Err(format!("{:?}", left.status)),
            Err(error) => Err(error.to_string()),
        });
        gone.await
            .map_err(|left| anyhow!("namespace {} does not go: {left:?}", self.name))
    }

    /// As [`Cluster::client_as`], for a ServiceAccount of this namespace.
    pub async fn client_as(&self, service_account: &str) -> Result<Identity> {
        self.cluster.client_as(&self.name, service_account).await
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let (name, kubeconfig) = (self.name.clone(), self.cluster.access.kubeconfig.clone());
        // The runtime of the test may be gone or going, so the request gets one of its own. It is
        // waited for, because nothing lives on after the last test; what it begins is not.
        let request = std::thread::spawn(move || delete(&name, &kubeconfig));
        if let Ok(Err(error)) = request.join() {
            eprintln!("namespace {} is left: {error:#}", self.name);
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn delete(name: &str, kubeconfig: &Path) -> Result<()> {
    let request = async {
        let client: Client = connect(kubeconfig).await?;
        let api: Api<Object> = Api::all(client);
        match api.delete(name, &DeleteParams::background()).await {
            // A test may have waited for its end.
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            deleted => Ok(deleted.map(drop)?),
        }
    };
    tokio::time::timeout(Duration::from_secs(5), request).await?
}
