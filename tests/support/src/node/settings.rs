//! The files that containerd, kubelet, kube-proxy and `CoreDNS` read, and the flags they run with.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::machine::Machine;
use super::pause;
use crate::control_plane::NODE;
use crate::wait::until;

/// Where Debian puts network plugins.
const PLUGINS: &str = "/usr/lib/cni";
/// Longest time for killed processes to be gone.
const GONE: Duration = Duration::from_secs(30);

/// The state of a node.
pub(super) struct Settings {
    directory: PathBuf,
    plane: PathBuf,
    machine: std::net::Ipv4Addr,
    cgroup: String,
}

impl Settings {
    pub(super) fn write(directory: &Path, plane: &Path, machine: &Machine) -> Result<Self> {
        let settings = Self {
            directory: directory.to_owned(),
            plane: plane.to_owned(),
            machine: machine.pod_network().machine,
            cgroup: machine.cgroup().to_owned(),
        };
        for folder in ["cni", "kubelet", "logs", "pod-logs"] {
            std::fs::create_dir_all(directory.join(folder))?;
        }
        let network = settings.network(machine.pod_network().pods);
        let address = settings.machine;
        for (name, content) in [
            ("cni/10-pods.conflist", network.to_string()),
            ("containerd.toml", settings.containerd_toml()),
            ("resolv.conf", format!("nameserver {address}\n")),
            ("kubelet.yaml", settings.kubelet_yaml().to_string()),
            (
                "kube-proxy.yaml",
                settings
                    .kube_proxy_yaml(machine.pod_network().pods)
                    .to_string(),
            ),
            ("Corefile", settings.corefile()),
        ] {
            let file = directory.join(name);
            std::fs::write(&file, content).with_context(|| file.display().to_string())?;
        }
        Ok(settings)
    }

    /// A proxy of the machine is for other places.
    pub(super) fn environment(&self) -> [(&'static str, String); 1] {
        [("NO_PROXY", format!("127.0.0.1,{}", self.machine))]
    }

    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.directory.join("logs").join(format!("{name}.log"))
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.directory.join("containerd.sock")
    }

    pub(super) fn containerd(&self) -> PathBuf {
        self.directory.join("containerd.toml")
    }

    pub(super) fn kubelet(&self) -> Vec<String> {
        vec![
            format!("--config={}", self.file("kubelet.yaml")),
            format!(
                "--kubeconfig={}",
                self.plane.join("kubelet.kubeconfig").display()
            ),
            format!("--root-dir={}", self.file("kubelet")),
            format!("--hostname-override={NODE}"),
            format!("--node-ip={}", self.machine),
        ]
    }

    pub(super) fn kube_proxy(&self) -> Vec<String> {
        vec![format!("--config={}", self.file("kube-proxy.yaml"))]
    }

    pub(super) fn dns(&self) -> Vec<String> {
        vec!["-conf".into(), self.file("Corefile")]
    }

    /// Where `CoreDNS` says that it is ready.
    pub(super) fn dns_ready(&self) -> SocketAddr {
        (self.machine, 8181).into()
    }

    /// Kills what is left in containers, and what containerd has put beside each.
    pub(super) async fn kill_containers(&self) -> Result<()> {
        let gone = until(GONE, async || {
            let left = self.in_containers()?;
            for pid in &left {
                if let Some(pid) = i32::try_from(*pid).ok().and_then(Pid::from_raw) {
                    // It may have died by itself.
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            ensure!(left.is_empty(), "processes {left:?}");
            anyhow::Ok(())
        });
        gone.await
            .map_err(|left| anyhow!("containers do not end: {left:?}"))
    }

    /// Ids of processes in this node's control groups, and of the shims.
    fn in_containers(&self) -> Result<Vec<u32>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let path = entry?.path();
            let Some(pid) = path
                .file_name()
                .and_then(OsStr::to_str)
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            let read = |file: &str| std::fs::read(path.join(file)).unwrap_or_default();
            let (cgroup, command) = (read("cgroup"), read("cmdline"));
            let group = format!("/{}/", self.cgroup);
            let shim = command.windows(15).any(|part| part == b"containerd-shim");
            // A zombie has no command line and needs no killing.
            if !command.is_empty() && (shim || String::from_utf8_lossy(&cgroup).contains(&group)) {
                found.push(pid);
            }
        }
        Ok(found)
    }

    fn file(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    fn network(&self, pods: &str) -> serde_json::Value {
        json!({
            "cniVersion": "0.4.0",
            "name": "pods",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": "pods",
                    "isGateway": true,
                    "ipMasq": true,
                    "hairpinMode": true,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": self.file("addresses"),
                        "ranges": [[{ "subnet": pods }]],
                        "routes": [{ "dst": "0.0.0.0/0" }],
                    },
                },
                { "type": "portmap", "capabilities": { "portMappings": true } },
            ],
        })
    }

    fn containerd_toml(&self) -> String {
        let (root, state) = (self.file("containerd"), self.file("containerd-state"));
        let (socket, cni, pause) = (
            self.socket().display().to_string(),
            self.file("cni"),
            pause::NAME,
        );
        // Without the right to lower oom_score_adj, runc would die of trying.
        format!(
            r#"version = 2
root = "{root}"
state = "{state}"
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{PLUGINS}"
    conf_dir = "{cni}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
"#
        )
    }

    fn kubelet_yaml(&self) -> serde_json::Value {
        let pki = |name: &str| self.plane.join("pki").join(name).display().to_string();
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": { "enabled": false },
                "x509": { "clientCAFile": pki("ca.crt") },
                "webhook": { "enabled": true },
            },
            "authorization": { "mode": "Webhook" },
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": format!("/{}", self.cgroup),
            "failSwapOn": false,
            "containerRuntimeEndpoint": format!("unix://{}", self.socket().display()),
            "clusterDNS": [self.machine],
            "clusterDomain": "cluster.local",
            "resolvConf": self.file("resolv.conf"),
            "tlsCertFile": pki("kubelet.crt"),
            "tlsPrivateKeyFile": pki("kubelet.key"),
            // The machine is not ours alone: nothing of it is set aside, and little is enough.
            "enforceNodeAllocatable": [],
            "localStorageCapacityIsolation": false,
            "evictionHard": {
                "memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%",
            },
            "imageGCHighThresholdPercent": 100,
            "podLogsDir": self.file("pod-logs"),
            "volumePluginDir": self.file("volume-plugins"),
            // Secrets that change are in the pods within seconds, not a minute.
            "syncFrequency": "5s",
            "configMapAndSecretChangeDetectionStrategy": "Watch",
        })
    }

    fn kube_proxy_yaml(&self, pods: &str) -> serde_json::Value {
        json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clientConnection": {
                "kubeconfig": self.plane.join("kube-proxy.kubeconfig").display().to_string(),
            },
            "clusterCIDR": pods,
            "hostnameOverride": NODE,
            // Limits of connection tracking belong to the whole machine.
            "conntrack": { "maxPerCore": 0 },
        })
    }

    /// `CoreDNS` as the administrator: it only reads, and only in here.
    fn corefile(&self) -> String {
        let (address, kubeconfig) = (self.machine, self.plane.join("admin.kubeconfig"));
        format!(
            ".:53 {{\n  bind {address}\n  errors\n  ready {address}:8181\n  kubernetes cluster.local \
             {{\n    kubeconfig {}\n    pods verified\n    ttl 1\n  }}\n}}\n",
            kubeconfig.display()
        )
    }
}
