//! Commands of pages that need no pods, as a person runs them: on a real cluster, with a device that
//! lives at a hub.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use rehome_testing::device::{Applicant, Key, Protocol};
use rehome_testing::fleet::{API_VERSION, Tenant};
use rehome_testing::markdown::Page;
use rehome_testing::shell::Shell;
use rehome_testing::{Authority, Cluster, Installation, expect_ok, scratch};
use serde_json::json;

use super::root;

const PATIENCE: Duration = Duration::from_mins(3);
const DEVICE: &str = "press-7";

#[tokio::test]
async fn commands_of_pages_do_what_the_pages_say() {
    let cluster = Cluster::shared().await.unwrap();
    let rehome = Path::new(env!("CARGO_BIN_EXE_rehome"));
    let installation = Installation::start(&cluster, rehome, &["hub-west", "hub-east"]);
    let installation = installation.await.unwrap();
    let tenant = Tenant::start(&cluster, &installation, "pages")
        .await
        .unwrap();
    let shell = Shell::new(cluster.kubeconfig().to_owned()).unwrap();
    let shell = shell
        .at(&scratch("pages").unwrap(), tenant.namespace.name())
        .unwrap();
    enroll_and_register(&tenant, &installation).await;

    let shown = run(&shell, "docs/failure-modes.md").await;
    assert!(
        shown.contains("hub-west") && shown.contains(DEVICE),
        "{shown}"
    );
    let shown = run(&shell, "docs/operations.md").await;
    assert!(shown.contains("condition met"), "{shown}");
    // The page moves the device to hub-east.
    let east = installation.hubs[1].host();
    moved(&tenant, &east).await;
    assert!(
        installation.hubs[1]
            .identity(DEVICE)
            .await
            .unwrap()
            .is_some()
    );
    prove_possession(&shell, &tenant).await;

    tenant.namespace.delete().await.unwrap();
    installation.stop().await.unwrap();
}

/// Every block of a page, in one shell; gives what they print.
async fn run(shell: &Shell, page: &str) -> String {
    let page = Page::read(&root().join(page)).unwrap();
    let lines: Vec<_> = page.commands().collect();
    shell.run(&lines.join("\n")).await.unwrap()
}

/// The device of the pages, at hub-west.
async fn enroll_and_register(tenant: &Tenant, installation: &Installation) {
    let key = Key::random().unwrap();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": { "name": "press-7-keys", "labels": { "rehome.dev/attestation": "true" } },
        "stringData": { "primaryKey": key.to_base64(), "secondaryKey": Key::random().unwrap().to_base64() },
    });
    let enrollment = json!({
        "apiVersion": "rehome.dev/v1alpha1", "kind": "Enrollment",
        "metadata": { "name": DEVICE },
        "spec": {
            "individual": { "registrationId": DEVICE },
            "attestation": { "symmetricKey": { "secretRef": { "name": "press-7-keys" } } },
            "allocation": { "policy": "Static", "hubs": ["hub-west"] },
        },
    });
    let manifests = format!("{secret}\n---\n{enrollment}\n");
    tenant.namespace.apply(&manifests).await.unwrap();
    let device = Applicant {
        scope: tenant.namespace.name().to_owned(),
        registration_id: DEVICE.into(),
        key,
        api_version: API_VERSION.into(),
    };
    expect_ok("the device to be assigned", PATIENCE, async || {
        let told = installation
            .registrar
            .register(&device, Protocol::Https, None);
        let told = told.await?;
        ensure!(told.hub == installation.hubs[0].host(), "{told:?}");
        Ok(())
    })
    .await;
}

async fn moved(tenant: &Tenant, host: &str) {
    let registrations = tenant.objects("DeviceRegistration");
    expect_ok("the device to move", PATIENCE, async || {
        let seen = registrations.get(DEVICE).await?;
        let status = &seen.data["status"];
        ensure!(
            status["assignedHub"] == host && status["transfer"].is_null(),
            "its status is {status}"
        );
        anyhow::Ok(())
    })
    .await;
}

/// The page's own commands prove that whoever wrote the Enrollment has the authority's key.
async fn prove_possession(shell: &Shell, tenant: &Tenant) {
    let plant = Authority::new("Plant CA").unwrap();
    let here = shell.directory();
    std::fs::write(here.join("ca.pem"), plant.cert_pem()).unwrap();
    std::fs::write(here.join("ca.key"), plant.key_pem()).unwrap();
    let enrollment = json!({
        "apiVersion": "rehome.dev/v1alpha1", "kind": "Enrollment",
        "metadata": { "name": "line-3" },
        "spec": {
            "group": {},
            "attestation": { "x509": { "signingCertificates": { "primary": plant.cert_pem() } } },
        },
    });
    tenant
        .namespace
        .apply(&enrollment.to_string())
        .await
        .unwrap();
    is_because(tenant, "CertificateUnverified").await;
    run(shell, "docs/attestation.md").await;
    is_because(tenant, "Settled").await;
}

async fn is_because(tenant: &Tenant, reason: &str) {
    let enrollments = tenant.objects("Enrollment");
    expect_ok(reason, PATIENCE, async || {
        let seen = enrollments.get("line-3").await?;
        let conditions = seen.data["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        let is_so = conditions.any(|one| one["type"] == "Ready" && one["reason"] == reason);
        ensure!(is_so, "its status is {}", seen.data["status"]);
        anyhow::Ok(())
    })
    .await;
}
