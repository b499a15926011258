//! People with the rights that the chart gives them, and the program that they run.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Api;
use kube::api::PostParams;
use rehome_testing::{Cluster, Identity, Namespace, expect};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::cluster::PATIENCE;

/// Somebody at a terminal that is none.
pub(crate) struct Person {
    kubeconfig: PathBuf,
    namespace: String,
}

/// What came of a command.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Person {
    /// An administrator of the cluster.
    pub(crate) fn administrator(cluster: &Cluster, namespace: &Namespace) -> Self {
        Self {
            kubeconfig: cluster.kubeconfig().to_owned(),
            namespace: namespace.name().to_owned(),
        }
    }

    /// Somebody with one of Kubernetes' own roles in the namespace, which the chart adds to.
    pub(crate) async fn with_role(namespace: &Namespace, role: &str) -> Self {
        let manifests = format!(
            "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: person-{role}}}\n---\n\
             apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: person-{role}}}\n\
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {role}}}\n\
             subjects: [{{kind: ServiceAccount, name: person-{role}, namespace: {}}}]\n",
            namespace.name()
        );
        namespace.apply(&manifests).await.unwrap();
        let identity = namespace
            .client_as(&format!("person-{role}"))
            .await
            .unwrap();
        // The controller manager gathers aggregated roles by and by.
        expect("the role to be in force", PATIENCE, async || {
            may_list(&identity, namespace.name()).await.then_some(())
        })
        .await;
        Self {
            kubeconfig: identity.kubeconfig,
            namespace: namespace.name().to_owned(),
        }
    }

    /// Runs the plugin in the namespace.
    pub(crate) async fn types(&self, arguments: &[&str]) -> Said {
        let file = self.kubeconfig.display().to_string();
        let access = ["--kubeconfig", &file, "-n", &self.namespace];
        run(&[&access, arguments].concat(), "").await
    }

    /// As `types`, for a result that is data and a command that must succeed.
    pub(crate) async fn asks(&self, arguments: &[&str]) -> Value {
        let said = self.types(&[arguments, &["-o", "json"]].concat()).await;
        serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"))
    }
}

/// Runs the plugin with what it is told by standard input.
pub(crate) async fn run(arguments: &[&str], input: &str) -> Said {
    let program = Path::new(env!("CARGO_BIN_EXE_kubectl-rehome"));
    let mut child = Command::new(program)
        .args(arguments)
        .env_remove("KUBECONFIG")
        .env("HOME", "/nonexistent")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // Whoever does not read its input may be gone already.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    Said {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

async fn may_list(identity: &Identity, namespace: &str) -> bool {
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                namespace: Some(namespace.to_owned()),
                verb: Some("list".into()),
                group: Some("rehome.dev".into()),
                resource: Some("deviceregistrations".into()),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let api: Api<SelfSubjectAccessReview> = Api::all(identity.client.clone());
    let answer = api.create(&PostParams::default(), &review).await.unwrap();
    answer.status.unwrap().allowed
}
