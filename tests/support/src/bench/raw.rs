//! The raw loops: what the API server does for a client that only writes objects of the shape of a
//! registration. They are of a kind of their own, a copy, which no operator looks at.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use rehome_testing::chart::chart_directory;
use rehome_testing::fleet::Tenant;
use rehome_testing::{Cluster, expect_ok};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::task::JoinSet;

const GROUP: &str = "bench.example";
/// Objects that are written at the same time.
const IN_FLIGHT: usize = 32;

/// Writes copies of one registration.
#[derive(Clone)]
pub(crate) struct Raw {
    api: Api<DynamicObject>,
    resource: ApiResource,
    spec: Value,
    status: Value,
}

impl Raw {
    /// Copies the kind, and takes `like` for what is written.
    pub(crate) async fn prepare(
        cluster: &Cluster,
        tenant: &Tenant,
        like: &DynamicObject,
    ) -> Result<Self> {
        let file = chart_directory().join("../../crds/rehome.dev_deviceregistrations.yaml");
        let text = std::fs::read_to_string(&file).context("the kind's definition")?;
        let mut definition: Value = serde_saphyr::from_str(&text)?;
        definition["metadata"]["name"] = format!("deviceregistrations.{GROUP}").into();
        definition["spec"]["group"] = GROUP.into();
        definition["spec"]["names"]["categories"] = json!([]);
        definition["spec"]["names"]["shortNames"] = json!([]);
        cluster.apply(&definition.to_string()).await?;
        let kind = GroupVersionKind::gvk(GROUP, "v1alpha1", "DeviceRegistration");
        let resource = ApiResource::from_gvk(&kind);
        let namespace = tenant.namespace.name();
        let raw = Self {
            api: Api::namespaced_with(cluster.client().clone(), namespace, &resource),
            resource,
            spec: like.data["spec"].clone(),
            status: like.data["status"].clone(),
        };
        expect_ok("the copied kind", Duration::from_secs(30), async || {
            raw.create("probe").await
        })
        .await;
        Ok(raw)
    }

    /// POST and status patch, per second.
    pub(crate) async fn registrations(&self, prefix: &str, count: usize) -> Result<f64> {
        self.each(prefix, count, async |raw, name| {
            raw.create(&name).await?;
            raw.status(&name, 0).await
        })
        .await
    }

    /// One write of the spec and three of the status of what [`Self::registrations`] made, per
    /// second.
    pub(crate) async fn moves(&self, prefix: &str, count: usize) -> Result<f64> {
        self.each(prefix, count, async |raw, name| {
            let patch = json!({ "spec": { "request": { "operationId": "4.moved" } } });
            let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
            raw.api.patch(&name, &params, &patch).await?;
            for step in 1..=3 {
                raw.status(&name, step).await?;
            }
            Ok(())
        })
        .await
    }

    async fn create(&self, name: &str) -> Result<()> {
        let mut object = DynamicObject::new(name, &self.resource);
        object.metadata.finalizers = Some(vec![format!("{GROUP}/registration")]);
        object.data = json!({ "spec": self.spec });
        self.api.create(&PostParams::default(), &object).await?;
        Ok(())
    }

    async fn status(&self, name: &str, step: u8) -> Result<()> {
        let mut status = self.status.clone();
        status["operationId"] = format!("4.step.{step}").into();
        let patch = Patch::Merge(json!({ "status": status }));
        let params = PatchParams::default();
        self.api.patch_status(name, &params, &patch).await?;
        Ok(())
    }

    async fn each<F>(
        &self,
        prefix: &str,
        count: usize,
        work: impl Fn(Self, String) -> F + Copy + Send + 'static,
    ) -> Result<f64>
    where
        F: Future<Output = Result<()>> + Send,
    {
        let begin = Instant::now();
        let next = Arc::new(AtomicUsize::new(0));
        let mut workers = JoinSet::new();
        for _ in 0..IN_FLIGHT {
            let (raw, next, prefix) = (self.clone(), next.clone(), prefix.to_owned());
            workers.spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return anyhow::Ok(());
                    }
                    work(raw.clone(), format!("{prefix}-{number}")).await?;
                }
            });
        }
        while let Some(done) = workers.join_next().await {
            done??;
        }
        Ok(f64::from(u32::try_from(count)?) / begin.elapsed().as_secs_f64())
    }
}
