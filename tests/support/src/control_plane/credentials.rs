//! The keys, certificates and kubeconfigs of a control plane, and what it writes to its audit log.

use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::KeyPair;
use serde_json::json;

use super::arguments::Layout;
use crate::certificates::{Authority, Issued};

/// One line for each request, at its end, or for a watch at its beginning. The control plane's own
/// traffic and health checks are left out: nobody counts them.
pub(crate) const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: [system:apiserver, system:kube-controller-manager, system:kube-scheduler, system:kube-proxy]
- level: None
  userGroups: [system:serviceaccounts:kube-system, system:nodes]
- level: None
  nonResourceURLs: [/readyz*, /livez*, /healthz*]
- level: Metadata
";

/// The only node, where there is one.
pub(crate) const NODE: &str = "node";
const NODE_USER: &str = "system:node:node";

/// Writes everything that the components read at their start.
pub(super) fn write(layout: &Layout) -> Result<()> {
    for folder in ["pki", "logs"] {
        std::fs::create_dir_all(layout.directory.join(folder))?;
    }
    let authority = Authority::new("kubernetes")?;
    let address = layout.address().to_string();
    let names = [
        address.as_str(),
        "10.96.0.1",
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
    ];
    let server = authority.issue_to("kube-apiserver", None, &names)?;
    let tokens = KeyPair::generate()?;
    let files = [
        ("ca.crt", authority.cert_pem()),
        ("ca.key", authority.key_pem()),
        ("api-server.crt", server.cert_pem),
        ("api-server.key", server.key_pem),
        ("service-accounts.key", tokens.serialize_pem()),
        ("service-accounts.pub", tokens.public_key_pem()),
    ];
    for (name, content) in files {
        put(&layout.pki(name), &content)?;
    }
    let mut users = vec![
        ("admin", "admin", Some("system:masters")),
        ("controller-manager", "system:kube-controller-manager", None),
    ];
    if layout.pods.is_some() {
        write_for_nodes(layout, &authority)?;
        users.extend([
            ("scheduler", "system:kube-scheduler", None),
            ("kube-proxy", "system:kube-proxy", None),
            ("kubelet", NODE_USER, Some("system:nodes")),
        ]);
    }
    for (file, user, group) in users {
        let issued = authority.issue_to(user, group, &[] as &[&str])?;
        put(
            &layout.kubeconfig(file),
            &kubeconfig(layout, &authority, &issued),
        )?;
    }
    put(&layout.directory.join("audit-policy.yaml"), AUDIT_POLICY)
}

/// The certificates with which the API server and the kubelet speak to each other.
fn write_for_nodes(layout: &Layout, authority: &Authority) -> Result<()> {
    let api_server = authority.issue_to("kube-apiserver", Some("system:masters"), &[""; 0])?;
    let address = layout.address().to_string();
    let kubelet = authority.issue_to(NODE_USER, Some("system:nodes"), &[NODE, &address])?;
    for (name, issued) in [("kubelet-client", api_server), ("kubelet", kubelet)] {
        put(&layout.pki(&format!("{name}.crt")), &issued.cert_pem)?;
        put(&layout.pki(&format!("{name}.key")), &issued.key_pem)?;
    }
    Ok(())
}

/// A kubeconfig that needs no other file. JSON is YAML.
fn kubeconfig(layout: &Layout, authority: &Authority, user: &Issued) -> String {
    let server = format!("https://{}:{}", layout.address(), layout.api_server);
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "rehome", "cluster": {
            "server": server,
            "certificate-authority-data": STANDARD.encode(authority.cert_pem()),
        }}],
        "users": [{ "name": "rehome", "user": {
            "client-certificate-data": STANDARD.encode(&user.cert_pem),
            "client-key-data": STANDARD.encode(&user.key_pem),
        }}],
        "contexts": [{ "name": "rehome", "context": { "cluster": "rehome", "user": "rehome" } }],
        "current-context": "rehome",
    });
    format!("{config:#}\n")
}

fn put(path: &Path, content: &str) -> Result<()> {
    std::fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}
