//! Whether a device is who it says it is. Pure computation.
//!
//! An [`Attestation`] is what an Enrollment knows of its devices; a [`Claim`] is what a device shows.
//! What comes of it is the credential that the device's hub is given, or a [`Refusal`].

pub mod symmetric_key;
pub mod tpm;
pub mod x509;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;

pub use self::symmetric_key::{
    DeviceKeys, InvalidKey, KeyPair, SharedKeys, SymmetricKey, derive_device_key, fingerprint,
};
use self::tpm::Endorsed;
use self::x509::{Chain, Thumbprint, X509};
use super::ids::{IdScope, RegistrationId};
use super::sas::SasToken;
use crate::api::v1alpha1::EnrollmentSpec;

/// How long after its expiry a token still counts, so that devices' clocks need not be exact.
pub const DEFAULT_SKEW: Duration = Duration::from_mins(5);

/// What an enrollment knows of its devices.
#[derive(Clone, Debug)]
pub enum Attestation {
    /// Keys that are shared with the device.
    SymmetricKey(SharedKeys),
    /// The device's certificates, or the authorities that issue them.
    X509(Arc<X509>),
    /// The endorsement key of the device's TPM.
    Tpm(Endorsed),
}

/// What a device has at its hub, from its attestation.
#[derive(Clone)]
pub enum DeviceCredential {
    /// Both of its keys.
    Keys(DeviceKeys),
    /// The certificate that it presented.
    Certificate(Thumbprint),
}

impl DeviceCredential {
    /// Tells whether two attested credentials of a device are the same, without holding a secret:
    /// of keys a keyed hash, of a certificate its thumbprint.
    pub fn fingerprint(&self, id: &RegistrationId) -> String {
        match self {
            Self::Keys(keys) => fingerprint(id, keys),
            Self::Certificate(thumbprint) => thumbprint.to_string(),
        }
    }
}

impl fmt::Debug for DeviceCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keys(_) => f.write_str("Keys(hidden)"),
            Self::Certificate(thumbprint) => write!(f, "Certificate({thumbprint})"),
        }
    }
}

/// A device's claim: who it says it is, and what is to prove it.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The token that it sent, if it did.
    pub token: Option<&'a SasToken>,
    /// The certificates that it presented, if it did.
    pub chain: Option<&'a Chain<'a>>,
    /// The ID scope it registers in.
    pub scope: &'a IdScope,
    /// Who it says it is, in its own spelling.
    pub id: &'a RegistrationId,
    /// Unix seconds.
    pub now: u64,
    /// How long after its expiry a token still counts.
    pub skew: Duration,
}

/// Why a claim does not convince.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No key of the enrollment signed the token.
    #[error("the signature does not match the enrollment's keys")]
    WrongKey,
    /// The token is no longer valid.
    #[error("the shared access signature has expired; check the device's clock")]
    Expired,
    /// The token is for another device or another ID scope.
    #[error("the shared access signature is for another ID scope or registration id")]
    WrongScope,
    /// The enrollment wants a token, and there is none.
    #[error(
        "the request carries no shared access signature (Authorization header or MQTT password)"
    )]
    NoToken,
    /// The enrollment wants a certificate, and there is none.
    #[error(
        "the enrollment takes X.509 certificates and the client presented none in the TLS handshake"
    )]
    NoCertificate,
    /// The certificates do not prove it.
    #[error(transparent)]
    Certificate(#[from] x509::Refusal),
}

/// An Enrollment whose attestation cannot be used. Repeats no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// A data key of its Secret.
    #[error("data key {key}: {problem}")]
    Secret {
        /// The data key.
        key: String,
        /// What is wrong with its value, and what to do.
        problem: String,
    },
    /// The endorsement key of its spec.
    #[error("tpm.endorsementKey {0}")]
    EndorsementKey(String),
    /// A certificate of its spec.
    #[error("{field}: {problem}")]
    Certificate {
        /// The field of the spec below `attestation.x509`.
        field: &'static str,
        /// What is wrong with it, and what to do.
        problem: String,
    },
}

impl Attestation {
    /// Reads what an Enrollment says, whose uid that is, and the data of the Secret that it refers
    /// to, if it does.
    pub fn read(
        spec: &EnrollmentSpec,
        uid: &str,
        data: &BTreeMap<String, ByteString>,
    ) -> Result<Self, Unusable> {
        let attestation = &spec.attestation;
        if let Some(x509) = &attestation.x509 {
            return X509::read(x509, uid).map(|it| Self::X509(Arc::new(it)));
        }
        if let Some(tpm) = &attestation.tpm {
            return Endorsed::read(tpm, data).map(Self::Tpm);
        }
        // The schema sees to it that one of them is there.
        let missing = || Unusable::Secret {
            key: "symmetricKey".to_owned(),
            problem: "the Enrollment says no attestation".to_owned(),
        };
        let keys = attestation.symmetric_key.as_ref().ok_or_else(missing)?;
        SharedKeys::from_secret(&keys.secret_ref, spec.individual.is_some(), data)
            .map(Self::SymmetricKey)
    }

    /// Judges a claim, against this Enrollment alone.
    pub fn evaluate(&self, claim: &Claim<'_>) -> Result<DeviceCredential, Refusal> {
        match self {
            Self::SymmetricKey(keys) => keys.evaluate(claim).map(DeviceCredential::Keys),
            Self::Tpm(endorsed) => endorsed.evaluate(claim).map(DeviceCredential::Keys),
            Self::X509(x509) => {
                let chain = claim.chain.ok_or(Refusal::NoCertificate)?;
                x509.evaluate(chain, claim.id, claim.now)
                    .map(DeviceCredential::Certificate)
                    .map_err(Refusal::Certificate)
            }
        }
    }

    /// The credential that belongs to that fingerprint, found again without having been stored. Of
    /// keys that the enrollment does not have any more: those that it has now.
    pub fn credential_of(
        &self,
        id: &RegistrationId,
        fingerprint: Option<&str>,
    ) -> Option<DeviceCredential> {
        match self {
            Self::SymmetricKey(keys) => {
                let attested = fingerprint.and_then(|known| keys.keys_of(id, known));
                Some(DeviceCredential::Keys(
                    attested.unwrap_or_else(|| keys.keys_for(id)),
                ))
            }
            Self::Tpm(endorsed) => Some(DeviceCredential::Keys(endorsed.hub_keys(id))),
            Self::X509(_) => fingerprint?.parse().ok().map(DeviceCredential::Certificate),
        }
    }
}
