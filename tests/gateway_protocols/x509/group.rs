//! Groups: an authority is known, and the device brings the chain to it.

use rcgen::{
    BasicConstraints, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519, date_time_ymd,
};
use rehome::domain::attestation::x509::LONGEST_CHAIN;
use rustls_pki_types::CertificateDer;
use serde_json::json;

use super::pki::{Made, OpenSsl, becomes_authority, root, self_signed};
use super::scene::{ID, Scene, Told, scene};
use super::{Row, play};

/// An authority below another below another …, the topmost first.
fn line_of_authorities(length: usize) -> Vec<Made> {
    let mut line = vec![root("Root")];
    for number in 1..length {
        let next = line[number - 1].authority(&format!("Intermediate {number}"));
        line.push(next);
    }
    line
}

/// A device of the last authority, which presents all but the first of them.
fn below(line: &[Made]) -> Scene {
    let leaf = line[line.len() - 1].issue(ID);
    let others: Vec<&Made> = line[1..].iter().rev().collect();
    scene().group("line", &line[0]).presents(&leaf, &others)
}

/// A device's certificate from an authority that both only `openssl` makes.
fn made_with(lines: &str) -> Scene {
    let root = root("Root");
    let openssl = OpenSsl::new().knowing("root", &root);
    openssl.run(lines);
    let mut chain = vec![openssl.der("leaf.pem")];
    if lines.contains("middle.pem") {
        chain.push(openssl.der("middle.pem"));
    }
    scene()
        .group("line", &root)
        .presents_raw(chain, openssl.key("leaf.key"))
}

const TAKEN: &[Row] = &[
    (
        "a root that issued the leaf itself",
        || {
            let root = root("Root");
            scene().group("line", &root).presents(&root.issue(ID), &[])
        },
        Told::Registered("line"),
    ),
    (
        "a root, and the intermediate that the client sends",
        || below(&line_of_authorities(2)),
        Told::Registered("line"),
    ),
    (
        "three intermediates in no order, with the root and a stranger between",
        || {
            let line = line_of_authorities(4);
            let leaf = line[3].issue(ID);
            let stranger = root("Stranger");
            scene()
                .group("line", &line[0])
                .presents(&leaf, &[&line[1], &stranger, &line[3], &line[0], &line[2]])
        },
        Told::Registered("line"),
    ),
    (
        "an intermediate, with the leaf alone",
        || {
            let line = line_of_authorities(2);
            scene()
                .group("line", &line[1])
                .presents(&line[1].issue(ID), &[])
        },
        Told::Registered("line"),
    ),
    (
        "the secondary authority, for a roll",
        || {
            let (old, new) = (root("Old"), root("New"));
            scene()
                .group_with("line", &json!({}), &old, Some(&new))
                .presents(&new.issue(ID), &[])
        },
        Told::Registered("line"),
    ),
    (
        "the secondary authority has the primary's name",
        || {
            let (old, new) = (root("Root"), root("Root"));
            scene()
                .group_with("line", &json!({}), &old, Some(&new))
                .presents(&new.issue(ID), &[])
        },
        Told::Registered("line"),
    ),
    (
        "the primary authority has expired, the secondary is its renewal",
        || {
            let top = root("Top");
            let old = top.authority_as("Issuing", |params| {
                params.not_after = date_time_ymd(2020, 1, 1);
            });
            let leaf = old.issue(ID);
            let openssl = OpenSsl::new().knowing("old", &old);
            openssl.run("openssl req -x509 -key old.key -subj /CN=Issuing -days 30 -out new.pem");
            let code = rehome::domain::attestation::x509::verification_code(
                "uid-line",
                &rehome::domain::attestation::x509::Thumbprint::of(&openssl.der("new.pem")),
            );
            let x509 = json!({
                "signingCertificates": { "primary": old.pem(), "secondary": openssl.read("new.pem") },
                "verification": { "primary": old.proof("uid-line"), "secondary": old.issue(&code).pem() },
            });
            scene()
                .enrolled(
                    "line",
                    &json!({ "group": {}, "attestation": { "x509": x509 } }),
                )
                .presents(&leaf, &[])
        },
        Told::Registered("line"),
    ),
    (
        "the closest issuer wins over the root",
        || {
            let line = line_of_authorities(3);
            let leaf = line[2].issue(ID);
            scene()
                .group("a-root", &line[0])
                .group("b-middle", &line[1])
                .group("c-close", &line[2])
                .presents(&leaf, &[&line[2], &line[1]])
        },
        Told::Registered("c-close"),
    ),
    (
        "the closest issuer that is enrolled",
        || {
            let line = line_of_authorities(3);
            let leaf = line[2].issue(ID);
            scene()
                .group("a-root", &line[0])
                .group("b-middle", &line[1])
                .presents(&leaf, &[&line[2], &line[1]])
        },
        Told::Registered("b-middle"),
    ),
    (
        "a disabled group on the intermediate beats the root's",
        || {
            let line = line_of_authorities(2);
            let leaf = line[1].issue(ID);
            scene()
                .group("a-root", &line[0])
                .disabled_group("b-middle", &line[1])
                .presents(&leaf, &[&line[1]])
        },
        Told::Registered("b-middle"),
    ),
    (
        "of several groups that share a root the oldest",
        || {
            let root = root("Root");
            let leaf = root.issue(ID);
            scene()
                .group("b-newer", &root)
                .group("a-older", &root)
                .presents(&leaf, &[])
        },
        Told::Registered("a-older"),
    ),
    (
        "an older group that is not verified hides no other one",
        || {
            let root = root("Root");
            let leaf = root.issue(ID);
            scene()
                .unverified_group("a-older", &root)
                .group("b-newer", &root)
                .presents(&leaf, &[])
        },
        Told::Registered("b-newer"),
    ),
    (
        "a group beside one whose certificate cannot be read",
        || {
            let root = root("Root");
            let leaf = root.issue(ID);
            let broken = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
            let x509 = json!({ "signingCertificates": { "primary": broken } });
            scene()
                .enrolled(
                    "a-broken",
                    &json!({ "group": {}, "attestation": { "x509": x509 } }),
                )
                .group("line", &root)
                .presents(&leaf, &[])
        },
        Told::Registered("line"),
    ),
    (
        "an enabled individual enrollment of that leaf comes first",
        || {
            let root = root("Root");
            let leaf = root.issue(ID);
            let one = json!({ "primary": leaf.pem() });
            scene()
                .group("line", &root)
                .individual(&one)
                .presents(&leaf, &[])
        },
        Told::Registered("one"),
    ),
    (
        "extended key usage for client authentication",
        || {
            let root = root("Root");
            let leaf = root.issue_as(ID, |it| {
                it.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            });
            scene().group("line", &root).presents(&leaf, &[])
        },
        Told::Registered("line"),
    ),
    (
        "ECDSA P-384",
        || {
            let root = root("Root");
            scene()
                .group("line", &root)
                .presents(&root.issue_with(ID, &PKCS_ECDSA_P384_SHA384), &[])
        },
        Told::Registered("line"),
    ),
    (
        "Ed25519",
        || {
            let root = root("Root");
            scene()
                .group("line", &root)
                .presents(&root.issue_with(ID, &PKCS_ED25519), &[])
        },
        Told::Registered("line"),
    ),
    (
        "RSA of 2048 bits",
        || {
            made_with(
                "openssl req -newkey rsa:2048 -nodes -subj /CN=press-7 -keyout leaf.key -out leaf.csr; \
         openssl x509 -req -in leaf.csr -CA root.pem -CAkey root.key -CAcreateserial -extfile leaf.ext -out leaf.pem",
            )
        },
        Told::Registered("line"),
    ),
    (
        "a certificate of another authority beside a token of a group with keys",
        || {
            let root = root("Root");
            let scene = scene().presents(&root.issue(ID), &[]).sends_token();
            scene.enrolled(
                "keys",
                &json!({
                    "group": {},
                    "attestation": { "symmetricKey": { "secretRef": { "name": "keys" } } },
                }),
            )
        },
        Told::RegisteredByToken("keys"),
    ),
];

const REFUSED: &[Row] = &[
    (
        "no enrollment with certificates at all",
        || {
            let scene = scene().presents(&root("Root").issue(ID), &[]);
            scene.enrolled(
                "keys",
                &json!({
                    "group": {},
                    "attestation": { "symmetricKey": { "secretRef": { "name": "keys" } } },
                }),
            )
        },
        Told::Refused(404_201, "no enrollment"),
    ),
    (
        "an authority that is not verified",
        || {
            let root = root("Root");
            scene()
                .unverified_group("line", &root)
                .presents(&root.issue(ID), &[])
        },
        Told::Refused(401_002, "possession of its key is not proven"),
    ),
    (
        "an authority with the proof of another enrollment",
        || {
            let root = root("Root");
            let x509 = json!({
                "signingCertificates": { "primary": root.pem() },
                "verification": { "primary": root.proof("uid-other") },
            });
            scene()
                .enrolled(
                    "line",
                    &json!({ "group": {}, "attestation": { "x509": x509 } }),
                )
                .presents(&root.issue(ID), &[])
        },
        Told::Refused(401_002, "possession of its key is not proven"),
    ),
    (
        "a foreign authority",
        || {
            scene()
                .group("line", &root("Root"))
                .presents(&root("Other").issue(ID), &[])
        },
        Told::Refused(401_002, "no enrolled authority issued"),
    ),
    (
        "a foreign authority of the same name",
        || {
            scene()
                .group("line", &root("Root"))
                .presents(&root("Root").issue(ID), &[])
        },
        Told::Refused(401_002, "signature"),
    ),
    (
        "a missing intermediate",
        || {
            let line = line_of_authorities(2);
            scene()
                .group("line", &line[0])
                .presents(&line[1].issue(ID), &[])
        },
        Told::Refused(401_002, "present every certificate between"),
    ),
    (
        "a self-signed leaf",
        || {
            scene()
                .group("line", &root("Root"))
                .presents(&self_signed(ID, |_| {}), &[])
        },
        Told::Refused(401_002, "no enrolled authority issued"),
    ),
    (
        "a leaf that is an authority",
        || {
            let root = root("Root");
            let leaf = root.issue_as(ID, becomes_authority);
            scene().group("line", &root).presents(&leaf, &[])
        },
        Told::Refused(401_002, "CA:TRUE"),
    ),
    (
        "the enrolled authority itself",
        || {
            let root = root(ID);
            scene().group("line", &root).presents(&root, &[])
        },
        Told::Refused(401_002, "CA:TRUE"),
    ),
    (
        "an intermediate that is no authority",
        || {
            let root = root("Root");
            let middle = root.authority_as("Middle", |params| params.is_ca = IsCa::ExplicitNoCa);
            scene()
                .group("line", &root)
                .presents(&middle.issue(ID), &[&middle])
        },
        Told::Refused(401_002, "without being an authority's"),
    ),
    (
        "a path length that forbids the intermediate",
        || {
            let root = root("Root");
            let first = root.authority_as("First", |it| {
                it.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            });
            let second = first.authority("Second");
            scene()
                .group("line", &root)
                .presents(&second.issue(ID), &[&second, &first])
        },
        Told::Refused(401_002, "path length"),
    ),
    (
        "an expired leaf",
        || {
            let root = root("Root");
            let leaf = root.issue_as(ID, |params| params.not_after = date_time_ymd(2020, 1, 1));
            scene().group("line", &root).presents(&leaf, &[])
        },
        Told::Refused(401_002, "device's certificate has expired"),
    ),
    (
        "a leaf that is not valid yet",
        || {
            let root = root("Root");
            let leaf = root.issue_as(ID, |params| params.not_before = date_time_ymd(2090, 1, 1));
            scene().group("line", &root).presents(&leaf, &[])
        },
        Told::Refused(401_002, "not valid yet"),
    ),
    (
        "an expired intermediate",
        || {
            let root = root("Root");
            let middle = root.authority_as("Middle", |params| {
                params.not_after = date_time_ymd(2020, 1, 1);
            });
            scene()
                .group("line", &root)
                .presents(&middle.issue(ID), &[&middle])
        },
        Told::Refused(
            401_002,
            "between the device's and the enrolled authority's has expired",
        ),
    ),
    (
        "an intermediate that is not valid yet",
        || {
            let root = root("Root");
            let middle = root.authority_as("Middle", |params| {
                params.not_before = date_time_ymd(2090, 1, 1);
            });
            scene()
                .group("line", &root)
                .presents(&middle.issue(ID), &[&middle])
        },
        Told::Refused(401_002, "is not valid yet"),
    ),
    (
        "an expired enrolled authority",
        || {
            let top = root("Top");
            let old = top.authority_as("Issuing", |params| {
                params.not_after = date_time_ymd(2020, 1, 1);
            });
            scene().group("line", &old).presents(&old.issue(ID), &[])
        },
        Told::Refused(401_002, "outside its validity"),
    ),
    (
        "extended key usage for servers only",
        || {
            let root = root("Root");
            let leaf = root.issue_as(ID, |it| {
                it.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            });
            scene().group("line", &root).presents(&leaf, &[])
        },
        Told::Refused(401_002, "extended key usage"),
    ),
    (
        "an intermediate with a critical extension that nobody knows",
        || {
            let root = root("Root");
            let mut extension =
                CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
            extension.set_criticality(true);
            let middle = root.authority_as("Middle", |params| {
                params.custom_extensions.push(extension);
            });
            scene()
                .group("line", &root)
                .presents(&middle.issue(ID), &[&middle])
        },
        Told::Refused(401_002, "critical extension"),
    ),
    (
        "a leaf signed with SHA-1",
        || {
            made_with(
                "openssl req -newkey rsa:2048 -nodes -subj /CN=press-7 -keyout leaf.key -out leaf.csr; \
         openssl x509 -req -sha1 -in leaf.csr -CA root.pem -CAkey root.key -CAcreateserial -extfile leaf.ext -out leaf.pem",
            )
        },
        Told::Refused(401_002, "SHA-1"),
    ),
    (
        "an intermediate with an RSA key of 1024 bits",
        || {
            made_with(
                "openssl req -newkey rsa:1024 -nodes -subj /CN=Middle -keyout middle.key -out middle.csr; \
         openssl x509 -req -in middle.csr -CA root.pem -CAkey root.key -CAcreateserial -extfile ca.ext -out middle.pem; \
         openssl req -newkey rsa:2048 -nodes -subj /CN=press-7 -keyout leaf.key -out leaf.csr; \
         openssl x509 -req -in leaf.csr -CA middle.pem -CAkey middle.key -CAcreateserial -extfile leaf.ext -out leaf.pem",
            )
        },
        Told::Refused(401_002, "signature"),
    ),
    (
        "another registration id than the common name",
        || {
            let root = root("Root");
            scene()
                .group("line", &root)
                .registers_as("press-8")
                .presents(&root.issue(ID), &[])
        },
        Told::Refused(401_002, "common name is not the registration id"),
    ),
    (
        "a name that only a subject alternative name says",
        || {
            let root = root("Root");
            let leaf = root.issue_as("x", |params| {
                params.distinguished_name.remove(DnType::CommonName);
                params.subject_alt_names = vec![rcgen::SanType::DnsName(ID.try_into().unwrap())];
            });
            scene().group("line", &root).presents(&leaf, &[])
        },
        Told::Refused(401_002, "has no common name"),
    ),
    (
        "a common name that is longer than any registration id",
        || {
            let root = root("Root");
            scene()
                .group("line", &root)
                .presents(&root.issue(&"x".repeat(129)), &[])
        },
        Told::Refused(401_002, "no registration id"),
    ),
    (
        "a chain that is too deep",
        || below(&line_of_authorities(LONGEST_CHAIN)),
        Told::Refused(401_002, "too long"),
    ),
    (
        "more certificates than anybody needs",
        || {
            let root = root("Root");
            let leaf = root.issue(ID);
            let chain: Vec<CertificateDer<'static>> = std::iter::once(leaf.der.clone())
                .chain(std::iter::repeat_n(root.der.clone(), LONGEST_CHAIN))
                .collect();
            scene()
                .group("line", &root)
                .presents_raw(chain, leaf.private_key())
        },
        Told::Refused(401_002, "more than 8 certificates"),
    ),
    (
        "a certificate of more than 16 KiB",
        || {
            let root = root("Root");
            let ballast = CustomExtension::from_oid_content(
                &[1, 3, 6, 1, 4, 1, 99999, 2],
                vec![7; 17 * 1024],
            );
            let leaf = root.issue_as(ID, |params| params.custom_extensions.push(ballast));
            scene().group("line", &root).presents(&leaf, &[])
        },
        Told::Refused(401_002, "larger than 16 KiB"),
    ),
    (
        "a disabled group that is not verified",
        || {
            let root = root("Root");
            let x509 = json!({ "signingCertificates": { "primary": root.pem() } });
            let spec = json!({ "group": {}, "provisioningStatus": "Disabled", "attestation": { "x509": x509 } });
            scene()
                .group("b-enabled", &root)
                .enrolled("a-disabled", &spec)
                .presents(&root.issue(ID), &[])
        },
        Told::Refused(401_002, "disabled"),
    ),
];

#[tokio::test]
async fn a_device_of_an_enrolled_authority_registers_through_the_right_group() {
    play(TAKEN).await;
}

#[tokio::test]
async fn a_device_that_no_enrolled_authority_vouches_for_is_told_why() {
    play(REFUSED).await;
}
