//! The cluster that kind is asked for; see "Configuration" and "Auditing" in its documentation.

use std::path::Path;

use serde_json::{Value, json};

/// Of Services; kind's own default, written down because it is routed to the node.
pub(super) const SERVICES: &str = "10.96.0.0/16";
/// Where the folder of the audit log is, on the node and in the API server.
const AUDIT: &str = "/etc/kubernetes/audit";
pub(super) const POLICY: &str = "policy.yaml";
pub(super) const LOG: &str = "audit.log";

/// One node, whose API server writes its audit log to a folder of this machine.
pub(super) fn cluster(audit: &Path) -> Value {
    // Without a version, kind fits these to the kubeadm of the node's image.
    let api_server = json!({
        "kind": "ClusterConfiguration",
        "apiServer": {
            "extraArgs": {
                "audit-policy-file": format!("{AUDIT}/{POLICY}"),
                "audit-log-path": format!("{AUDIT}/{LOG}"),
                // Written before the response ends, and never rotated.
                "audit-log-mode": "blocking",
                "audit-log-maxsize": "1000000",
            },
            "extraVolumes": [{
                "name": "audit", "hostPath": AUDIT, "mountPath": AUDIT,
                "readOnly": false, "pathType": "Directory",
            }],
        },
    });
    let kubelet = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        // Secrets that change are in the pods within seconds, not a minute.
        "syncFrequency": "5s",
    });
    json!({
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "kind": "Cluster",
        "networking": { "ipFamily": "ipv4", "serviceSubnet": SERVICES, "kubeProxyMode": "iptables" },
        "kubeadmConfigPatches": [api_server.to_string(), kubelet.to_string()],
        "nodes": [{
            "role": "control-plane",
            "extraMounts": [{ "hostPath": audit, "containerPath": AUDIT }],
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_server_reads_and_writes_where_the_folder_is_mounted() {
        let cluster = cluster(Path::new("/tmp/run/audit"));
        let mount = &cluster["nodes"][0]["extraMounts"][0];
        assert_eq!(mount["hostPath"], "/tmp/run/audit");
        let patch = cluster["kubeadmConfigPatches"][0].as_str().unwrap();
        let patch: Value = serde_json::from_str(patch).unwrap();
        let server = &patch["apiServer"];
        let folder = mount["containerPath"].as_str().unwrap();
        assert_eq!(server["extraVolumes"][0]["hostPath"], folder);
        assert_eq!(server["extraVolumes"][0]["mountPath"], folder);
        for (flag, file) in [("audit-policy-file", POLICY), ("audit-log-path", LOG)] {
            assert_eq!(server["extraArgs"][flag], format!("{folder}/{file}"));
        }
    }
}
