//! Individual enrollments: the leaf itself is known.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use rcgen::date_time_ymd;
use serde_json::json;

use super::pki::{Made, OpenSsl, becomes_authority, pem, root, self_signed};
use super::scene::{ID, Scene, Told, scene};
use super::{Row, play};

fn device() -> Made {
    self_signed(ID, |_| {})
}

fn by_symmetric_key(scene: Scene, status: &str) -> Scene {
    let spec = json!({
        "individual": { "registrationId": ID },
        "provisioningStatus": status,
        "attestation": { "symmetricKey": { "secretRef": { "name": "keys" } } },
    });
    scene.enrolled("one", &spec)
}

/// The subject is what `openssl -subj` takes.
fn named(subject: &str) -> Scene {
    let openssl = OpenSsl::new();
    openssl.run(&format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -utf8 -days 30 \
         -subj '{subject}' -keyout leaf.key -out leaf.pem"
    ));
    scene()
        .individual(&json!({ "primary": openssl.read("leaf.pem") }))
        .presents_raw(vec![openssl.der("leaf.pem")], openssl.key("leaf.key"))
}

const KNOWN: &[Row] = &[
    (
        "the primary certificate",
        || {
            let leaf = device();
            scene()
                .individual(&json!({ "primary": leaf.pem() }))
                .presents(&leaf, &[])
        },
        Told::Registered("one"),
    ),
    (
        "the secondary certificate, for a roll",
        || {
            let (old, new) = (device(), device());
            let both = json!({ "primary": old.pem(), "secondary": new.pem() });
            scene().individual(&both).presents(&new, &[])
        },
        Told::Registered("one"),
    ),
    (
        "a SHA-256 thumbprint in lower case",
        || {
            let leaf = device();
            let thumbprint = leaf.thumbprint().to_string().to_lowercase();
            scene()
                .individual(&json!({ "primaryThumbprint": thumbprint }))
                .presents(&leaf, &[])
        },
        Told::Registered("one"),
    ),
    (
        "a SHA-1 thumbprint as the secondary",
        || {
            let (leaf, other) = (device(), device());
            let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, &leaf.der);
            let mut thumbprint = String::new();
            for byte in digest.as_ref() {
                write!(thumbprint, "{byte:02X}").unwrap();
            }
            let both = json!({ "primary": other.pem(), "secondaryThumbprint": thumbprint });
            scene().individual(&both).presents(&leaf, &[])
        },
        Told::Registered("one"),
    ),
    (
        "a leaf that is an authority, as openssl req -x509 makes it",
        || {
            let leaf = self_signed(ID, becomes_authority);
            scene()
                .individual(&json!({ "primary": leaf.pem() }))
                .presents(&leaf, &[])
        },
        Told::Registered("one"),
    ),
    (
        "a leaf of some authority, sent with its chain",
        || {
            let root = root("Root");
            let leaf = root.issue(ID);
            scene()
                .individual(&json!({ "primary": leaf.pem() }))
                .presents(&leaf, &[&root])
        },
        Told::Registered("one"),
    ),
    (
        "a leaf signed with SHA-1: nobody relies on that signature",
        || {
            let openssl = OpenSsl::new();
            openssl.run(&format!(
            "openssl req -x509 -newkey rsa:2048 -sha1 -nodes -days 30 -subj /CN={ID} -keyout leaf.key -out leaf.pem"
        ));
            scene()
                .individual(&json!({ "primary": openssl.read("leaf.pem") }))
                .presents_raw(vec![openssl.der("leaf.pem")], openssl.key("leaf.key"))
        },
        Told::Registered("one"),
    ),
    (
        "the common name in another case",
        || {
            let leaf = self_signed("PRESS-7", |_| {});
            scene()
                .individual(&json!({ "primary": leaf.pem() }))
                .presents(&leaf, &[])
        },
        Told::Registered("one"),
    ),
    (
        "a token beside the certificate that the enrollment takes",
        || {
            let leaf = device();
            scene()
                .individual(&json!({ "primary": leaf.pem() }))
                .presents(&leaf, &[])
                .sends_token()
        },
        Told::Registered("one"),
    ),
    (
        "a disabled enrollment: the operation's status says so",
        || {
            let leaf = device();
            let spec = json!({
                "individual": { "registrationId": ID },
                "provisioningStatus": "Disabled",
                "attestation": { "x509": { "clientCertificates": { "primary": leaf.pem() } } },
            });
            scene().enrolled("one", &spec).presents(&leaf, &[])
        },
        Told::Registered("one"),
    ),
];

const REFUSED: &[Row] = &[
    (
        "another certificate",
        || {
            scene()
                .individual(&json!({ "primary": device().pem() }))
                .presents(&device(), &[])
        },
        Told::Refused(401_002, "not one of the enrollment's"),
    ),
    (
        "the same name and key, issued anew",
        || {
            let root = root("Root");
            let leaf = root.issue(ID);
            let renewed = leaf.renewed_by(&root);
            scene()
                .individual(&json!({ "primary": pem(&leaf.der) }))
                .presents_raw(vec![renewed], leaf.private_key())
        },
        Told::Refused(401_002, "not one of the enrollment's"),
    ),
    (
        "a known certificate of another device",
        || {
            let leaf = self_signed("press-8", |_| {});
            scene()
                .individual(&json!({ "primary": leaf.pem() }))
                .presents(&leaf, &[])
        },
        Told::Refused(401_002, "common name is not the registration id"),
    ),
    (
        "an expired one",
        || {
            let leaf = self_signed(ID, |params| params.not_after = date_time_ymd(2020, 1, 1));
            scene()
                .individual(&json!({ "primary": leaf.pem() }))
                .presents(&leaf, &[])
        },
        Told::Refused(401_002, "has expired"),
    ),
    (
        "one that is not valid yet",
        || {
            let leaf = self_signed(ID, |params| params.not_before = date_time_ymd(2090, 1, 1));
            scene()
                .individual(&json!({ "primary": leaf.pem() }))
                .presents(&leaf, &[])
        },
        Told::Refused(401_002, "not valid yet"),
    ),
    (
        "no common name",
        || named("/O=Plant"),
        Told::Refused(401_002, "has no common name"),
    ),
    (
        "two common names",
        || named("/CN=press-7/CN=press-7"),
        Told::Refused(401_002, "several common names"),
    ),
    (
        "a common name with a space",
        || named("/CN=press 7"),
        Told::Refused(401_002, "no registration id"),
    ),
    (
        "a common name beyond ASCII",
        || named("/CN=pressé"),
        Told::Refused(401_002, "no registration id"),
    ),
    (
        "no certificate",
        || scene().individual(&json!({ "primary": device().pem() })),
        Told::NotLetIn(401_002, "neither a shared access signature"),
    ),
    (
        "a token instead of the certificate",
        || {
            scene()
                .individual(&json!({ "primary": device().pem() }))
                .sends_token()
        },
        Told::Refused(401_002, "presented none"),
    ),
    (
        "a certificate instead of the token",
        || by_symmetric_key(scene(), "Enabled").presents(&device(), &[]),
        Told::Refused(401_002, "takes shared access signatures"),
    ),
    (
        "a disabled enrollment of another kind keeps a group's device out",
        || {
            let root = root("Root");
            let leaf = root.issue(ID);
            by_symmetric_key(scene().group("line", &root), "Disabled").presents(&leaf, &[])
        },
        Told::Refused(401_002, "disabled"),
    ),
    (
        "a certificate that cannot be read keeps its enrollment from deciding now",
        || {
            let leaf = device();
            let broken = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
            scene()
                .individual(&json!({ "primary": broken }))
                .presents(&leaf, &[])
        },
        Told::Refused(503_000, "ask again"),
    ),
];

#[tokio::test]
async fn a_known_certificate_registers_its_device() {
    play(KNOWN).await;
}

#[tokio::test]
async fn any_other_certificate_is_told_what_is_wrong_with_it() {
    play(REFUSED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_tls_cannot_read_fails_in_the_handshake() {
    let scene = scene();
    let sockets = scene.stage.listen().await;
    let port = sockets.https.port();
    let openssl = OpenSsl::new();
    openssl.run(&format!(
        "openssl req -new -newkey rsa:2048 -nodes -subj /CN={ID} -keyout v1.key -out v1.csr; \
         openssl x509 -req -in v1.csr -signkey v1.key -out v1.pem; \
         openssl x509 -req -in v1.csr -signkey v1.key -extfile leaf.ext -out v3.pem; \
         openssl req -x509 -newkey rsa:1024 -nodes -subj /CN={ID} -keyout weak.key -out weak.pem; \
         openssl req -x509 -key v1.key -subj /CN={ID} -addext 1.3.6.1.4.1.99999.1=critical,DER:0500 -out critical.pem"
    ));
    let is_let_in = |certificate, key| {
        tokio::task::block_in_place(|| openssl.shakes_hands(port, certificate, key))
    };
    assert!(is_let_in("v3.pem", "v1.key"), "the test tells them apart");
    assert!(!is_let_in("v1.pem", "v1.key"), "X.509 v1");
    assert!(!is_let_in("weak.pem", "weak.key"), "RSA of 1024 bits");
    assert!(
        !is_let_in("critical.pem", "v1.key"),
        "an unknown critical extension"
    );
}
