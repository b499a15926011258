//! Symmetric keys as the hub stores them: the domain's keys, in base64.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use subtle::ConstantTimeEq;

use crate::domain::attestation::{InvalidKey, SymmetricKey};
use crate::domain::sas::SasToken;

/// Length of the keys that the hub makes itself.
const MINTED_BYTES: usize = 32;

/// One key.
#[derive(Clone, Debug)]
pub struct Key(SymmetricKey);

/// The two keys of a device or a policy; either one opens the door, so that one can be rotated at
/// a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SymmetricKeys {
    pub primary: Key,
    pub secondary: Key,
}

impl Key {
    pub fn parse(text: &str) -> Result<Self, InvalidKey> {
        text.parse().map(Self)
    }

    #[expect(clippy::expect_used, reason = "base64 of 32 bytes is a key")]
    fn mint(random: &dyn Fn(&mut [u8])) -> Self {
        let mut bytes = [0; MINTED_BYTES];
        random(&mut bytes);
        Self::parse(&BASE64_STANDARD.encode(bytes)).expect("a key")
    }

    /// The base64 text, for those who may see it.
    pub fn reveal(&self) -> String {
        self.0.to_base64().to_string()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.0
            .to_base64()
            .as_bytes()
            .ct_eq(other.0.to_base64().as_bytes())
            .into()
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_base64())
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl SymmetricKeys {
    pub fn mint(random: &dyn Fn(&mut [u8])) -> Self {
        Self {
            primary: Key::mint(random),
            secondary: Key::mint(random),
        }
    }

    /// Whether either key signed the token; both are always tried, so that timing tells neither.
    pub fn have_signed(&self, token: &SasToken) -> bool {
        token.is_signed_by(&self.primary.0) | token.is_signed_by(&self.secondary.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_storage_and_debug_shows_nothing_of_them() {
        let keys = SymmetricKeys::mint(&|bytes| bytes.fill(7));
        let stored = serde_json::to_string(&keys).unwrap();
        assert_eq!(
            serde_json::from_str::<SymmetricKeys>(&stored).unwrap(),
            keys
        );
        let text = keys.primary.reveal();
        assert_eq!(BASE64_STANDARD.decode(&text).unwrap(), [7; 32]);
        assert!(!format!("{keys:?}").contains(&text[..8]));
    }
}
