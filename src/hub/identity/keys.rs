//! Symmetric keys of devices and policies. They never reach a log: `Debug` prints nothing of them.

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

/// Length of the keys that the hub makes itself.
const MINTED_BYTES: usize = 32;

/// A key as its base64 text, which is echoed exactly as it came.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(String);

/// The two keys of a device; either one opens the door, so that one can be rotated at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SymmetricKeys {
    pub primary: Key,
    pub secondary: Key,
}

impl Key {
    /// Accepts base64 of 16 to 64 bytes.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        match BASE64_STANDARD.decode(text) {
            Ok(bytes) if (16..=64).contains(&bytes.len()) => Ok(Self(text.to_owned())),
            _ => Err("must be base64 of 16 to 64 bytes"),
        }
    }

    pub fn mint(random: &dyn Fn(&mut [u8])) -> Self {
        let mut bytes = [0; MINTED_BYTES];
        random(&mut bytes);
        Self(BASE64_STANDARD.encode(bytes))
    }

    /// The base64 text, for those who may see it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether `signature` is this key's HMAC-SHA256 of `text`, in constant time.
    pub fn has_signed(&self, text: &str, signature: &[u8]) -> bool {
        let Ok(bytes) = BASE64_STANDARD.decode(&self.0) else {
            return false;
        };
        let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        hmac::verify(&key, text.as_bytes(), signature).is_ok()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl SymmetricKeys {
    pub fn mint(random: &dyn Fn(&mut [u8])) -> Self {
        Self {
            primary: Key::mint(random),
            secondary: Key::mint(random),
        }
    }

    /// Whether either key has signed; both are always tried, so that timing tells neither.
    pub fn have_signed(&self, text: &str, signature: &[u8]) -> bool {
        self.primary.has_signed(text, signature) | self.secondary.has_signed(text, signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_base64_of_16_to_64_bytes() {
        for (bytes, fine) in [(15, false), (16, true), (64, true), (65, false)] {
            assert_eq!(
                Key::parse(&BASE64_STANDARD.encode(vec![7; bytes])).is_ok(),
                fine,
                "{bytes}"
            );
        }
        for text in ["", "not base64!", "MTIzNDU2Nzg5MDEyMzQ1Ng"] {
            assert!(Key::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn debug_shows_nothing_of_a_key() {
        let keys = SymmetricKeys::mint(&|bytes| bytes.fill(7));
        assert_eq!(
            format!("{keys:?}"),
            "SymmetricKeys { primary: Key(..), secondary: Key(..) }"
        );
    }
}
