//! Symmetric key attestation as devices see it: a table, each row over HTTPS, MQTT and AMQP.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use rehome::api::v1alpha1::ATTESTATION_LABEL;
use rehome::domain::attestation::{SymmetricKey, derive_device_key};
use rehome::domain::sas::SasToken;
use serde_json::{Value, json};

use crate::stage::{KEY, NAMESPACE, SCOPE, Stage, signed};
use crate::x509::scene::{ID, Scene, Told, scene};
use crate::x509::{Row, play};

const FAR: u64 = 4_000_000_000;
/// 32 bytes that no Secret of the stage holds.
const OTHER: &str = "b29vb29vb29vb29vb29vb29vb29vb29vb29vb29vb28=";

fn key(text: &str) -> SymmetricKey {
    text.parse().unwrap()
}

/// The secondary key of the stage's Secret.
fn secondary() -> SymmetricKey {
    key(&KEY.replace("Wlpa", "AAAA"))
}

fn by_keys_in(secret: &str) -> Value {
    json!({ "symmetricKey": { "secretRef": { "name": secret } } })
}

fn group(scene: Scene, name: &str, secret: &str) -> Scene {
    scene.enrolled(
        name,
        &json!({ "group": {}, "attestation": by_keys_in(secret) }),
    )
}

fn individual(scene: Scene, status: &str) -> Scene {
    let spec = json!({
        "individual": { "registrationId": ID },
        "provisioningStatus": status,
        "attestation": by_keys_in("keys"),
    });
    scene.enrolled("one", &spec)
}

/// A Secret with one key in both places.
fn put_secret(stage: &Stage, name: &str, text: &str, label: Option<&str>) {
    let bytes = ByteString(text.as_bytes().to_vec());
    let names = ["primaryKey", "secondaryKey"];
    let mut secret = Secret {
        data: Some(names.map(|name| (name.to_owned(), bytes.clone())).into()),
        ..Secret::default()
    };
    let label = label.map(|value| (ATTESTATION_LABEL.to_owned(), value.to_owned()));
    secret.metadata.labels = Some(label.into_iter().collect::<BTreeMap<_, _>>());
    stage.tenants.set_secret(NAMESPACE, name, Some(secret));
}

/// A device of the group `line` that signs with this key.
fn signing_with(key: &SymmetricKey) -> Scene {
    group(scene(), "line", "keys").sends(&signed(ID, key, FAR))
}

fn derived() -> SymmetricKey {
    derive_device_key(&key(KEY), ID)
}

/// A device of the group `line` whose own key signed for this resource.
fn signing_for(resource: &str) -> Scene {
    let token = SasToken::sign(resource, &derived(), FAR, None);
    group(scene(), "line", "keys").sends(&token)
}

fn ended(seconds_ago: u64) -> Scene {
    let now = u64::try_from(scene().stage.service.clock().now().as_second()).unwrap();
    let token = signed(ID, &derived(), now - seconds_ago);
    group(scene(), "line", "keys").sends(&token)
}

const TAKEN: &[Row] = &[
    (
        "derived from the group's primary key",
        || signing_with(&derived()),
        Told::RegisteredByToken("line"),
    ),
    (
        "derived from the group's secondary key",
        || signing_with(&derive_device_key(&secondary(), ID)),
        Told::RegisteredByToken("line"),
    ),
    (
        "derived from the lower-cased id",
        || {
            let token = SasToken::sign(
                &format!("{SCOPE}/registrations/PRESS-7"),
                &derived(),
                FAR,
                None,
            );
            group(scene(), "line", "keys")
                .registers_as("PRESS-7")
                .sends(&token)
        },
        Told::RegisteredByToken("line"),
    ),
    (
        "an individual's primary key",
        || individual(scene(), "Enabled").sends(&signed(ID, &key(KEY), FAR)),
        Told::RegisteredByToken("one"),
    ),
    (
        "an individual's secondary key",
        || individual(scene(), "Enabled").sends(&signed(ID, &secondary(), FAR)),
        Told::RegisteredByToken("one"),
    ),
    (
        "a disabled individual's key: the operation's status says so",
        || individual(scene(), "Disabled").sends(&signed(ID, &key(KEY), FAR)),
        Told::RegisteredByToken("one"),
    ),
    (
        "the key of the second of two groups",
        || {
            let scene = group(group(scene(), "a-first", "others"), "b-second", "keys");
            put_secret(&scene.stage, "others", OTHER, Some("true"));
            scene.sends(&signed(ID, &derived(), FAR))
        },
        Told::RegisteredByToken("b-second"),
    ),
    (
        "the key of a group beside one whose Secret is missing",
        || {
            group(group(scene(), "a-missing", "nothing"), "b-second", "keys").sends(&signed(
                ID,
                &derived(),
                FAR,
            ))
        },
        Told::RegisteredByToken("b-second"),
    ),
    (
        "a token that ended 4 minutes ago: clocks differ",
        || ended(240),
        Told::RegisteredByToken("line"),
    ),
    (
        "the key after a rotation",
        || {
            let scene = group(scene(), "line", "others");
            put_secret(&scene.stage, "others", KEY, Some("true"));
            put_secret(&scene.stage, "others", OTHER, Some("true"));
            scene.sends(&signed(ID, &derive_device_key(&key(OTHER), ID), FAR))
        },
        Told::RegisteredByToken("line"),
    ),
];

const REFUSED: &[Row] = &[
    (
        "the group's key itself",
        || signing_with(&key(KEY)),
        Told::Refused(401_000, "signature"),
    ),
    (
        "a key derived for another device",
        || signing_with(&derive_device_key(&key(KEY), "press-8")),
        Told::Refused(401_000, "signature"),
    ),
    (
        "a key that nobody knows",
        || signing_with(&key(OTHER)),
        Told::Refused(401_000, "signature"),
    ),
    (
        "the group's derived key for a device that is enrolled itself",
        || {
            individual(group(scene(), "line", "keys"), "Enabled").sends(&signed(
                ID,
                &derived(),
                FAR,
            ))
        },
        Told::Refused(401_000, "signature"),
    ),
    (
        "the key before a rotation",
        || {
            let scene = group(scene(), "line", "others");
            put_secret(&scene.stage, "others", KEY, Some("true"));
            put_secret(&scene.stage, "others", OTHER, Some("true"));
            scene.sends(&signed(ID, &derived(), FAR))
        },
        Told::Refused(401_000, "signature"),
    ),
    (
        "a token that ended 6 minutes ago",
        || ended(360),
        Told::Refused(401_002, "has expired"),
    ),
    (
        "a token for another device",
        || signing_for(&format!("{SCOPE}/registrations/press-8")),
        Told::Refused(401_002, "another ID scope"),
    ),
    (
        "a token for another ID scope",
        || signing_for("0ne000TEST2/registrations/press-7"),
        Told::Refused(401_002, "another ID scope"),
    ),
    (
        "a token for a hub",
        || signing_for("hub.example.com/devices/press-7"),
        Told::Refused(401_002, "another ID scope"),
    ),
    (
        "something that is no token",
        || group(scene(), "line", "keys").sends("Basic cHJlc3M6Nw=="),
        Told::Refused(401_002, "malformed"),
    ),
    (
        "a token without a signature",
        || {
            group(scene(), "line", "keys").sends(
                "SharedAccessSignature sr=0ne000TEST1%2Fregistrations%2Fpress-7&se=4000000000",
            )
        },
        Told::Refused(401_002, "malformed"),
    ),
    (
        "no token",
        || group(scene(), "line", "keys"),
        Told::NotLetIn(401_002, "neither a shared access signature"),
    ),
    (
        "no enrollment",
        || scene().sends(&signed(ID, &derived(), FAR)),
        Told::Refused(404_201, "no enrollment"),
    ),
    (
        "a Secret that is missing",
        || group(scene(), "line", "nothing").sends(&signed(ID, &derived(), FAR)),
        Told::Refused(503_000, "ask again"),
    ),
    (
        "a Secret that is not labelled",
        || {
            let scene = group(scene(), "line", "others");
            put_secret(&scene.stage, "others", KEY, None);
            scene.sends(&signed(ID, &derived(), FAR))
        },
        Told::Refused(503_000, "ask again"),
    ),
    (
        "a Secret with a key that is too short",
        || {
            let scene = group(scene(), "line", "others");
            put_secret(&scene.stage, "others", "c2hvcnQ=", Some("true"));
            scene.sends(&signed(ID, &derived(), FAR))
        },
        Told::Refused(503_000, "ask again"),
    ),
];

#[tokio::test]
async fn a_device_that_holds_its_key_registers() {
    play(TAKEN).await;
}

#[tokio::test]
async fn a_device_that_does_not_is_told_what_is_wrong() {
    play(REFUSED).await;
}
