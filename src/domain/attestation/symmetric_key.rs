//! Symmetric keys, and the tokens signed with them.
//!
//! Behaviour of the Azure page "Symmetric key attestation in DPS": an individual enrollment's keys
//! are the device's own; a group's keys derive one for each registration id. The group's keys
//! themselves are never a device's.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use k8s_openapi::ByteString;

use super::{Claim, Refusal, Unusable};
use crate::api::v1alpha1::SymmetricKeySecretRef;
use crate::domain::ids::RegistrationId;
use crate::domain::sas::SasToken;

/// A symmetric key: 16 to 64 bytes, written as base64. Never shown by `Debug`; wiped when dropped.
#[derive(Clone)]
pub struct SymmetricKey(Zeroizing<Vec<u8>>);

/// A text that is not a symmetric key. Does not repeat it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// The text is not base64.
    #[error("the key is not base64")]
    NotBase64,
    /// The key is too short or too long.
    #[error("the key must have 16 to 64 bytes before base64; it has {0}")]
    Length(usize),
}

impl SymmetricKey {
    /// The key in base64, as hubs and devices are given it.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(&*self.0))
    }

    /// The key itself.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn from_mac(mac: Zeroizing<Vec<u8>>) -> Self {
        Self(mac)
    }

    /// HMAC-SHA256 of `text` under this key.
    pub fn mac(&self, text: &[u8]) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(hmac::sign(&self.hmac(), text).as_ref().to_vec())
    }

    pub(in crate::domain) fn hmac(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.0)
    }
}

impl FromStr for SymmetricKey {
    type Err = InvalidKey;

    /// Reads base64; white space around it, such as the newline of a file, does not count.
    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let bytes = STANDARD
            .decode(text.trim())
            .map_err(|_| InvalidKey::NotBase64)?;
        let bytes = Zeroizing::new(bytes);
        if !(16..=64).contains(&bytes.len()) {
            return Err(InvalidKey::Length(bytes.len()));
        }
        Ok(Self(bytes))
    }
}

impl fmt::Debug for SymmetricKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SymmetricKey(hidden)")
    }
}

/// Primary and secondary key, of a device or of a group.
#[derive(Clone, Debug)]
pub struct KeyPair {
    /// Tried first.
    pub primary: SymmetricKey,
    /// For rotation without an interruption.
    pub secondary: SymmetricKey,
}

/// The keys that a device has, at its enrollment and at its hub alike.
pub type DeviceKeys = KeyPair;

/// The key of one device of a group: HMAC-SHA256 of its registration id as the deriver spelt it.
pub fn derive_device_key(group_key: &SymmetricKey, registration_id: &str) -> SymmetricKey {
    SymmetricKey(group_key.mac(registration_id.as_bytes()))
}

/// Tells whether two attested credentials are the same, without keeping either.
///
/// A keyed hash over both device keys and the registration id: whoever reads it can neither get a
/// key from it nor test a guess at one key without the other.
pub fn fingerprint(id: &RegistrationId, keys: &DeviceKeys) -> String {
    let text = format!("rehome credential v1\n{}\n", id.canonical());
    let mut message = text.as_bytes().to_vec();
    message.extend_from_slice(&keys.secondary.mac(text.as_bytes()));
    crate::domain::hex(&keys.primary.mac(&message)[..16])
}

/// What an enrollment shares with its devices.
#[derive(Clone, Debug)]
pub enum SharedKeys {
    /// The keys of one device.
    Individual(KeyPair),
    /// The keys from which those of every device are derived.
    Group(KeyPair),
}

impl Claim<'_> {
    /// The token, if it is for this device, here, now; says nothing about who signed it.
    pub fn token_on_its_terms(&self) -> Result<&SasToken, Refusal> {
        let token = self.token.ok_or(Refusal::NoToken)?;
        let mut segments = token.resource().split('/');
        let expected = [self.scope.canonical(), "registrations", self.id.canonical()];
        let same = expected.iter().all(|part| {
            segments
                .next()
                .is_some_and(|said| said.eq_ignore_ascii_case(part))
        });
        if !same || segments.next().is_some() {
            return Err(Refusal::WrongScope);
        }
        if token.is_expired(self.now, self.skew) {
            return Err(Refusal::Expired);
        }
        Ok(token)
    }
}

impl SharedKeys {
    /// Reads the keys that an Enrollment refers to from its Secret's data.
    pub fn from_secret(
        wanted: &SymmetricKeySecretRef,
        individual: bool,
        data: &BTreeMap<String, ByteString>,
    ) -> Result<Self, Unusable> {
        let read = |key: &str| {
            let invalid = |problem: String| Unusable::Secret {
                key: key.to_owned(),
                problem,
            };
            let value = data.get(key).ok_or_else(|| {
                invalid("is missing; put the base64 of 16 to 64 random bytes there".to_owned())
            })?;
            let text = std::str::from_utf8(&value.0)
                .map_err(|_| invalid(InvalidKey::NotBase64.to_string()))?;
            text.parse::<SymmetricKey>()
                .map_err(|error| invalid(error.to_string()))
        };
        let keys = KeyPair {
            primary: read(wanted.primary_key())?,
            secondary: read(wanted.secondary_key())?,
        };
        Ok(if individual {
            Self::Individual(keys)
        } else {
            Self::Group(keys)
        })
    }

    /// The keys of a device as it spells its registration id.
    pub fn keys_for(&self, id: &RegistrationId) -> DeviceKeys {
        match self {
            Self::Individual(keys) => keys.clone(),
            Self::Group(keys) => derive_pair(keys, id.as_str()),
        }
    }

    /// Judges a claim. Every key is tried, and each comparison takes constant time.
    pub fn evaluate(&self, claim: &Claim<'_>) -> Result<DeviceKeys, Refusal> {
        let token = claim.token_on_its_terms()?;
        let signed = |keys: &DeviceKeys| {
            token.is_signed_by(&keys.primary) | token.is_signed_by(&keys.secondary)
        };
        let mut candidates = self.candidates(claim.id).into_iter();
        candidates.find(signed).ok_or(Refusal::WrongKey)
    }

    /// The keys that belong to that fingerprint, if this attestation still has them. This is how
    /// the keys that a device was attested with are found again without having been stored.
    pub fn keys_of(&self, id: &RegistrationId, credential: &str) -> Option<DeviceKeys> {
        self.candidates(id)
            .into_iter()
            .find(|keys| fingerprint(id, keys) == credential)
    }

    /// What the device's keys may be: devices derive theirs from the id as they spell it or, as
    /// the service's documentation says, lower-cased.
    fn candidates(&self, id: &RegistrationId) -> Vec<DeviceKeys> {
        let group = match self {
            Self::Individual(keys) => return vec![keys.clone()],
            Self::Group(keys) => keys,
        };
        let mut all = vec![derive_pair(group, id.as_str())];
        if id.as_str() != id.canonical() {
            all.push(derive_pair(group, id.canonical()));
        }
        all
    }
}

fn derive_pair(group: &KeyPair, spelling: &str) -> DeviceKeys {
    KeyPair {
        primary: derive_device_key(&group.primary, spelling),
        secondary: derive_device_key(&group.secondary, spelling),
    }
}

#[cfg(test)]
#[path = "symmetric_key_tests.rs"]
mod tests;
