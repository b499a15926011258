//! A device with a TPM, on the whole: real API server, controller, hub and two gateways, of which one
//! challenges the device and the other judges the answer.
#![cfg(test)]

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use rehome_testing::device::{Line, Registrar, Session, Tpm, TpmHeldKey, TpmKind};
use rehome_testing::fleet::Tenant;
use rehome_testing::{Cluster, Installation, expect, expect_ok};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_mins(3);
const ID: &str = "saw-1";
/// base64 of 32 bytes.
const SEED: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

struct Stage {
    tenant: Tenant,
    tpm: Tpm,
}

impl Stage {
    async fn enroll(&self) {
        let manifests = [
            json!({
                "apiVersion": "v1", "kind": "Secret",
                "metadata": { "name": "seeds", "labels": { "rehome.dev/attestation": "true" } },
                "stringData": { "seed": SEED },
            }),
            json!({
                "apiVersion": "rehome.dev/v1alpha1", "kind": "Enrollment",
                "metadata": { "name": "saw" },
                "spec": {
                    "individual": { "registrationId": ID, "deviceId": "saw-in-hall-1" },
                    "attestation": { "tpm": {
                        "endorsementKey": self.tpm.endorsement_key().unwrap(),
                        "secretRef": { "name": "seeds" },
                    } },
                },
            }),
        ];
        for manifest in manifests {
            self.tenant
                .namespace
                .apply(&manifest.to_string())
                .await
                .unwrap();
        }
    }

    /// One request at one gateway, on a connection of its own.
    async fn ask(
        &self,
        at: &Registrar,
        method: &str,
        what: &str,
        token: Option<&str>,
    ) -> anyhow::Result<(u16, Value)> {
        let body = if method == "PUT" {
            json!({ "registrationId": ID, "tpm": {
                "endorsementKey": self.tpm.endorsement_key()?,
                "storageRootKey": self.tpm.storage_root_key()?,
            } })
            .to_string()
        } else {
            String::new()
        };
        let token = token.map(|token| format!("Authorization: {token}\r\n"));
        let request = format!(
            "{method} /{}/registrations/{ID}/{what}?api-version=2021-06-01 HTTP/1.1\r\n\
             Host: gateway\r\n{}Content-Length: {}\r\n\r\n{body}",
            self.tenant.namespace.name(),
            token.unwrap_or_default(),
            body.len()
        );
        let mut line = Line::connect(&at.host, at.https, &at.trust).await?;
        let reply = line.ask(request.as_bytes()).await?;
        Ok((reply.code, reply.json()?))
    }

    async fn challenge(&self, at: &Registrar) -> TpmHeldKey<'_> {
        let blob = expect_ok("the challenge", PATIENCE, async || {
            let (code, body) = self.ask(at, "PUT", "register", None).await?;
            ensure!(code == 401, "{code} {body}");
            // Until the Enrollment and its Secret have arrived, this is some other 401.
            let blob = body["authenticationKey"].as_str().map(str::to_owned);
            blob.ok_or_else(|| anyhow::anyhow!("{body}"))
        })
        .await;
        self.tpm.activate(&blob, "challenge").unwrap()
    }
}

#[tokio::test]
async fn a_tpm_is_challenged_by_one_gateway_and_registered_by_another() {
    let cluster = Cluster::shared().await.unwrap();
    let rehome = Path::new(env!("CARGO_BIN_EXE_rehome"));
    let installation = Installation::start(&cluster, rehome, &["hub-west"])
        .await
        .unwrap();
    let (mut second, other) = installation.another_gateway(1, &[]).await.unwrap();
    let stage = Stage {
        tenant: Tenant::start(&cluster, &installation, "tpm").await.unwrap(),
        tpm: Tpm::start(TpmKind::Rsa).await.unwrap(),
    };
    stage.enroll().await;

    let key = stage.challenge(&installation.registrar).await;
    let resource = format!("{}/registrations/{ID}", stage.tenant.namespace.name());
    let token = key.token(&resource, Some("registration")).unwrap();
    let (_, first) = expect_ok("the registration", PATIENCE, async || {
        let (code, body) = stage.ask(&other, "PUT", "register", Some(&token)).await?;
        ensure!(code == 202, "{code} {body}");
        Ok((code, body))
    })
    .await;
    let operation = format!("operations/{}", first["operationId"].as_str().unwrap());
    // Polled at the gateway that did not take the registration.
    let told = expect("the hub", PATIENCE, async || {
        let poll = stage.ask(&installation.registrar, "GET", &operation, Some(&token));
        let (_, body) = poll.await.unwrap();
        (body["status"] == "assigned").then(|| body["registrationState"].clone())
    })
    .await;
    let hub = &installation.hubs[0];
    assert_eq!(told["assignedHub"], hub.host());
    assert_eq!(told["deviceId"], "saw-in-hall-1");

    let blob = told["tpm"]["authenticationKey"].as_str().unwrap();
    let hub_key = stage.tpm.activate(blob, "hub").unwrap();
    let resource = format!("{}/devices/saw-in-hall-1", hub.host());
    let token = hub_key.token(&resource, None).unwrap();
    let (host, trust) = (hub.host(), &installation.registrar.trust);
    let session =
        Session::connect_with_token(&host, hub.place.mqtt(), trust, "saw-in-hall-1", &token);
    let mut session = session.await.unwrap();
    session.report(&json!({ "sharp": true })).await.unwrap();
    let twin = hub.twin("saw-in-hall-1").await.unwrap().unwrap();
    assert_eq!(twin.reported, json!({ "sharp": true }));

    second.terminate(PATIENCE).await.unwrap();
    stage.tenant.namespace.delete().await.unwrap();
    installation.stop().await.unwrap();
}
