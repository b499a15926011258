//! Symmetric keys and the tokens that they sign, as the Azure page "Symmetric key attestation" and
//! the IoT Hub page "Control access with shared access signatures" describe them.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

const TOKEN_LIFE: Duration = Duration::from_hours(1);

/// What Python's `quote(safe="")` leaves alone.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The key of a device, of an enrollment group or of a hub's policy.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Vec<u8>);

impl Key {
    /// A key that nobody else has.
    pub fn random() -> Result<Self> {
        let mut bytes = vec![0; 32];
        rand::fill(&mut bytes).context("no random bytes")?;
        Ok(Self(bytes))
    }

    /// Reads what [`Self::to_base64`] wrote.
    pub fn from_base64(text: &str) -> Result<Self> {
        Ok(Self(STANDARD.decode(text).context("no key in base64")?))
    }

    /// The key in base64, as it stands in Secrets and identities.
    pub fn to_base64(&self) -> String {
        STANDARD.encode(&self.0)
    }

    /// The key of one device of the group whose key this is.
    #[must_use]
    pub fn of_device(&self, registration_id: &str) -> Self {
        Self(self.sign(registration_id).as_ref().to_vec())
    }

    /// A shared access signature for `resource` that ends in an hour.
    pub fn token(&self, resource: &str, policy: Option<&str>) -> Result<String> {
        Ok(self.token_until(resource, policy, now()? + TOKEN_LIFE))
    }

    fn token_until(&self, resource: &str, policy: Option<&str>, end: Duration) -> String {
        let (resource, end) = (encoded(resource), end.as_secs());
        let signature = STANDARD.encode(self.sign(&format!("{resource}\n{end}")));
        let policy = policy.map(|name| format!("&skn={}", encoded(name)));
        format!(
            "SharedAccessSignature sr={resource}&sig={}&se={end}{}",
            encoded(&signature),
            policy.unwrap_or_default()
        )
    }

    fn sign(&self, text: &str) -> hmac::Tag {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.0), text.as_bytes())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// Percent-encoded for a URL, a user name or a token.
pub(crate) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

/// When a token of an hour ends, in seconds since 1970.
pub(super) fn token_end() -> Result<u64> {
    Ok((now()? + TOKEN_LIFE).as_secs())
}

/// Time since 1970: tokens end by the wall clock.
#[expect(
    clippy::disallowed_methods,
    reason = "a device asks its own clock; nothing here is the product"
)]
fn now() -> Result<Duration> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Computed with Python's hmac and hashlib.
    const GROUP: std::ops::RangeInclusive<u8> = 0..=0x3f;
    const DEVICE: &str = "Tz4Wtei6uHSGQm0NiJy0Ijsh6/sJcnyJYOAfzqC4oKM=";
    const TOKEN: &str = "SharedAccessSignature sr=0ne000TEST1%2Fregistrations%2Fdevice-001&sig=j8rv1LaM9ZwWgL%2F2MYqvckLo99Q7HiKXY1%2BFiXlJK7k%3D&se=1900000000";

    #[test]
    fn a_key_of_a_group_gives_the_documented_key_and_token_of_a_device() {
        let key = Key(GROUP.collect()).of_device("device-001");
        assert_eq!(key.to_base64(), DEVICE);
        let end = Duration::from_secs(1_900_000_000);
        let token = key.token_until("0ne000TEST1/registrations/device-001", None, end);
        assert_eq!(token, TOKEN);
    }

    #[test]
    fn a_key_is_never_shown() {
        assert_eq!(format!("{:?}", Key::random().unwrap()), "Key(…)");
    }
}
