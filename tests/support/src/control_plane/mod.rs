//! etcd, the API server and the controller manager on free loopback ports, without root.
//!
//! All state is below one directory:
//!
//! ```text
//! admin.kubeconfig   a cluster administrator
//! audit.log          every request, one JSON object a line
//! etcd/ pki/ logs/   as their names say
//! ```

mod arguments;
mod credentials;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

use crate::network::{free_port, loopback};
use crate::process::Process;
use crate::tools;
use arguments::Layout;
pub(crate) use arguments::PodNetwork;
pub(crate) use credentials::{AUDIT_POLICY, NODE};

/// Longest time for one component to become ready, on a machine that is busy compiling.
const READY: Duration = Duration::from_mins(2);

/// A running control plane; dropping it ends its processes.
pub struct ControlPlane {
    // None while its store is at rest.
    parts: Option<Parts>,
    program: PathBuf,
    layout: Layout,
}

/// In the order in which they are ended: nobody is left talking to a server that is gone.
struct Parts {
    scheduler: Option<Process>,
    controller_manager: Process,
    api_server: Option<Process>,
    etcd: Process,
}

impl ControlPlane {
    /// Starts a control plane with its state below `directory`, and waits until it can be used:
    /// the API server is ready and the ServiceAccount `default` of namespace `default` exists.
    pub async fn start(directory: &Path) -> Result<Self> {
        Self::start_with(directory, None).await
    }

    /// As [`Self::start`], with a scheduler, and at an address that pods reach.
    pub(crate) async fn start_for(directory: &Path, pods: PodNetwork) -> Result<Self> {
        Self::start_with(directory, Some(pods)).await
    }

    async fn start_with(directory: &Path, pods: Option<PodNetwork>) -> Result<Self> {
        let program = tools::kube()?;
        let localhost = loopback(1);
        let layout = Layout {
            directory: directory.to_owned(),
            api_server: free_port(localhost)?,
            etcd_client: free_port(localhost)?,
            etcd_peer: free_port(localhost)?,
            pods,
        };
        credentials::write(&layout)?;
        let parts = Some(Parts::start(&program, &layout).await?);
        Ok(Self {
            parts,
            program,
            layout,
        })
    }

    /// Stops all of it, lets `change` do something to the folder of etcd, and starts it again.
    pub(crate) async fn with_store_at_rest(
        &mut self,
        change: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let mut parts = self.parts.take().context("the control plane is stopped")?;
        for process in parts
            .scheduler
            .iter_mut()
            .chain([&mut parts.controller_manager])
        {
            process.kill()?;
        }
        for process in parts.api_server.iter_mut().chain([&mut parts.etcd]) {
            process.kill()?;
        }
        change(&self.layout.directory.join("etcd"))?;
        self.parts = Some(Parts::start(&self.program, &self.layout).await?);
        Ok(())
    }

    /// The kubeconfig of a cluster administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.layout.kubeconfig("admin")
    }

    /// The program that is every Kubernetes component.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// The state directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.layout.directory
    }

    /// Where etcd answers.
    pub(crate) fn etcd_address(&self) -> String {
        format!("http://{}:{}", loopback(1), self.layout.etcd_client)
    }

    /// Kills the API server, as a crash or a lost machine would.
    pub fn stop_api_server(&mut self) -> Result<()> {
        let running = self
            .parts
            .as_mut()
            .and_then(|parts| parts.api_server.take());
        let mut running = running.context("the API server is stopped already")?;
        running.kill().map(drop)
    }

    /// Starts the API server again, on the same port with the same data, and waits until it is
    /// ready.
    pub async fn start_api_server(&mut self) -> Result<()> {
        let parts = self
            .parts
            .as_mut()
            .context("the control plane is stopped")?;
        anyhow::ensure!(parts.api_server.is_none(), "the API server runs already");
        parts.api_server = Some(start_api_server(&self.program, &self.layout).await?);
        Ok(())
    }
}

impl Parts {
    async fn start(program: &Path, layout: &Layout) -> Result<Self> {
        let mut etcd = layout.spawn(program, "etcd", layout.etcd_arguments())?;
        etcd.wait_for_port((loopback(1), layout.etcd_client).into(), READY)
            .await?;
        let api_server = start_api_server(program, layout).await?;
        let arguments = layout.controller_manager_arguments();
        let mut controller_manager = layout.spawn(program, "kube-controller-manager", arguments)?;
        let accounts: Api<ServiceAccount> = Api::default_namespaced(client(layout).await?);
        controller_manager
            .wait_until("the ServiceAccount default/default", READY, async |_| {
                Ok(accounts.get_opt("default").await?.map(drop))
            })
            .await?;
        let schedule = || {
            let arguments = layout.scheduler_arguments();
            layout.spawn(program, "kube-scheduler", arguments)
        };
        let scheduler = layout.pods.map(|_| schedule()).transpose()?;
        Ok(Self {
            scheduler,
            controller_manager,
            api_server: Some(api_server),
            etcd,
        })
    }
}

async fn start_api_server(program: &Path, layout: &Layout) -> Result<Process> {
    let mut process = layout.spawn(program, "kube-apiserver", layout.api_server_arguments())?;
    let client = client(layout).await?;
    process
        .wait_until("the API server to be ready", READY, async |_| {
            let request = http::Request::get("/readyz").body(Vec::new())?;
            Ok(client
                .request_text(request)
                .await
                .is_ok_and(|body| body == "ok")
                .then_some(()))
        })
        .await?;
    Ok(process)
}

/// A client of the administrator that does not retry by itself.
async fn client(layout: &Layout) -> Result<Client> {
    crate::cluster::install_tls_provider();
    let kubeconfig = Kubeconfig::read_from(layout.kubeconfig("admin"))?;
    let options = KubeConfigOptions::default();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}
