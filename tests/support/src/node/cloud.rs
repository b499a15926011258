//! What a cloud gives a cluster: addresses for load balancers, and disks for those who claim them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Service};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::cluster::Cluster;

/// Addresses of load balancers: this network, from 1. Whoever is outside sends them to the machine,
/// where kube-proxy knows them.
const ADDRESSES: [u8; 3] = [10, 200, 1];
const STORAGE_CLASS: &str = "disks";
/// What the scheduler adds to a claim when a pod wants it.
const SELECTED: &str = "volume.kubernetes.io/selected-node";

/// The cloud, as long as it is not dropped.
pub(super) struct Cloud(JoinHandle<()>);

impl Cloud {
    /// Serves a cluster, with its disks in a folder.
    pub(super) async fn over(cluster: &Cluster, disks: &Path) -> Result<Self> {
        let class = json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": {
                "name": STORAGE_CLASS,
                "annotations": { "storageclass.kubernetes.io/is-default-class": "true" },
            },
            "provisioner": "rehome.dev/test-disks",
            "volumeBindingMode": "WaitForFirstConsumer",
        });
        cluster.apply(&class.to_string()).await?;
        let (client, disks) = (cluster.client().clone(), disks.to_owned());
        Ok(Self(tokio::spawn(async move {
            let served = tokio::select! {
                served = balance(client.clone()) => served,
                served = provide(client.clone(), disks) => served,
            };
            if let Err(error) = served {
                eprintln!("load balancers and disks come to an end: {error:#}");
            }
        })))
    }

    /// Serves a cluster that has disks already.
    pub(super) fn of_addresses(cluster: &Cluster) -> Self {
        let client = cluster.client().clone();
        Self(tokio::spawn(async move {
            if let Err(error) = balance(client).await {
                eprintln!("load balancers come to an end: {error:#}");
            }
        }))
    }
}

/// The addresses that load balancers have.
pub(super) fn range() -> String {
    let [a, b, c] = ADDRESSES;
    format!("{a}.{b}.{c}.0/24")
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Gives each Service of type `LoadBalancer` an address, the same one for as long as it has its name.
async fn balance(client: Client) -> Result<()> {
    let services: Api<Service> = Api::all(client.clone());
    let mut given = BTreeMap::new();
    let mut changes = watcher(services, watcher::Config::default())
        .default_backoff()
        .applied_objects()
        .boxed();
    // A watch that breaks begins again by itself.
    while let Some(change) = changes.next().await {
        let Ok(service) = change else { continue };
        let is_balanced =
            service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer");
        let status = service
            .status
            .as_ref()
            .and_then(|status| status.load_balancer.as_ref());
        if !is_balanced || status.is_some_and(|status| status.ingress.is_some()) {
            continue;
        }
        let namespace = service.namespace().context("a Service has a namespace")?;
        let name = service.name_any();
        let next = u8::try_from(given.len() + 1).context("too many load balancers")?;
        let number = *given
            .entry((namespace.clone(), name.clone()))
            .or_insert(next);
        let [a, b, c] = ADDRESSES;
        let address = Ipv4Addr::new(a, b, c, number);
        let status = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": address }] } } });
        let api: Api<Service> = Api::namespaced(client.clone(), &namespace);
        // It may be gone by now.
        let _ = api
            .patch_status(&name, &PatchParams::default(), &Patch::Merge(status))
            .await;
    }
    Ok(())
}

/// Gives each claim a disk: a folder.
async fn provide(client: Client, disks: PathBuf) -> Result<()> {
    let claims: Api<PersistentVolumeClaim> = Api::all(client.clone());
    let changes = watcher(claims, watcher::Config::default())
        .default_backoff()
        .applied_objects();
    let mut changes = changes.boxed();
    while let Some(change) = changes.next().await {
        let Ok(claim) = change else { continue };
        let Some(spec) = &claim.spec else { continue };
        let is_wanted = claim.annotations().contains_key(SELECTED);
        let is_ours = spec.storage_class_name.as_deref() == Some(STORAGE_CLASS);
        if is_ours && is_wanted && spec.volume_name.is_none() {
            let disk = disk(&claim, &disks)?;
            let size = spec
                .resources
                .as_ref()
                .and_then(|resources| resources.requests.clone());
            let volume = json!({
                "apiVersion": "v1", "kind": "PersistentVolume",
                "metadata": { "name": format!("disk-{}", claim.metadata.uid.as_deref().unwrap_or_default()) },
                "spec": {
                    "storageClassName": STORAGE_CLASS,
                    "capacity": size,
                    "accessModes": spec.access_modes,
                    "hostPath": { "path": disk },
                    "persistentVolumeReclaimPolicy": "Retain",
                    "claimRef": {
                        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                        "namespace": claim.namespace(), "name": claim.name_any(),
                        "uid": claim.metadata.uid,
                    },
                },
            });
            let volumes: Api<PersistentVolume> = Api::all(client.clone());
            // One that exists is of the same claim.
            let _ = volumes
                .create(&PostParams::default(), &serde_json::from_value(volume)?)
                .await;
        }
    }
    Ok(())
}

/// A folder that any user may write: a path of the machine does not become the pod's group's.
fn disk(claim: &PersistentVolumeClaim, disks: &Path) -> Result<PathBuf> {
    let uid = claim.metadata.uid.as_deref().context("a claim has a uid")?;
    let folder = disks.join(uid);
    std::fs::create_dir_all(&folder)?;
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777))?;
    Ok(folder)
}
