//! What is in the image of Rehome: one program, whom it trusts, and what it is made of.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rehome_testing::oci::{Image, Program, Tree};
use serde_json::Value;

use crate::source::Source;

/// The user; the chart's `podSecurityContext` names it too.
const USER: &str = "65532";
const AUTHORITIES: &str = "etc/ssl/certs/ca-certificates.crt";

pub(crate) fn image(
    name: &str,
    program: Program,
    sbom: &Value,
    license: &Path,
    source: &Source,
) -> Result<Image> {
    let mut files = Tree::default();
    files.program("usr/local/bin/rehome", program.bytes);
    files.file(AUTHORITIES, authorities());
    files.file(
        "etc/passwd",
        format!("root:x:0:0:root:/:/sbin/nologin\nrehome:x:{USER}:{USER}:rehome:/:/sbin/nologin\n"),
    );
    files.file("etc/group", format!("root:x:0:\nrehome:x:{USER}:\n"));
    // Names that Kubernetes gives a pod stand in its hosts file.
    files.file("etc/nsswitch.conf", "hosts: files dns\n");
    files.file("usr/share/sbom/rehome.spdx.json", format!("{sbom:#}\n"));
    files.file("usr/share/doc/rehome/LICENSE", std::fs::read(license)?);
    Ok(Image {
        name: name.to_owned(),
        architecture: program.architecture,
        created: source.created.clone(),
        files,
        entrypoint: vec!["/usr/local/bin/rehome".into()],
        user: format!("{USER}:{USER}"),
        environment: vec![format!("SSL_CERT_FILE=/{AUTHORITIES}")],
        labels: labels(source),
    })
}

fn labels(source: &Source) -> BTreeMap<String, String> {
    [
        ("title", "Rehome"),
        (
            "description",
            "Device provisioning and reprovisioning for Kubernetes",
        ),
        ("licenses", "Apache-2.0"),
        ("source", &source.url),
        ("version", &source.version),
        ("revision", &source.revision),
        ("created", &source.created),
    ]
    .map(|(name, value)| (format!("org.opencontainers.image.{name}"), value.to_owned()))
    .into()
}

/// The authorities that Mozilla trusts for servers, as PEM: hubs in Azure have certificates of theirs.
fn authorities() -> String {
    let mut text = String::new();
    for certificate in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = STANDARD.encode(certificate);
        let mut rest = &*encoded;
        while !rest.is_empty() {
            let (line, more) = rest.split_at(rest.len().min(64));
            text.push_str(line);
            text.push('\n');
            rest = more;
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use rehome_testing::oci::Architecture;
    use rustls::RootCertStore;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    use serde_json::json;

    use super::*;

    #[test]
    fn it_is_not_root_says_what_it_is_and_starts_the_program() {
        let folder = tempfile::tempdir().unwrap();
        let license = folder.path().join("LICENSE");
        std::fs::write(&license, "as you like").unwrap();
        let program = Program {
            architecture: Architecture::Arm64,
            bytes: b"program".into(),
        };
        let source = Source {
            version: "1.2.3".into(),
            revision: "abc".into(),
            created: "2026-05-04T03:02:01Z".into(),
            url: "https://example.com/rehome".into(),
        };
        let image = image(
            "example.com/rehome:1.2.3",
            program,
            &json!({}),
            &license,
            &source,
        )
        .unwrap();
        assert_eq!(image.user, "65532:65532");
        let passwd = String::from_utf8(image.files.content("etc/passwd").unwrap().into()).unwrap();
        assert!(passwd.contains("rehome:x:65532:65532:"), "{passwd}");
        assert_eq!(
            image
                .files
                .content(image.entrypoint[0].trim_start_matches('/')),
            Some(&b"program"[..])
        );
        assert_eq!(image.architecture, Architecture::Arm64);
        for (label, value) in [
            ("title", "Rehome"),
            ("version", "1.2.3"),
            ("revision", "abc"),
            ("licenses", "Apache-2.0"),
            ("source", "https://example.com/rehome"),
        ] {
            assert_eq!(
                image.labels[&format!("org.opencontainers.image.{label}")],
                value
            );
        }
    }

    #[test]
    fn the_authorities_can_be_read_again() {
        let text = authorities();
        let mut store = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
            store.add(certificate.unwrap()).unwrap();
        }
        assert_eq!(store.len(), webpki_root_certs::TLS_SERVER_ROOT_CERTS.len());
        assert!(store.len() > 100, "{}", store.len());
    }

    #[test]
    fn the_dockerfile_makes_the_same_user_start_the_same_program_with_the_same_labels() {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let dockerfile = std::fs::read_to_string(checkout.join("Dockerfile")).unwrap();
        let has = |line: &str| assert!(dockerfile.contains(line), "{line}");
        has(&format!("\nUSER {USER}:{USER}\n"));
        has("\nENTRYPOINT [\"/usr/local/bin/rehome\"]\n");
        has(&format!("\nENV SSL_CERT_FILE=/{AUTHORITIES}\n"));
        let source = Source::of(&checkout).unwrap();
        for label in labels(&source).keys() {
            // Docker knows the time by itself.
            if !label.ends_with(".created") {
                has(&format!("{label}="));
            }
        }
    }
}
