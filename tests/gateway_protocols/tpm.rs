//! TPM attestation as a device sees it, with a software TPM that opens what it is sent.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use rehome::api::v1alpha1::{ATTESTATION_LABEL, RegistrationState};
use rehome_testing::device::amqp::{SaslRefused, log_in_showing, log_in_with_tpm};
use rehome_testing::device::{Tpm, TpmHeldKey, TpmKind};
use serde_json::{Value, json};

use crate::amqp_device::{Amqp, Ask, Links, Rejection};
use crate::device::{Https, Reply, dial, register_path};
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

/// A request that is refused: its name, registration id, token and body, and what is said.
type Refused = (
    &'static str,
    &'static str,
    Option<String>,
    Value,
    u32,
    &'static str,
);

fn changed(tpm: &Tpm, pointer: &str, value: Value) -> Value {
    let mut body = body(tpm);
    *body.pointer_mut(pointer).unwrap() = value;
    body
}

/// Without a token.
fn no_challenge_for(tpm: &Tpm, other: &Tpm) -> Vec<Refused> {
    let elsewhere = changed(tpm, "/registrationId", "press-8".into());
    let with = |pointer, value: &str| changed(tpm, pointer, value.into());
    vec![
        (
            "another TPM",
            ID,
            None,
            body(other),
            404_201,
            "no enrollment",
        ),
        (
            "no enrollment of that id",
            "press-8",
            None,
            elsewhere,
            404_201,
            "no enrollment",
        ),
        (
            "neither keys nor token",
            ID,
            None,
            json!({}),
            401_002,
            "neither a shared access",
        ),
        (
            "no endorsement key",
            ID,
            None,
            with("/tpm/endorsementKey", "AToA"),
            400_001,
            "tpm.endorsementKey",
        ),
        (
            "no base64",
            ID,
            None,
            with("/tpm/endorsementKey", "?"),
            400_001,
            "is not base64",
        ),
        (
            "no storage root key",
            ID,
            None,
            changed(tpm, "/tpm/storageRootKey", Value::Null),
            400_001,
            "tpm.storageRootKey",
        ),
        (
            "an unreadable storage root key",
            ID,
            None,
            with("/tpm/storageRootKey", "AToA"),
            400_001,
            "tpm.storageRootKey",
        ),
    ]
}

fn no_registration_for(tpm: &Tpm, key: &TpmHeldKey<'_>) -> Vec<Refused> {
    let stranger = KEY.parse().unwrap();
    let (own, elsewhere) = (token_for(key, ID), token_for(key, "press-8"));
    let (foreign, expired) = (
        signed(ID, &stranger, 4_000_000_000),
        signed(ID, &stranger, 1),
    );
    vec![
        (
            "no storage root key",
            ID,
            Some(own),
            json!({}),
            400_001,
            "tpm.storageRootKey",
        ),
        (
            "another key",
            ID,
            Some(foreign),
            body(tpm),
            401_000,
            "signature",
        ),
        (
            "an expired token",
            ID,
            Some(expired),
            body(tpm),
            401_002,
            "expired",
        ),
        (
            "another device's token",
            ID,
            Some(elsewhere),
            body(tpm),
            401_002,
            "another ID scope",
        ),
    ]
}

#[tokio::test]
async fn whoever_is_not_that_tpm_is_told_why() {
    let tpm = Tpm::start(TpmKind::Rsa).await.unwrap();
    let stage = stage_for(&tpm, "Enabled");
    let other = Tpm::start(TpmKind::Rsa).await.unwrap();
    let key = challenged(&stage, &tpm).await;
    let rows = [
        no_challenge_for(&tpm, &other),
        no_registration_for(&tpm, &key),
    ]
    .concat();
    for (row, id, token, body, code, words) in rows {
        let refused = register(&stage, id, token.as_deref(), &body).await;
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
}

#[tokio::test]
async fn the_seed_decides_which_tokens_count() {
    let tpm = Tpm::start(TpmKind::Rsa).await.unwrap();
    let stage = stage_for(&tpm, "Enabled");
    let token = token_for(&challenged(&stage, &tpm).await, ID);
    set_seed(&stage, None);
    let waits = register(&stage, ID, None, &body(&tpm)).await;
    assert_eq!(waits.body["errorCode"], 503_000, "the Secret is missing");
    set_seed(&stage, Some(8));
    let refused = register(&stage, ID, Some(&token), &body(&tpm)).await;
    assert_eq!(refused.body["errorCode"], 401_000, "the seed was replaced");
    set_seed(&stage, Some(7));
    let accepted = register(&stage, ID, Some(&token), &body(&tpm)).await;
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

#[tokio::test]
async fn over_amqp_sasl_brings_the_challenge_and_takes_the_token() {
    for kind in [TpmKind::Rsa, TpmKind::Ecc] {
        let tpm = Tpm::start(kind).await.unwrap();
        let stage = stage_for(&tpm, "Enabled");
        let sockets = stage.listen().await;
        let stream = dial(&sockets, sockets.amqp, true).await;
        let stream = log_in_with_tpm(stream, &tpm, SCOPE, ID).await.unwrap();
        let links = Links::like_node(SCOPE, ID);
        let mut device = Amqp::open(stream, &links).await.unwrap();
        let first = device.try_ask(Ask::register(b"{}")).await.unwrap();
        let operation = first.body["operationId"].as_str().unwrap().to_owned();
        stage.memory.finish(ID, RegistrationState::Assigned);
        let told = device.try_ask(Ask::poll(&operation)).await.unwrap();
        let blob = &told.body["registrationState"]["tpm"]["authenticationKey"];
        tpm.activate(blob.as_str().unwrap(), "hub").unwrap();
        assert_eq!(stage.memory.count(), 1);
    }
}

/// What the first request is answered with once SASL has let the TPM in.
async fn refused_over_amqp(stage: &Stage, id: &str, tpm: &Tpm) -> Rejection {
    let sockets = stage.listen().await;
    let stream = dial(&sockets, sockets.amqp, true).await;
    let stream = log_in_with_tpm(stream, tpm, SCOPE, id).await.unwrap();
    let links = Links::like_node(SCOPE, id);
    let mut device = Amqp::open(stream, &links).await.unwrap();
    device.try_ask(Ask::register(b"{}")).await.unwrap_err()
}

#[tokio::test]
async fn over_amqp_another_tpm_is_let_in_and_told_with_the_answer() {
    let tpm = Tpm::start(TpmKind::Rsa).await.unwrap();
    let other = Tpm::start(TpmKind::Rsa).await.unwrap();
    let stage = stage_for(&tpm, "Enabled");
    for (id, tpm) in [(ID, &other), ("press-8", &tpm)] {
        let rejection = refused_over_amqp(&stage, id, tpm).await;
        assert_eq!(rejection.condition, "amqp:not-found", "{id}");
        assert_eq!(rejection.description["errorCode"], 404_201, "{id}");
    }
    set_seed(&stage, None);
    let waits = refused_over_amqp(&stage, ID, &tpm).await;
    assert_eq!(waits.description["errorCode"], 503_000);
    assert_eq!(waits.retry_after, [Some(3), Some(3)]);
    assert_eq!(stage.memory.count(), 0, "nothing is written");
}

#[tokio::test]
async fn over_amqp_keys_that_cannot_be_read_get_no_challenge() {
    let tpm = Tpm::start(TpmKind::Rsa).await.unwrap();
    let stage = stage_for(&tpm, "Enabled");
    let sockets = stage.listen().await;
    let stream = dial(&sockets, sockets.amqp, true).await;
    let shown = log_in_showing(stream, [b"no key", b"neither"], SCOPE, ID);
    let error = shown.await.unwrap_err();
    assert_eq!(error.downcast_ref(), Some(&SaslRefused(1)), "{error:#}");
}
