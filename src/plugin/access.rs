//! The API server and the namespace that a person means: as kubectl finds them.

use std::path::PathBuf;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::Failure;

/// Longest that one request may take.
const REQUEST: Duration = Duration::from_secs(30);
/// Longest to connect.
const CONNECT: Duration = Duration::from_secs(10);

/// Which cluster, as whom, and where in it.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Access {
    /// Namespace; that of the kubeconfig's context when absent.
    #[arg(short, long, global = true, value_name = "NAME")]
    pub(super) namespace: Option<String>,
    /// Kubeconfig to use; $KUBECONFIG, or ~/.kube/config, when absent.
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig to use.
    #[arg(long, global = true, value_name = "NAME")]
    pub(super) context: Option<String>,
    /// Act as this user.
    #[arg(long = "as", global = true, value_name = "USER")]
    pub(super) as_user: Option<String>,
    /// Act as a member of this group, with --as; may be repeated.
    #[arg(
        long = "as-group",
        global = true,
        value_name = "GROUP",
        requires = "as_user"
    )]
    pub(super) as_groups: Vec<String>,
}

/// A connection, and the namespace meant.
pub(super) struct Connected {
    pub(super) client: Client,
    pub(super) namespace: String,
}

impl Access {
    /// Connects.
    pub(super) async fn connect(&self) -> Result<Connected, Failure> {
        let failed = |error| {
            Failure::because(
                "there is no API server to talk to: give --kubeconfig or set KUBECONFIG",
                error,
            )
        };
        let kubeconfig = match &self.kubeconfig {
            Some(path) => Kubeconfig::read_from(path),
            None => Kubeconfig::read(),
        };
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..KubeConfigOptions::default()
        };
        let config = Config::from_custom_kubeconfig(kubeconfig.map_err(failed)?, &options).await;
        let mut config = config.map_err(failed)?;
        if self.as_user.is_some() {
            config.auth_info.impersonate.clone_from(&self.as_user);
            config.auth_info.impersonate_groups = Some(self.as_groups.clone());
        }
        // A person sees an error sooner than many silent attempts.
        config.default_retry = false;
        config.connect_timeout = Some(CONNECT);
        config.read_timeout = Some(REQUEST);
        config.write_timeout = Some(REQUEST);
        let namespace = self
            .namespace
            .clone()
            .unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| {
            Failure::because("the client of the API server cannot be built", error)
        })?;
        Ok(Connected { client, namespace })
    }
}
