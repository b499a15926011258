//! A node that kind makes: a container of Docker, on the network of this machine. Needs root.
//!
//! ```text
//!  node (container)                                         this machine
//!  ┌──────────────────────────────────────────────┐         ┌───────────────────────────────┐
//!  │ control plane, containerd, kubelet, kube-proxy│ bridge  │ devices that are not pods,    │
//!  │ pods, Services 10.96.0.0/16,                  ├─────────┤ routes to the two ranges,     │
//!  │ load balancers 10.200.1.0/24                  │         │ a hosts file of the run's own │
//!  └──────────────────────────────────────────────┘         └───────────────────────────────┘
//! ```
//!
//! Container and routes are the machine's: they are removed when the run has ended, however it ends.

mod config;
mod docker;
mod images;
mod routes;
mod undo;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, anyhow, ensure};
use k8s_openapi::api::core::v1::Node as Object;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;

pub use images::kind_image;

use super::{READY, containers, ready_since};
use crate::cluster::Cluster;
use crate::control_plane::AUDIT_POLICY;
use crate::hosts::Hosts;
use crate::node::cloud::Cloud;
use crate::wait::until;
use crate::warden::{Warden, scratch};
use crate::{namespaces, tools};
use docker::{docker, printed};
use undo::Undo;

/// Of mounts, for the hosts file; of processes, so that none outlives the run.
const NAMESPACES: [&str; 5] = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
/// How kind is told to use Docker.
const PROVIDER: (&str, &str) = ("KIND_EXPERIMENTAL_PROVIDER", "docker");
/// What kind puts on every container of a cluster.
const LABEL: &str = "io.x-k8s.kind.cluster";

/// A cluster with one node.
pub struct Kind {
    run: Run,
    hosts: Hosts,
    cluster: Cluster,
    _cloud: Cloud,
    /// When it said that it was ready, before a crash.
    ready_before: Option<Time>,
}

/// One run, as both the program outside and the one inside know it.
struct Run {
    program: PathBuf,
    /// Of the cluster.
    name: String,
    /// Not that of whoever runs this, which is not touched.
    kubeconfig: PathBuf,
    directory: PathBuf,
    undo: Undo,
}

impl Kind {
    /// Runs this program again, with the same arguments, waits for its end, and removes the cluster and
    /// the routes that it has made. Gives `None` to the program that runs inside already.
    pub fn enter() -> Result<Option<ExitStatus>> {
        if namespaces::are_entered() {
            return Ok(None);
        }
        ensure!(
            rustix::process::geteuid().is_root(),
            "a kind node needs root: Services are routed to it, and the run has a hosts file of its own"
        );
        docker::answers()?;
        routes::are_free()?;
        let warden = Warden::get()?;
        let run = Run::in_directory(warden.directory())?;
        run.undo.hand_over(warden);
        run.undo.note(&run.delete())?;
        let status = namespaces::enter(&NAMESPACES)?;
        if !status.success() {
            run.keep_logs();
        }
        run.undo.run()?;
        run.is_gone()?;
        Ok(Some(status))
    }

    /// Makes the cluster, of that image of a node, and waits until pods can be scheduled.
    pub async fn start(image: &str) -> Result<Self> {
        let directory = scratch("kind")?;
        let parent = directory.parent().and_then(Path::parent);
        let run =
            Run::in_directory(parent.context("the scratch directory is in that of the run")?)?;
        let audit = directory.join("audit");
        std::fs::create_dir(&audit)?;
        std::fs::write(audit.join(config::POLICY), AUDIT_POLICY)?;
        let config = directory.join("cluster.yaml");
        std::fs::write(&config, config::cluster(&audit).to_string())?;
        run.create(image, &config)?;
        routes::lay(docker::address(&run.node())?, &run.undo)?;
        let cluster = Cluster::at(&run.kubeconfig, &audit.join(config::LOG)).await?;
        Ok(Self {
            _cloud: Cloud::of_addresses(&cluster),
            hosts: Hosts::begin_with(&Hosts::of_the_machine()?)?,
            cluster,
            run,
            ready_before: None,
        })
    }

    /// The cluster, with all rights.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Brings the images of an archive to the node.
    pub fn import(&self, archive: &Path) -> Result<()> {
        let mut load = self.run.kind(&["load", "image-archive"]);
        printed(load.arg(archive)).map(drop)
    }

    /// Kills the containers of that name, of a pod or by themselves, by SIGKILL; says how many there were.
    pub fn kill_container(&self, namespace: &str, name: &str) -> Result<usize> {
        let node = self.run.node();
        let ctr = |arguments: &[&str]| {
            let exec = ["exec", &node, "ctr", "--namespace", "k8s.io"];
            docker(&[&exec[..], arguments].concat())
        };
        containers::kill(ctr, namespace, name)
    }

    /// Takes the power from the node: every process on it dies, with all containers.
    pub async fn crash(&mut self) -> Result<()> {
        let node = self.run.node();
        self.ready_before = ready_since(&self.nodes().get(&node).await?);
        docker(&["kill", &node]).map(drop)
    }

    /// Starts the node again over what is on its disk, and waits until it is ready.
    pub async fn boot(&mut self) -> Result<()> {
        let node = self.run.node();
        docker(&["start", &node])?;
        // Docker may have given it another address.
        routes::lay(docker::address(&node)?, &self.run.undo)?;
        let nodes = self.nodes();
        let ready = until(READY, async || {
            let said = ready_since(&nodes.get(&node).await?);
            ensure!(
                said.is_some() && said != self.ready_before,
                "it is not ready"
            );
            anyhow::Ok(())
        });
        ready.await.map_err(|seen| {
            let seen = seen.unwrap_or_else(|| anyhow!("the API server does not answer"));
            seen.context(format!(
                "waited {READY:?} for the node {node} after its restart"
            ))
        })
    }

    fn nodes(&self) -> Api<Object> {
        Api::all(self.cluster.client().clone())
    }

    /// Gives a server a name, for whoever is no pod.
    pub fn name(&self, name: &str, address: IpAddr) -> Result<()> {
        self.hosts.name(name, address)
    }
}

impl Run {
    fn in_directory(directory: &Path) -> Result<Self> {
        Ok(Self {
            program: tools::kind()?,
            name: name(directory)?,
            kubeconfig: directory.join("kubeconfig"),
            undo: Undo::of(directory),
            directory: directory.to_owned(),
        })
    }

    /// The container of the node, as kind calls it.
    fn node(&self) -> String {
        format!("{}-control-plane", self.name)
    }

    /// What it says of its progress is for whoever waits. A node that does not come up stays, for its logs.
    fn create(&self, image: &str, config: &Path) -> Result<()> {
        let mut create = self.kind(&[
            "create", "cluster", "--image", image, "--wait", "3m", "--retain",
        ]);
        create.arg("--config").arg(config);
        create.arg("--kubeconfig").arg(&self.kubeconfig);
        let status = create.stdin(Stdio::null()).status();
        let status = status.context("cannot run kind")?;
        ensure!(
            status.success(),
            "kind has made no cluster of {image} ({status}): see what it said above; an image that \
             cannot be pulled can be brought with docker load"
        );
        Ok(())
    }

    /// A command of kind, which would take podman where Docker does not answer.
    fn kind(&self, arguments: &[&str]) -> Command {
        let mut kind = Command::new(&self.program);
        kind.args(arguments).args(["--name", &self.name]);
        kind.env(PROVIDER.0, PROVIDER.1);
        kind
    }

    /// What removes the cluster.
    fn delete(&self) -> [String; 7] {
        [
            "env".into(),
            format!("{}={}", PROVIDER.0, PROVIDER.1),
            self.program.display().to_string(),
            "delete".into(),
            "cluster".into(),
            format!("--name={}", self.name),
            format!("--kubeconfig={}", self.kubeconfig.display()),
        ]
    }

    fn keep_logs(&self) {
        let logs = self.directory.join("kind-logs");
        match printed(self.kind(&["export", "logs"]).arg(&logs)) {
            Ok(_) => eprintln!("the logs of the node are in {}", logs.display()),
            // There may be no cluster yet.
            Err(error) => eprintln!("no logs of the node: {error:#}"),
        }
    }

    fn is_gone(&self) -> Result<()> {
        routes::are_free()?;
        let label = format!("label={LABEL}={}", self.name);
        let left = docker(&["ps", "--all", "--filter", &label, "--format", "{{.Names}}"])?;
        ensure!(
            left.is_empty(),
            "the run has left a container: docker rm --force --volumes {}",
            left.trim()
        );
        Ok(())
    }
}

/// Of a run's cluster: that of its directory, which nobody else has, in letters that kind allows.
fn name(directory: &Path) -> Result<String> {
    let name = directory.file_name().and_then(|name| name.to_str());
    let name = name.context("the run's directory has a name")?;
    Ok(name.to_lowercase())
}
