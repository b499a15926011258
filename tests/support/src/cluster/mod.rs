//! The cluster as a test sees it: clients, namespaces, manifests, the audit log.

mod footprint;
mod identity;
mod manifests;
mod namespace;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::sync::{Mutex, OnceCell};

use crate::audit::Audit;
use crate::control_plane::ControlPlane;
use crate::warden::Warden;

pub use footprint::Footprint;
pub use identity::Identity;
pub use namespace::Namespace;

/// The variable that names the state directory of a running control plane.
pub(crate) const CLUSTER_VARIABLE: &str = "REHOME_CLUSTER";

/// A Kubernetes API server and the right to do anything on it.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    access: Access,
}

/// How to reach a cluster. Unlike a client it is not tied to the runtime of one test.
#[derive(Clone)]
struct Access {
    kubeconfig: PathBuf,
    /// Nobody can read the audit log of an existing cluster.
    audit: Option<Audit>,
    /// A control plane that is this test's own.
    plane: Option<Arc<Mutex<ControlPlane>>>,
}

impl Cluster {
    /// The cluster of the test run, which other tests use at the same time:
    /// with `USE_EXISTING_CLUSTER=true` that of the current kubeconfig context, else the one that
    /// `cluster exec` has started, else one that this process starts for all of its tests.
    pub async fn shared() -> Result<Self> {
        static SHARED: OnceCell<Access> = OnceCell::const_new();
        let access = SHARED.get_or_try_init(Access::of_the_test_run).await?;
        Self::connect(access.clone()).await
    }

    /// A control plane of a test's own, whose API server it may stop. It takes about ten seconds
    /// and 600 MB, and is always built here, also with `USE_EXISTING_CLUSTER`.
    pub async fn private() -> Result<Self> {
        let directory = crate::warden::scratch("cluster")?;
        let plane = ControlPlane::start(&directory).await?;
        let mut access = Access::in_directory(&directory);
        access.plane = Some(Arc::new(Mutex::new(plane)));
        Self::connect(access).await
    }

    /// The cluster of a control plane that somebody else keeps.
    pub(crate) async fn of(plane: &ControlPlane) -> Result<Self> {
        Self::connect(Access::in_directory(plane.directory())).await
    }

    /// The cluster of a kubeconfig, whose API server writes that audit log.
    pub(crate) async fn at(kubeconfig: &Path, audit_log: &Path) -> Result<Self> {
        Self::connect(Access {
            kubeconfig: kubeconfig.to_owned(),
            audit: Some(Audit::new(audit_log)),
            plane: None,
        })
        .await
    }

    async fn connect(access: Access) -> Result<Self> {
        let client = connect(&access.kubeconfig).await?;
        Ok(Self { client, access })
    }

    /// A client with all rights. It belongs to the runtime that `shared` or `private` ran in.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The kubeconfig file of a cluster administrator.
    pub fn kubeconfig(&self) -> &Path {
        &self.access.kubeconfig
    }

    /// The audit log; an existing cluster (`USE_EXISTING_CLUSTER`) has none that can be read.
    pub fn audit(&self) -> Result<&Audit> {
        self.access.audit.as_ref().context(
            "the audit log of an existing cluster cannot be read: run without USE_EXISTING_CLUSTER",
        )
    }

    /// Kills the API server of a private cluster.
    pub async fn stop_api_server(&self) -> Result<()> {
        self.plane()?.lock().await.stop_api_server()
    }

    /// Starts the API server of a private cluster again, at the same address with the same data.
    pub async fn start_api_server(&self) -> Result<()> {
        self.plane()?.lock().await.start_api_server().await
    }

    fn plane(&self) -> Result<&Mutex<ControlPlane>> {
        let plane = self.access.plane.as_deref();
        plane.context("other tests use this API server too: take Cluster::private() to stop it")
    }
}

impl Access {
    async fn of_the_test_run() -> Result<Self> {
        let warden = Warden::get()?;
        warden.keep_when_a_test_fails();
        if uses_existing_cluster() {
            return Self::existing(warden.directory());
        }
        if let Some(directory) = std::env::var_os(CLUSTER_VARIABLE) {
            return Ok(Self::in_directory(Path::new(&directory)));
        }
        let directory = warden.directory().join("cluster");
        let plane = ControlPlane::start(&directory).await?;
        // It serves all tests of this process; the warden ends it with the process.
        Box::leak(Box::new(plane));
        Ok(Self::in_directory(&directory))
    }

    fn in_directory(directory: &Path) -> Self {
        Self {
            kubeconfig: directory.join("admin.kubeconfig"),
            audit: Some(Audit::new(&directory.join("audit.log"))),
            plane: None,
        }
    }

    /// Writes the current context, which may be spread over several files, to one.
    fn existing(directory: &Path) -> Result<Self> {
        let config = Kubeconfig::read().context(
            "USE_EXISTING_CLUSTER is set, but there is no kubeconfig: set KUBECONFIG to one",
        )?;
        let kubeconfig = directory.join("existing.kubeconfig");
        std::fs::write(&kubeconfig, serde_json::to_vec(&config)?)?;
        Ok(Self {
            kubeconfig,
            audit: None,
            plane: None,
        })
    }
}

/// Whether the user wants the tests to run on the cluster of the current kubeconfig context.
pub(crate) fn uses_existing_cluster() -> bool {
    std::env::var("USE_EXISTING_CLUSTER").is_ok_and(|value| value == "true")
}

/// Makes aws-lc-rs the TLS provider of this process; nothing happens if there is one already.
pub(crate) fn install_tls_provider() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// A client for the current context of a kubeconfig file.
async fn connect(kubeconfig: &Path) -> Result<Client> {
    install_tls_provider();
    let connect = async {
        let options = KubeConfigOptions::default();
        let config = Kubeconfig::read_from(kubeconfig)?;
        let config = Config::from_custom_kubeconfig(config, &options).await?;
        anyhow::Ok(Client::try_from(config)?)
    };
    connect
        .await
        .with_context(|| format!("cannot use the kubeconfig {}", kubeconfig.display()))
}
