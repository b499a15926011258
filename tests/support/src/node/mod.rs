//! A node that runs pods: containerd, kubelet, kube-proxy and `CoreDNS`, with the control plane beside
//! them, on a [`Machine`] of their own. Needs root.
//!
//! ```text
//!  machine (namespaces of its own)                            outside (a network namespace)
//!  ┌──────────────────────────────────────────────┐          ┌───────────────────────────┐
//!  │ control plane, containerd, kubelet,          │  veth    │ devices that are not pods │
//!  │ kube-proxy, `CoreDNS`       at 10.200.0.1 ─────┼──────────┤ 10.200.0.2                │
//!  │ pods 10.201.0.0/24, Services 10.96.0.0/16,   │          └───────────────────────────┘
//!  │ load balancers 10.200.1.0/24                 │
//!  └──────────────────────────────────────────────┘
//! ```
//!
//! The ranges can be the same for every run: nobody else is in there.

mod census;
mod cloud;
mod containers;
mod kind;
mod machine;
mod pause;
mod settings;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Node as Object;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;

pub use kind::{Kind, kind_image};
pub use machine::Machine;

use cloud::Cloud;

use crate::cluster::Cluster;
use crate::control_plane::{ControlPlane, NODE};
use crate::process::Process;
use settings::Settings;

/// Longest time for a part to serve, on a machine that is busy compiling.
const READY: Duration = Duration::from_mins(3);

/// A cluster with one node.
pub struct Node {
    parts: Option<Parts>,
    settings: Settings,
    program: PathBuf,
    cluster: Cluster,
    _cloud: Cloud,
    plane: ControlPlane,
}

/// What runs on the node. In the order in which it ends.
struct Parts {
    dns: Process,
    kube_proxy: Process,
    kubelet: Process,
    containerd: Process,
}

impl Node {
    /// Starts control plane and node, and waits until pods can be scheduled.
    pub async fn start(machine: &Machine) -> Result<Self> {
        let directory = crate::warden::scratch("node")?;
        let plane =
            ControlPlane::start_for(&directory.join("plane"), machine.pod_network()).await?;
        let cluster = Cluster::of(&plane).await?;
        let settings = Settings::write(&directory, plane.directory(), machine)?;
        let pause = pause::archive(&directory)?;
        let mut node = Self {
            parts: None,
            _cloud: Cloud::over(&cluster, &directory.join("disks")).await?,
            program: plane.program().to_owned(),
            settings,
            cluster,
            plane,
        };
        node.boot().await?;
        node.import(&pause)?;
        Ok(node)
    }

    /// The cluster, with all rights.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Brings the images of an archive to the node, as pulling them would.
    pub fn import(&self, archive: &Path) -> Result<()> {
        self.ctr(&["images", "import", &archive.display().to_string()])
            .map(drop)
    }

    /// Kills the containers of that name, of a pod or by themselves, in a namespace, by SIGKILL; says
    /// how many there were. For a container that is called as many others, give the name of its pod.
    pub fn kill_container(&self, namespace: &str, name: &str) -> Result<usize> {
        containers::kill(|arguments| self.ctr(arguments), namespace, name)
    }

    /// Copies what etcd holds, as a backup.
    pub async fn back_up(&mut self, to: &Path) -> Result<()> {
        let copied = self.plane.with_store_at_rest(|store| copy(store, to));
        copied.await
    }

    /// Loses the node and what etcd holds, and makes the cluster anew from a backup. Disks of pods are
    /// as they are.
    pub async fn restore(&mut self, from: &Path) -> Result<()> {
        self.crash().await?;
        let restored = self.plane.with_store_at_rest(|store| {
            std::fs::remove_dir_all(store)?;
            copy(from, store)
        });
        restored.await?;
        self.boot().await
    }

    /// Takes the power from the node: every process on it dies, with all containers.
    pub async fn crash(&mut self) -> Result<()> {
        let mut parts = self.parts.take().context("the node is down already")?;
        for process in [
            &mut parts.kubelet,
            &mut parts.containerd,
            &mut parts.kube_proxy,
            &mut parts.dns,
        ] {
            process.kill()?;
        }
        self.settings.kill_containers().await
    }

    /// Starts the node again over what is on its disk, and waits until it is ready.
    pub async fn boot(&mut self) -> Result<()> {
        ensure!(self.parts.is_none(), "the node runs already");
        let settings = &self.settings;
        let component = |name: &str, arguments: &[String]| {
            let arguments = std::iter::once(name.to_owned()).chain(arguments.iter().cloned());
            Process::spawn(
                name,
                &self.program,
                arguments,
                settings.environment(),
                settings.log(name),
            )
        };
        let mut containerd = Process::spawn(
            "containerd",
            "containerd",
            ["--config".as_ref(), settings.containerd().as_os_str()],
            settings.environment(),
            settings.log("containerd"),
        )?;
        containerd
            .wait_until("containerd to answer", READY, async |_| {
                Ok(self.ctr(&["version"]).ok().map(drop))
            })
            .await?;
        let nodes: Api<Object> = Api::all(self.cluster.client().clone());
        let before = nodes
            .get_opt(NODE)
            .await?
            .and_then(|node| ready_since(&node));
        let mut parts = Parts {
            dns: component("coredns", &settings.dns())?,
            kube_proxy: component("kube-proxy", &settings.kube_proxy())?,
            kubelet: component("kubelet", &settings.kubelet())?,
            containerd,
        };
        parts
            .kubelet
            .wait_until("the node to be ready", READY, async |_| {
                let node = nodes.get_opt(NODE).await?;
                let said = node.and_then(|node| ready_since(&node));
                Ok((said.is_some() && said != before).then_some(()))
            })
            .await?;
        parts.dns.wait_for_port(settings.dns_ready(), READY).await?;
        self.parts = Some(parts);
        Ok(())
    }

    fn ctr(&self, arguments: &[&str]) -> Result<String> {
        let mut ctr = Command::new("ctr");
        ctr.arg("--address").arg(self.settings.socket());
        ctr.args(["--namespace", "k8s.io"]).args(arguments);
        let output = ctr.output().context("cannot run ctr")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("ctr {} failed: {}", arguments.join(" "), said.trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status();
    let status = status.context("cannot run cp")?;
    ensure!(
        status.success(),
        "cannot copy {} to {}",
        from.display(),
        to.display()
    );
    Ok(())
}

/// When the node last said that it is ready, if that is what it said.
fn ready_since(node: &Object) -> Option<Time> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions
        .iter()
        .find(|one| one.type_ == "Ready" && one.status == "True");
    ready?.last_heartbeat_time.clone()
}
