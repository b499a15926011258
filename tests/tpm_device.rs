//! Devices with a TPM, on the whole: real API server, controller, hub and gateways. One registers over
//! HTTPS, challenged by one gateway and judged by another; one over AMQP.
#![cfg(test)]

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use rehome_testing::device::amqp::{Amqp, Ask};
use rehome_testing::device::{Registrar, Session, Tpm, TpmApplicant, TpmKind};
use rehome_testing::fleet::Tenant;
use rehome_testing::{Cluster, Installation, expect_ok};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_mins(3);
/// base64 of 32 bytes.
const SEED: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

struct Stage {
    installation: Installation,
    tenant: Tenant,
}

/// A device that has an individual Enrollment of its name.
struct Device {
    tpm: Tpm,
    id: &'static str,
    name_at_hub: &'static str,
}

impl Stage {
    fn scope(&self) -> &str {
        self.tenant.namespace.name()
    }

    async fn enroll(&self, devices: &[&Device]) {
        let seeds = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": "seeds", "labels": { "rehome.dev/attestation": "true" } },
            "stringData": { "seed": SEED },
        });
        let mut manifests = vec![seeds];
        manifests.extend(devices.iter().map(|device| {
            json!({
                "apiVersion": "rehome.dev/v1alpha1", "kind": "Enrollment",
                "metadata": { "name": device.id },
                "spec": {
                    "individual": {
                        "registrationId": device.id, "deviceId": device.name_at_hub,
                    },
                    "attestation": { "tpm": {
                        "endorsementKey": device.tpm.endorsement_key().unwrap(),
                        "secretRef": { "name": "seeds" },
                    } },
                },
            })
        }));
        for manifest in manifests {
            let manifest = manifest.to_string();
            self.tenant.namespace.apply(&manifest).await.unwrap();
        }
    }

    /// Registers over HTTPS: challenged by one gateway, registered by another. What it is told in the
    /// end.
    async fn register_over_https(&self, device: &Device, other: &Registrar) -> Value {
        let registrar = &self.installation.registrar;
        let applicant = TpmApplicant {
            tpm: &device.tpm,
            scope: self.scope(),
            registration_id: device.id,
            api_version: "2021-06-01",
        };
        // Until the Enrollment and its Secret have arrived, it is refused.
        let key = expect_ok("the challenge", PATIENCE, async || {
            applicant.challenge(registrar).await
        })
        .await;
        let token = applicant.token(&key).unwrap();
        let first = expect_ok("the registration", PATIENCE, async || {
            applicant.register(other, &token).await
        })
        .await;
        let operation = first["operationId"].as_str().unwrap();
        // Polled at the gateway that did not take the registration.
        expect_ok("the hub", PATIENCE, async || {
            let told = applicant.poll(registrar, &token, operation).await?;
            ensure!(told["status"] == "assigned", "{told}");
            Ok(told["registrationState"].clone())
        })
        .await
    }

    /// Registers over AMQP, where SASL brings the challenge and takes the token.
    async fn register_over_amqp(&self, device: &Device) -> Value {
        let registrar = &self.installation.registrar;
        let mut amqp = expect_ok("the challenge", PATIENCE, async || {
            Amqp::connect_with_tpm(registrar, &device.tpm, self.scope(), device.id).await
        })
        .await;
        let first = amqp.ask(Ask::register(b"{}")).await.unwrap();
        let operation = first.body["operationId"].as_str().unwrap();
        expect_ok("the hub", PATIENCE, async || {
            let told = amqp.ask(Ask::poll(operation)).await?.body;
            ensure!(told["status"] == "assigned", "{told}");
            Ok(told["registrationState"].clone())
        })
        .await
    }

    /// The device lives where it was told to, with the key that it was told.
    async fn lives_at_its_hub(&self, device: &Device, told: &Value) {
        let hub = &self.installation.hubs[0];
        assert_eq!(told["assignedHub"], hub.host());
        assert_eq!(told["deviceId"], device.name_at_hub);
        let blob = told["tpm"]["authenticationKey"].as_str().unwrap();
        let key = device.tpm.activate(blob, "hub").unwrap();
        let resource = format!("{}/devices/{}", hub.host(), device.name_at_hub);
        let token = key.token(&resource, None).unwrap();
        let trust = &self.installation.registrar.trust;
        let mut session = Session::connect_with_token(
            &hub.host(),
            hub.place.mqtt(),
            trust,
            device.name_at_hub,
            &token,
        )
        .await
        .unwrap();
        session.report(&json!({ "sharp": true })).await.unwrap();
        let twin = hub.twin(device.name_at_hub).await.unwrap().unwrap();
        assert_eq!(twin.reported, json!({ "sharp": true }));
    }
}

#[tokio::test]
async fn tpms_register_over_https_at_two_gateways_and_over_amqp_and_live_at_the_hub() {
    let cluster = Cluster::shared().await.unwrap();
    let rehome = Path::new(env!("CARGO_BIN_EXE_rehome"));
    let installation = Installation::start(&cluster, rehome, &["hub-west"])
        .await
        .unwrap();
    let (mut second, other) = installation.another_gateway(1, &[]).await.unwrap();
    let tenant = Tenant::start(&cluster, &installation, "tpm").await.unwrap();
    let stage = Stage {
        installation,
        tenant,
    };
    let over_https = Device {
        tpm: Tpm::start(TpmKind::Rsa).await.unwrap(),
        id: "saw-1",
        name_at_hub: "saw-in-hall-1",
    };
    let over_amqp = Device {
        tpm: Tpm::start(TpmKind::Ecc).await.unwrap(),
        id: "saw-2",
        name_at_hub: "saw-in-hall-2",
    };
    stage.enroll(&[&over_https, &over_amqp]).await;

    let told = stage.register_over_https(&over_https, &other).await;
    stage.lives_at_its_hub(&over_https, &told).await;
    let told = stage.register_over_amqp(&over_amqp).await;
    stage.lives_at_its_hub(&over_amqp, &told).await;
    // Who came over AMQP is known over HTTPS too.
    let again = stage.register_over_https(&over_amqp, &other).await;
    assert_eq!(again["assignedHub"], told["assignedHub"]);
    assert_eq!(again["substatus"], "initialAssignment");

    second.terminate(PATIENCE).await.unwrap();
    stage.tenant.namespace.delete().await.unwrap();
    stage.installation.stop().await.unwrap();
}
