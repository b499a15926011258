//! Certificates, as TLS hands them on: whoever connects may have made them, and has proved nothing but
//! possession of the key that the first one names.

use std::sync::LazyLock;

use rehome::api::v1alpha1::X509Spec;
use rehome::domain::attestation::x509::{Chain, X509, closest_issuer};
use rustls_pki_types::CertificateDer;
use serde_json::json;

/// Who issued the certificates in the seeds.
static GROUP: LazyLock<X509> = LazyLock::new(|| {
    let authority = include_str!("authority.pem");
    let spec = json!({ "signingCertificates": { "primary": authority } });
    let spec: X509Spec = serde_json::from_value(spec).expect("a spec");
    X509::read(&spec, "uid-line-3").expect("it can be read")
});

/// The input is certificates, each with its length in two bytes before it.
pub(super) fn run(input: &[u8]) {
    let mut certificates = Vec::new();
    let mut rest = input;
    while let Some(([high, low], more)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(more.len());
        let (certificate, more) = more.split_at(length);
        certificates.push(CertificateDer::from(certificate));
        rest = more;
    }
    let Ok(Some(chain)) = Chain::read(&certificates) else {
        return;
    };
    let id = "device-001".parse().expect("an id");
    for disabled in [true, false] {
        // Possession of the authority's key is not proven: it vouches for nobody.
        let judged = closest_issuer(&chain, &[(&*GROUP, disabled)], &id, 1_800_000_000);
        assert!(judged.is_err());
    }
}
