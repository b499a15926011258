//! Proof that whoever enrolls an authority holds its key: a certificate that the authority signed and
//! whose common name is a code of ours. Behaviour of the Azure page "How to verify X.509 CA
//! certificates".

use aws_lc_rs::digest;
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1,
    ECDSA_P384_SHA384_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, VerificationAlgorithm,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use subtle::ConstantTimeEq as _;
use x509_parser::certificate::X509Certificate;

use super::{Thumbprint, parse};

/// Whether possession of an authority's key is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It is.
    Given,
    /// No verification certificate is there.
    Missing,
    /// It proves nothing; why.
    Wrong(&'static str),
}

/// The common name that a verification certificate must have.
///
/// It needs no memory and cannot be chosen: the uid is the API server's. Neither another Enrollment's
/// certificate nor one that an authority signed for its own purposes has it.
pub fn verification_code(uid: &str, authority: &Thumbprint) -> String {
    let text = format!("rehome verification v1\n{uid}\n{authority}\n");
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    crate::domain::hex(&digest.as_ref()[..24])
}

/// Judges a verification certificate. Its dates do not count: what it proves stays true.
pub(super) fn prove(authority: &X509Certificate<'_>, pem: Option<&str>, code: &str) -> Proof {
    let Some(pem) = pem else {
        return Proof::Missing;
    };
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok();
    let Some(certificate) = der.as_deref().and_then(parse) else {
        return Proof::Wrong("it cannot be read as X.509");
    };
    let mut names = certificate.subject().iter_common_name();
    let name = names
        .next()
        .and_then(|name| name.as_str().ok())
        .unwrap_or_default();
    let same = name.to_ascii_lowercase().as_bytes().ct_eq(code.as_bytes());
    if !bool::from(same) || names.next().is_some() {
        return Proof::Wrong("its common name is not the verification code");
    }
    if certificate.issuer().as_raw() != authority.subject().as_raw() {
        return Proof::Wrong("its issuer is not the authority");
    }
    if is_signed_by(&certificate, authority) {
        Proof::Given
    } else {
        Proof::Wrong(
            "the authority's key did not sign it, or with an algorithm that is not taken: RSA from \
             2048 bits or ECDSA P-256 or P-384 with SHA-256 or longer, or Ed25519",
        )
    }
}

/// webpki cannot be asked: it takes no X.509 v1, which is what `openssl x509 -req` writes.
fn is_signed_by(certificate: &X509Certificate<'_>, authority: &X509Certificate<'_>) -> bool {
    let algorithm = certificate.signature_algorithm.algorithm.to_id_string();
    let key = authority.public_key();
    let curve = key
        .algorithm
        .parameters
        .as_ref()
        .and_then(|it| it.as_oid().ok());
    let curve = curve.map(|oid| oid.to_id_string()).unwrap_or_default();
    let verification: &dyn VerificationAlgorithm = match (algorithm.as_str(), curve.as_str()) {
        ("1.2.840.113549.1.1.11", _) => &RSA_PKCS1_2048_8192_SHA256,
        ("1.2.840.113549.1.1.12", _) => &RSA_PKCS1_2048_8192_SHA384,
        ("1.2.840.113549.1.1.13", _) => &RSA_PKCS1_2048_8192_SHA512,
        ("1.2.840.10045.4.3.2", "1.2.840.10045.3.1.7") => &ECDSA_P256_SHA256_ASN1,
        ("1.2.840.10045.4.3.3", "1.2.840.10045.3.1.7") => &ECDSA_P256_SHA384_ASN1,
        ("1.2.840.10045.4.3.2", "1.3.132.0.34") => &ECDSA_P384_SHA256_ASN1,
        ("1.2.840.10045.4.3.3", "1.3.132.0.34") => &ECDSA_P384_SHA384_ASN1,
        ("1.3.101.112", _) => &ED25519,
        _ => return false,
    };
    let key = signature::UnparsedPublicKey::new(verification, &key.subject_public_key.data);
    let signed = certificate.tbs_certificate.as_ref();
    key.verify(signed, &certificate.signature_value.data)
        .is_ok()
}
