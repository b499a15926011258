//! Connections to the API server.

use std::path::PathBuf;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

/// A watch is silent for up to a minute between bookmarks; anything beyond is a dead connection.
const WATCH_SILENCE: Duration = Duration::from_secs(90);
/// A server that takes longer to accept a connection is as good as down.
const CONNECT: Duration = Duration::from_secs(5);

/// Where the API server is and who we are there.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Connection {
    /// Kubeconfig to use instead of the pod's own ServiceAccount.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// File with the bearer token to use, read again when it changes; wins over the user of the
    /// kubeconfig.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// API server's address, together with --server-ca, when there is no kubeconfig and no pod.
    #[arg(long, value_name = "URL", requires = "server_ca")]
    pub server: Option<http::Uri>,
    /// PEM file with the API server's CA, for --server.
    #[arg(long, value_name = "FILE")]
    pub server_ca: Option<PathBuf>,
}

/// A connection that could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig is no good.
    #[error("kubeconfig {path} cannot be used")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<KubeconfigError>,
    },
    /// Neither a flag nor a pod says where the API server is.
    #[error("there is no API server to talk to: give --kubeconfig, or run in a pod")]
    Nowhere(#[source] kube::config::InferConfigError),
    /// The client cannot be built.
    #[error("the client of the API server cannot be built")]
    Client(#[source] Box<kube::Error>),
}

/// Two clients: the long silences of a watch must not look like a request that hangs.
#[derive(Clone)]
pub struct Clients {
    /// For watches.
    pub watches: Client,
    /// For everything else: a response that takes longer than the timeout is an error.
    pub requests: Client,
}

impl Connection {
    /// Connects; retries nothing by itself, because a device may be waiting and the caller knows
    /// better when to try again.
    pub async fn clients(&self, request_timeout: Duration) -> Result<Clients, ConnectError> {
        let base = self.config().await?;
        let client = |read_timeout| {
            let mut config = base.clone();
            config.default_retry = false;
            config.connect_timeout = Some(CONNECT);
            config.read_timeout = Some(read_timeout);
            config.reset_reader_on_write = true;
            config.write_timeout = Some(request_timeout);
            Client::try_from(config).map_err(|error| ConnectError::Client(Box::new(error)))
        };
        Ok(Clients {
            watches: client(WATCH_SILENCE)?,
            requests: client(request_timeout)?,
        })
    }

    async fn config(&self) -> Result<Config, ConnectError> {
        let mut config = match (&self.kubeconfig, &self.server) {
            (Some(path), _) => from_kubeconfig(path).await?,
            (None, Some(server)) => {
                let mut config = Config::new(server.clone());
                config.root_cert_file.clone_from(&self.server_ca);
                config
            }
            (None, None) => Config::infer().await.map_err(ConnectError::Nowhere)?,
        };
        if let Some(path) = &self.token_file {
            config.auth_info = kube::config::AuthInfo {
                token_file: Some(path.display().to_string()),
                ..Default::default()
            };
        }
        Ok(config)
    }
}

async fn from_kubeconfig(path: &PathBuf) -> Result<Config, ConnectError> {
    let failed = |source| ConnectError::Kubeconfig {
        path: path.clone(),
        source: Box::new(source),
    };
    let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(failed)
}
