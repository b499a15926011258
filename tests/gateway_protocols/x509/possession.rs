//! Proof of possession, made with the commands that `docs/attestation.md` shows.

use rcgen::SignatureAlgorithm;
use rehome::domain::attestation::x509::verification_code;
use serde_json::json;

use super::pki::{Made, OpenSsl, root, root_with};
use super::scene::{ID, Scene, Told, scene};

const DOCS: &str = include_str!("../../../docs/attestation.md");
const UID: &str = "uid-line";

/// The commands of step 2, which make the proof.
fn documented() -> &'static str {
    let blocks = DOCS.split("```sh\n").skip(1);
    let mut commands = blocks.filter_map(|block| Some(block.split_once("```")?.0));
    commands
        .find(|commands| commands.contains("openssl"))
        .expect("commands that make a proof")
}

/// What the commands make of this authority and this code.
fn made_for(authority: &Made, code: &str) -> String {
    let openssl = OpenSsl::new().knowing("ca", authority);
    openssl.run(&format!("CODE={code}\n{}", documented()));
    openssl.read("verify.pem")
}

fn code(authority: &Made) -> String {
    verification_code(UID, &authority.thumbprint())
}

fn group(authority: &Made, verification: &str) -> Scene {
    let x509 = json!({
        "signingCertificates": { "primary": authority.pem() },
        "verification": { "primary": verification },
    });
    scene()
        .enrolled(
            "line",
            &json!({ "group": {}, "attestation": { "x509": x509 } }),
        )
        .presents(&authority.issue(ID), &[])
}

#[tokio::test]
async fn the_documented_commands_verify_an_authority() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let algorithms: [&'static SignatureAlgorithm; 3] = [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_RSA_SHA256,
    ];
    for algorithm in algorithms {
        let authority = root_with("Root", algorithm);
        let proof = made_for(&authority, &code(&authority));
        let row = format!("{algorithm:?}");
        group(&authority, &proof)
            .is_told(&row, Told::Registered("line"))
            .await;
    }
    // As people type it.
    let authority = root("Root");
    let proof = made_for(&authority, &code(&authority).to_uppercase());
    group(&authority, &proof)
        .is_told("upper case", Told::Registered("line"))
        .await;
}

#[tokio::test]
async fn what_somebody_without_the_key_can_make_proves_nothing() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let authority = root("Root");
    let namesake = root("Root");
    let old_enrollment = verification_code("uid-before", &authority.thumbprint());
    let self_made = super::pki::self_signed(&code(&authority), |_| {}).pem();
    for (row, proof) in [
        (
            "another authority of the same name",
            made_for(&namesake, &code(&authority)),
        ),
        (
            "the code of another enrollment",
            made_for(&authority, &old_enrollment),
        ),
        (
            "the code of another authority",
            made_for(&authority, &code(&namesake)),
        ),
        ("a device's certificate", authority.issue(ID).pem()),
        ("the authority itself", authority.pem()),
        ("a self-signed one", self_made),
        (
            "damage",
            "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n".to_owned(),
        ),
    ] {
        let refused = Told::Refused(401_002, "possession of its key is not proven");
        group(&authority, &proof).is_told(row, refused).await;
    }
}
