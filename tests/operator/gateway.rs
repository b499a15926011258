//! What the controller gives to the gateway: Secrets, one by one, and a token.

use std::os::unix::fs::PermissionsExt as _;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::rbac::v1::Role;
use kube::Api;
use rehome::api::v1alpha1::Enrollment;
use rehome_testing::{expect, expect_ok};
use serde_json::json;

use super::world::{PATIENCE, World, group};

#[tokio::test]
async fn the_gateway_may_read_what_enrollments_refer_to_and_nothing_else() {
    let world = World::new().await;
    let hub = world.hub("west").await;
    world.hub_is("west", "True", "Settled").await;
    let gateway = world.operator.gateway.client.clone();
    let secrets: Api<Secret> = Api::namespaced(gateway, world.namespace.name());
    let is_refused = async |name: &str| match secrets.get(name).await {
        Err(kube::Error::Api(status)) => status.is_forbidden(),
        _ => false,
    };
    for name in ["one", "two", "idle"] {
        world.attestation_secret(name).await;
    }
    for name in ["one", "two"] {
        world.apply(group(name, name, &json!({}))).await;
    }
    // An Enrollment may not make the gateway read a hub's credentials.
    world.apply(group("sly", "west", &json!({}))).await;
    world
        .enrollment_is("sly", "False", "SecretIsHubCredential")
        .await;
    for name in ["one", "two"] {
        expect_ok("a granted Secret", PATIENCE, async || {
            secrets.get(name).await
        })
        .await;
    }
    assert!(is_refused("idle").await && is_refused("west").await);
    let role = world.get::<Role>("rehome-gateway-0").await.unwrap();
    let names = role.rules.unwrap()[0].resource_names.clone().unwrap();
    assert_eq!(names, ["one", "two"]);

    let unlabel = json!({"metadata": {"labels": {"rehome.dev/attestation": null}}});
    world.merge::<Secret>("two", unlabel).await;
    expect("a revoked Secret", PATIENCE, async || {
        is_refused("two").await.then_some(())
    })
    .await;
    for name in ["one", "two", "sly"] {
        world.delete::<Enrollment>(name).await;
    }
    world.gone::<Role>("rehome-gateway-0").await;
    drop(hub);
}

#[tokio::test]
async fn the_gateway_s_token_is_its_own() {
    let world = World::new().await;
    let path = world.folder.join("token");
    let token = expect("a token", PATIENCE, async || {
        std::fs::read_to_string(&path).ok()
    })
    .await;
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    let payload = token.split('.').nth(1).unwrap();
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let payload = base64::Engine::decode(&engine, payload).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(
        claims["sub"],
        "system:serviceaccount:rehome-system:rehome-gateway"
    );
}
