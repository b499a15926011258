//! Where the parts of a control plane are, and the flags that they run with.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::network::loopback;
use crate::process::Process;

/// Where pods run that a control plane is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PodNetwork {
    /// The address of the machine that pods reach; the control plane is there too.
    pub(crate) machine: Ipv4Addr,
    /// Addresses of pods.
    pub(crate) pods: &'static str,
}

/// The folder and the ports of one control plane.
pub(super) struct Layout {
    pub(super) directory: PathBuf,
    pub(super) api_server: u16,
    pub(super) etcd_client: u16,
    pub(super) etcd_peer: u16,
    /// None where no pods run.
    pub(super) pods: Option<PodNetwork>,
}

impl Layout {
    /// A file of the public-key infrastructure.
    pub(super) fn pki(&self, file: &str) -> PathBuf {
        self.directory.join("pki").join(file)
    }

    /// The kubeconfig of a user.
    pub(super) fn kubeconfig(&self, user: &str) -> PathBuf {
        self.directory.join(format!("{user}.kubeconfig"))
    }

    /// The address of the API server.
    pub(super) fn address(&self) -> Ipv4Addr {
        self.pods.map_or(loopback(1), |network| network.machine)
    }

    /// Starts a component with its log in `logs`.
    pub(super) fn spawn(
        &self,
        program: &Path,
        component: &str,
        flags: Vec<String>,
    ) -> Result<Process> {
        let log = self.directory.join("logs").join(format!("{component}.log"));
        let arguments = std::iter::once(component.to_owned()).chain(flags);
        let no_proxy = format!("{},{}", loopback(1), self.address());
        let environment = [
            // A proxy of the machine is for other places than loopback.
            ("NO_PROXY", no_proxy.as_str()),
            // Memory is there, and processors are what tests wait for: collect garbage less often.
            ("GOGC", "400"),
        ];
        Process::spawn(component, program, arguments, environment, log)
    }

    pub(super) fn etcd_arguments(&self) -> Vec<String> {
        let client = format!("http://{}:{}", loopback(1), self.etcd_client);
        let peer = format!("http://{}:{}", loopback(1), self.etcd_peer);
        vec![
            format!("--data-dir={}", self.directory.join("etcd").display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
            // The state does not outlive the machine, nor even the run.
            "--unsafe-no-fsync".into(),
            "--log-level=warn".into(),
        ]
    }

    pub(super) fn api_server_arguments(&self) -> Vec<String> {
        let pki = |file| self.pki(file).display().to_string();
        let mut arguments = vec![
            format!("--etcd-servers=http://{}:{}", loopback(1), self.etcd_client),
            format!("--bind-address={}", self.address()),
            format!("--advertise-address={}", self.address()),
            format!("--secure-port={}", self.api_server),
            "--service-cluster-ip-range=10.96.0.0/16".into(),
            format!("--tls-cert-file={}", pki("api-server.crt")),
            format!("--tls-private-key-file={}", pki("api-server.key")),
            format!("--client-ca-file={}", pki("ca.crt")),
            "--authorization-mode=Node,RBAC".into(),
            "--enable-admission-plugins=NodeRestriction".into(),
            "--service-account-issuer=https://kubernetes.default.svc".into(),
            format!("--service-account-key-file={}", pki("service-accounts.pub")),
            format!(
                "--service-account-signing-key-file={}",
                pki("service-accounts.key")
            ),
            format!(
                "--audit-policy-file={}",
                self.directory.join("audit-policy.yaml").display()
            ),
            format!(
                "--audit-log-path={}",
                self.directory.join("audit.log").display()
            ),
            // Written before the response ends, so that counting is exact, and never rotated.
            "--audit-log-mode=blocking".into(),
            "--audit-log-maxsize=1000000".into(),
        ];
        if self.pods.is_some() {
            arguments.extend([
                format!("--kubelet-client-certificate={}", pki("kubelet-client.crt")),
                format!("--kubelet-client-key={}", pki("kubelet-client.key")),
                format!("--kubelet-certificate-authority={}", pki("ca.crt")),
                // Nobody resolves the node's name.
                "--kubelet-preferred-address-types=InternalIP".into(),
            ]);
        } else {
            // There are no pods that would look for `kubernetes.default`, and an Endpoints object
            // must not hold a loopback address.
            arguments.push("--endpoint-reconciler-type=none".into());
        }
        arguments
    }

    pub(super) fn scheduler_arguments(&self) -> Vec<String> {
        vec![
            format!("--kubeconfig={}", self.kubeconfig("scheduler").display()),
            "--leader-elect=false".into(),
            "--secure-port=0".into(),
        ]
    }

    pub(super) fn controller_manager_arguments(&self) -> Vec<String> {
        let pki = |file| self.pki(file).display().to_string();
        let kubeconfig = self.kubeconfig("controller-manager");
        vec![
            format!("--kubeconfig={}", kubeconfig.display()),
            format!(
                "--service-account-private-key-file={}",
                pki("service-accounts.key")
            ),
            format!("--root-ca-file={}", pki("ca.crt")),
            format!("--cluster-signing-cert-file={}", pki("ca.crt")),
            format!("--cluster-signing-key-file={}", pki("ca.key")),
            "--use-service-account-credentials=true".into(),
            "--leader-elect=false".into(),
            // It serves nothing that anybody here reads.
            "--secure-port=0".into(),
            // Tests make and delete many namespaces; the defaults (20, 30) make them wait.
            "--kube-api-qps=200".into(),
            "--kube-api-burst=400".into(),
            "--concurrent-namespace-syncs=10".into(),
        ]
    }
}
