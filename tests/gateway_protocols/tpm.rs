//! TPM attestation as a device sees it, with a software TPM that opens what it is sent.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use rehome::api::v1alpha1::{ATTESTATION_LABEL, RegistrationState};
use rehome_testing::device::{Tpm, TpmHeldKey, TpmKind};
use serde_json::{Value, json};

use crate::device::{Https, Reply, register_path};
use crate::stage::{KEY, NAMESPACE, SCOPE, Stage, signed};

const ID: &str = "press-7";

/// A gateway that knows the TPM as the device `press-7`.
fn stage_for(tpm: &Tpm, status: &str) -> Stage {
    let stage = Stage::new();
    set_seed(&stage, Some(7));
    stage.enroll_as(
        "one",
        &json!({
            "individual": { "registrationId": ID },
            "provisioningStatus": status,
            "attestation": { "tpm": {
                "endorsementKey": tpm.endorsement_key().unwrap(),
                "secretRef": { "name": "seeds" },
            } },
        }),
    );
    stage
}

fn set_seed(stage: &Stage, byte: Option<u8>) {
    use base64::Engine as _;
    let secret = byte.map(|byte| {
        let seed = base64::engine::general_purpose::STANDARD.encode([byte; 32]);
        let mut secret = Secret {
            data: Some(BTreeMap::from([(
                "seed".to_owned(),
                ByteString(seed.into_bytes()),
            )])),
            ..Secret::default()
        };
        let label = (ATTESTATION_LABEL.to_owned(), "true".to_owned());
        secret.metadata.labels = Some(BTreeMap::from([label]));
        secret
    });
    stage.tenants.set_secret(NAMESPACE, "seeds", secret);
}

fn body(tpm: &Tpm) -> Value {
    json!({
        "registrationId": ID,
        "tpm": {
            "endorsementKey": tpm.endorsement_key().unwrap(),
            "storageRootKey": tpm.storage_root_key().unwrap(),
        },
    })
}

async fn register(stage: &Stage, id: &str, token: Option<&str>, body: &Value) -> Reply {
    let mut device = Https::open(&stage.listen().await).await;
    let line = format!("PUT {}", register_path(id, "2021-06-01"));
    device
        .request(&line, token, "", body.to_string().as_bytes())
        .await
}

/// The key that a challenge brings into the TPM.
async fn challenged<'a>(stage: &Stage, tpm: &'a Tpm) -> TpmHeldKey<'a> {
    let challenge = register(stage, ID, None, &body(tpm)).await;
    assert_eq!(challenge.status, 401, "{}", challenge.body);
    assert_eq!(challenge.body["keyName"], "registration");
    assert!(challenge.body["message"].is_string());
    let blob = challenge.body["authenticationKey"].as_str().unwrap();
    tpm.activate(blob, "challenge").unwrap()
}

fn token_for(key: &TpmHeldKey<'_>, id: &str) -> String {
    let resource = format!("{SCOPE}/registrations/{id}");
    key.token(&resource, Some("registration")).unwrap()
}

#[tokio::test]
async fn a_tpm_opens_the_challenge_and_signs_the_token_that_registers_it() {
    for kind in [TpmKind::Rsa, TpmKind::Ecc] {
        let tpm = Tpm::start(kind).await.unwrap();
        let stage = stage_for(&tpm, "Enabled");
        let key = challenged(&stage, &tpm).await;
        let token = token_for(&key, ID);
        let accepted = register(&stage, ID, Some(&token), &body(&tpm)).await;
        assert_eq!(accepted.status, 202, "{kind:?}: {}", accepted.body);
        assert_eq!(stage.memory.count(), 1, "the challenge wrote nothing");

        stage.memory.finish(ID, RegistrationState::Assigned);
        // The same again, as a device does after a restart: answered from the record.
        let assigned = register(&stage, ID, Some(&token), &body(&tpm)).await;
        assert_eq!(assigned.body["status"], "assigned", "{}", assigned.body);
        assert_eq!(stage.memory.count(), 1);
        let blob = &assigned.body["registrationState"]["tpm"]["authenticationKey"];
        let hub_key = tpm.activate(blob.as_str().unwrap(), "hub").unwrap();
        // It is another key than the challenge's.
        let foreign = token_for(&hub_key, ID);
        let refused = register(&stage, ID, Some(&foreign), &body(&tpm)).await;
        assert_eq!(refused.body["errorCode"], 401_000, "{kind:?}");
    }
}

#[tokio::test]
async fn whoever_is_not_that_tpm_is_told_why() {
    let tpm = Tpm::start(TpmKind::Rsa).await.unwrap();
    let stage = stage_for(&tpm, "Enabled");
    let other = Tpm::start(TpmKind::Rsa).await.unwrap();
    let key = challenged(&stage, &tpm).await;
    let own = token_for(&key, ID);
    let changed = |pointer: &str, value: Value| {
        let mut body = body(&tpm);
        *body.pointer_mut(pointer).unwrap() = value;
        body
    };
    let stranger = signed(ID, &KEY.parse().unwrap(), 4_000_000_000);
    let expired = signed(ID, &KEY.parse().unwrap(), 1);
    for (row, id, token, body, code, words) in [
        (
            "another TPM",
            ID,
            None,
            body(&other),
            404_201,
            "no enrollment",
        ),
        (
            "no enrollment of that id",
            "press-8",
            None,
            changed("/registrationId", "press-8".into()),
            404_201,
            "no enrollment",
        ),
        (
            "no keys of a TPM and no token",
            ID,
            None,
            json!({}),
            401_002,
            "neither a shared access",
        ),
        (
            "an endorsement key that is none",
            ID,
            None,
            changed("/tpm/endorsementKey", "AToA".into()),
            400_001,
            "tpm.endorsementKey",
        ),
        (
            "an endorsement key that is not base64",
            ID,
            None,
            changed("/tpm/endorsementKey", "?".into()),
            400_001,
            "is not base64",
        ),
        (
            "no storage root key",
            ID,
            None,
            changed("/tpm/storageRootKey", Value::Null),
            400_001,
            "tpm.storageRootKey",
        ),
        (
            "a storage root key that is none",
            ID,
            None,
            changed("/tpm/storageRootKey", "AToA".into()),
            400_001,
            "tpm.storageRootKey",
        ),
        (
            "no storage root key beside the token",
            ID,
            Some(&own),
            json!({}),
            400_001,
            "tpm.storageRootKey",
        ),
        (
            "a token that another key signed",
            ID,
            Some(&stranger),
            body(&tpm),
            401_000,
            "signature",
        ),
        (
            "an expired token",
            ID,
            Some(&expired),
            body(&tpm),
            401_002,
            "expired",
        ),
        (
            "a token for another device",
            ID,
            Some(&token_for(&key, "press-8")),
            body(&tpm),
            401_002,
            "another ID scope or registration id",
        ),
    ] {
        let refused = register(&stage, id, token.map(String::as_str), &body).await;
        let message = refused.body["message"].as_str().unwrap_or_default();
        assert_eq!(refused.body["errorCode"], code, "{row}: {}", refused.body);
        assert!(message.contains(words), "{row}: {message}");
        assert_eq!(u32::from(refused.status), code / 1000, "{row}");
    }
    // A challenge for this TPM is of no use to another one.
    let challenge = register(&stage, ID, None, &body(&tpm)).await;
    let blob = challenge.body["authenticationKey"].as_str().unwrap();
    assert!(other.activate(blob, "stolen").is_err());
    assert_eq!(stage.memory.count(), 0, "nothing is written");

    set_seed(&stage, None);
    let waits = register(&stage, ID, None, &body(&tpm)).await;
    assert_eq!(waits.body["errorCode"], 503_000, "the Secret is missing");
    set_seed(&stage, Some(8));
    let refused = register(&stage, ID, Some(&own), &body(&tpm)).await;
    assert_eq!(refused.body["errorCode"], 401_000, "the seed was replaced");
    set_seed(&stage, Some(7));
    let accepted = register(&stage, ID, Some(&own), &body(&tpm)).await;
    assert_eq!(accepted.status, 202, "{}", accepted.body);
}

#[tokio::test]
async fn a_disabled_enrollment_tells_its_tpm_so() {
    let tpm = Tpm::start(TpmKind::Rsa).await.unwrap();
    let stage = stage_for(&tpm, "Disabled");
    let token = token_for(&challenged(&stage, &tpm).await, ID);
    let accepted = register(&stage, ID, Some(&token), &body(&tpm)).await;
    assert_eq!(accepted.status, 202, "{}", accepted.body);
    stage.memory.finish(ID, RegistrationState::Disabled);
    let told = register(&stage, ID, Some(&token), &body(&tpm)).await;
    assert_eq!(told.body["status"], "disabled", "{}", told.body);
    assert!(told.body["registrationState"].get("tpm").is_none());
}
