//! X.509: a device's own certificates, or the authorities that issue a group's.
//!
//! Behaviour of the Azure page "X.509 certificate attestation": the registration id is the common
//! name of the leaf; an individual enrollment holds the leaf itself; a group holds a root or an
//! intermediate authority, possession of whose key was proven, and the device sends every certificate
//! between it and the leaf. That the device holds the leaf's key, TLS has proven.

mod authority;
mod chain;
mod possession;

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use subtle::ConstantTimeEq as _;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

pub use self::authority::{Authority, closest_issuer};
pub use self::chain::{Chain, LONGEST_CHAIN};
pub use self::possession::{Proof, verification_code};
use super::Unusable;
use crate::api::v1alpha1::{CertificateStatus, X509Spec};
use crate::domain::ids::RegistrationId;

/// SHA-256 of a certificate in DER. Public.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thumbprint([u8; 32]);

/// A text that is not a SHA-256 thumbprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 thumbprint has 64 hex digits")]
pub struct InvalidThumbprint;

/// What an enrollment knows of its devices' certificates.
#[derive(Clone, Debug)]
pub enum X509 {
    /// The certificates of one device.
    Individual(Vec<Pin>),
    /// Those who issue the devices' certificates.
    Group(Vec<Authority>),
}

/// One certificate that an individual enrollment takes.
#[derive(Clone, Debug)]
pub struct Pin {
    digest: PinDigest,
    described: Option<CertificateStatus>,
}

#[derive(Clone, Debug)]
enum PinDigest {
    Sha256([u8; 32]),
    Sha1([u8; 20]),
}

/// Why certificates do not prove who a device is. The texts are for the device's developer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub(super) &'static str);

impl Refusal {
    /// The text.
    pub fn message(self) -> &'static str {
        self.0
    }
}

impl Thumbprint {
    /// Of this certificate.
    pub fn of(der: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, der).as_ref());
        Self(bytes)
    }
}

/// In upper-case hex digits, as Azure's services write it.
impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

impl FromStr for Thumbprint {
    type Err = InvalidThumbprint;

    fn from_str(text: &str) -> Result<Self, InvalidThumbprint> {
        hex_bytes(text).map(Self).ok_or(InvalidThumbprint)
    }
}

impl X509 {
    /// Reads the certificates of an Enrollment, whose uid that is.
    pub fn read(spec: &X509Spec, uid: &str) -> Result<Self, Unusable> {
        if let Some(client) = &spec.client_certificates {
            let pem = |name, field, text: &Option<String>| {
                text.as_deref().map(|text| Pin::of_pem(name, field, text))
            };
            let thumbprint = |field, text: &Option<String>| {
                text.as_deref().map(|text| Pin::of_thumbprint(field, text))
            };
            let pins = [
                pem("primary", "clientCertificates.primary", &client.primary),
                pem(
                    "secondary",
                    "clientCertificates.secondary",
                    &client.secondary,
                ),
                thumbprint(
                    "clientCertificates.primaryThumbprint",
                    &client.primary_thumbprint,
                ),
                thumbprint(
                    "clientCertificates.secondaryThumbprint",
                    &client.secondary_thumbprint,
                ),
            ];
            return pins
                .into_iter()
                .flatten()
                .collect::<Result<_, _>>()
                .map(Self::Individual);
        }
        let signing = spec.signing_certificates.clone().unwrap_or_default();
        let proofs = spec.verification.clone().unwrap_or_default();
        let both = [
            (
                "primary",
                "signingCertificates.primary",
                signing.primary,
                proofs.primary,
            ),
            (
                "secondary",
                "signingCertificates.secondary",
                signing.secondary,
                proofs.secondary,
            ),
        ];
        let given = both
            .into_iter()
            .filter_map(|(name, field, certificate, proof)| {
                let certificate = certificate?;
                Some(Authority::read(
                    name,
                    field,
                    &certificate,
                    proof.as_deref(),
                    uid,
                ))
            });
        given.collect::<Result<_, _>>().map(Self::Group)
    }

    /// Judges what a device presents, against this enrollment alone.
    pub fn evaluate(
        &self,
        chain: &Chain<'_>,
        id: &RegistrationId,
        now: u64,
    ) -> Result<Thumbprint, Refusal> {
        match self {
            Self::Individual(pins) => {
                // Every pin is compared, each in constant time.
                let known = pins
                    .iter()
                    .fold(false, |known, pin| known | pin.is(chain.leaf()));
                if !known {
                    return Err(Refusal(
                        "the certificate is not one of the enrollment's; enroll it or present another",
                    ));
                }
                chain.vouch_for(id, now)
            }
            Self::Group(_) => closest_issuer(chain, &[(self, false)], id, now).map(|(_, it)| it),
        }
    }

    /// The authorities of a group; none of an individual enrollment.
    pub fn authorities(&self) -> &[Authority] {
        match self {
            Self::Individual(_) => &[],
            Self::Group(authorities) => authorities,
        }
    }

    /// The certificates as the status of the Enrollment tells them.
    pub fn describe(&self) -> Vec<CertificateStatus> {
        match self {
            Self::Individual(pins) => pins
                .iter()
                .filter_map(|pin| pin.described.clone())
                .collect(),
            Self::Group(authorities) => authorities.iter().map(Authority::describe).collect(),
        }
    }
}

impl Pin {
    fn of_pem(name: &str, field: &'static str, text: &str) -> Result<Self, Unusable> {
        let der = read_pem(field, text)?;
        let certificate = parse(&der).ok_or_else(|| unreadable(field))?;
        let digest = PinDigest::Sha256(Thumbprint::of(&der).0);
        Ok(Self {
            digest,
            described: Some(describe(name, &der, &certificate)),
        })
    }

    fn of_thumbprint(field: &'static str, text: &str) -> Result<Self, Unusable> {
        let digest = hex_bytes(text)
            .map(PinDigest::Sha256)
            .or_else(|| hex_bytes(text).map(PinDigest::Sha1))
            .ok_or_else(|| Unusable::Certificate {
                field,
                problem: "is not a thumbprint: SHA-256 has 64 hex digits, SHA-1 40".to_owned(),
            })?;
        Ok(Self {
            digest,
            described: None,
        })
    }

    fn is(&self, der: &[u8]) -> bool {
        let same = |algorithm, expected: &[u8]| {
            bool::from(digest::digest(algorithm, der).as_ref().ct_eq(expected))
        };
        match &self.digest {
            PinDigest::Sha256(expected) => same(&digest::SHA256, expected),
            PinDigest::Sha1(expected) => same(&digest::SHA1_FOR_LEGACY_USE_ONLY, expected),
        }
    }
}

fn read_pem(field: &'static str, text: &str) -> Result<CertificateDer<'static>, Unusable> {
    CertificateDer::from_pem_slice(text.as_bytes()).map_err(|_| Unusable::Certificate {
        field,
        problem: "is not a certificate in PEM".to_owned(),
    })
}

fn unreadable(field: &'static str) -> Unusable {
    Unusable::Certificate {
        field,
        problem: "is not an X.509 certificate: openssl x509 -text should show it".to_owned(),
    }
}

/// Reads a certificate, and nothing behind it.
fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    let (rest, certificate) = X509Certificate::from_der(der).ok()?;
    rest.is_empty().then_some(certificate)
}

fn describe(name: &str, der: &[u8], certificate: &X509Certificate<'_>) -> CertificateStatus {
    let validity = certificate.validity();
    let time = |seconds| {
        Timestamp::from_second(seconds)
            .unwrap_or(Timestamp::MAX)
            .to_string()
    };
    CertificateStatus {
        name: name.to_owned(),
        subject: certificate.subject().to_string(),
        sha256_thumbprint: Thumbprint::of(der).to_string(),
        not_before: time(validity.not_before.timestamp()),
        not_after: time(validity.not_after.timestamp()),
        verified: None,
        verification_code: None,
    }
}

/// The bytes that `2 * N` hex digits say.
fn hex_bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).ok()?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(bytes)
}
