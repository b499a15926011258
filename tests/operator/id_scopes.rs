//! Namespaces that claim one ID scope: whoever does not get it is told.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use rehome::api::v1alpha1::Enrollment;
use rehome_testing::{Cluster, Installation, expect_ok};
use serde_json::{Value, json};

use super::world::group;

/// Longest time for a change to be seen.
const SEEN: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_namespace_whose_id_scope_is_another_ones_is_told_at_its_enrollments() {
    let cluster = Cluster::private().await.unwrap();
    let rehome = Path::new(env!("CARGO_BIN_EXE_rehome"));
    let installation = Installation::start(&cluster, rehome, &[]).await.unwrap();
    let namespace = cluster.namespace("younger").await.unwrap();
    namespace
        .apply(&group("line", "keys", &json!({})).to_string())
        .await
        .unwrap();
    let enrollments: Api<Enrollment> = namespace.api();
    let is = async |reason: &str, words: &str| {
        expect_ok(reason, SEEN, async || {
            let seen = enrollments.get("line").await?;
            let conditions = seen.status.unwrap_or_default().conditions;
            let ready = conditions
                .iter()
                .find(|condition| condition.type_ == "Ready");
            let said = ready.map(|ready| (ready.reason.as_str(), ready.message.as_str()));
            ensure!(
                said.is_some_and(|(why, message)| why == reason && message.contains(words)),
                "{said:?}"
            );
            Ok(())
        })
        .await;
    };
    // Nothing is wrong with the scope, which is the namespace's name.
    is("SecretMissing", "keys").await;
    claim(&cluster, namespace.name(), json!("Default")).await;
    is(
        "IdScopeTaken",
        "belongs to Namespace default, which is older",
    )
    .await;
    claim(&cluster, namespace.name(), json!("no scope")).await;
    is("IdScopeInvalid", "may hold ASCII letters").await;
    claim(&cluster, namespace.name(), json!("0ne000A1B2C")).await;
    is("SecretMissing", "keys").await;

    // The older one comes to claim it, and goes away from it.
    claim(&cluster, "default", json!("0NE000A1B2C")).await;
    is("IdScopeTaken", "belongs to Namespace default").await;
    claim(&cluster, "default", Value::Null).await;
    is("SecretMissing", "keys").await;
    installation.stop().await.unwrap();
}

async fn claim(cluster: &Cluster, namespace: &str, scope: Value) {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Namespace"));
    let namespaces = Api::<DynamicObject>::all_with(cluster.client().clone(), &kind);
    let patch = json!({ "metadata": { "annotations": { "rehome.dev/id-scope": scope } } });
    let (patch, parameters) = (Patch::Merge(patch), PatchParams::default());
    namespaces
        .patch(namespace, &parameters, &patch)
        .await
        .unwrap();
}
