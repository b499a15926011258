//! Shared access signatures (Azure's page "Control access to IoT Hub with shared access
//! signatures"): `SharedAccessSignature sr=…&sig=…&se=…[&skn=…]`, fields in any order.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::{SignedDuration, Timestamp};
use percent_encoding::percent_decode_str;

use super::identity::SymmetricKeys;

/// How far the clocks of a client and the hub may differ.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(5);
const SCHEME: &str = "SharedAccessSignature ";

/// A token as read; nothing about it is proven until [`Token::is_signed_by`].
pub(super) struct Token {
    /// What was signed: `sr` exactly as sent (SDKs differ in what they encode), and the expiry.
    signed: String,
    signature: Vec<u8>,
    resource: String,
    expires: Timestamp,
    policy: Option<String>,
}

impl Token {
    /// `None` for anything that is not a token.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (scheme, fields) = text.split_at_checked(SCHEME.len())?;
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            return None;
        }
        let (mut resource, mut signature, mut expiry, mut policy) = (None, None, None, None);
        for (name, value) in fields
            .trim()
            .split('&')
            .filter_map(|field| field.split_once('='))
        {
            let slot = match name {
                "sr" => &mut resource,
                "sig" => &mut signature,
                "se" => &mut expiry,
                "skn" => &mut policy,
                _ => continue,
            };
            *slot = Some(value);
        }
        let (resource, expiry) = (resource?, expiry?);
        let decode = |text| percent_decode_str(text).decode_utf8().ok();
        Some(Self {
            signed: format!("{resource}\n{expiry}"),
            signature: BASE64_STANDARD.decode(&*decode(signature?)?).ok()?,
            resource: decode(resource)?.into_owned(),
            expires: Timestamp::from_second(expiry.parse().ok()?).ok()?,
            policy: policy
                .and_then(decode)
                .map(Into::into)
                .filter(|name: &String| !name.is_empty()),
        })
    }

    /// The shared access policy that the token claims; a device's own token names none.
    pub(super) fn policy(&self) -> Option<&str> {
        self.policy.as_deref()
    }

    pub(super) fn is_signed_by(&self, keys: &SymmetricKeys) -> bool {
        keys.have_signed(&self.signed, &self.signature)
    }

    /// When it stops to count; a little after the time it states, as clocks differ.
    pub(super) fn ends(&self) -> Timestamp {
        self.expires
            .saturating_add(CLOCK_SKEW)
            .unwrap_or(Timestamp::MAX)
    }

    /// Whether the token speaks for `path` at the hub: its resource must be the host or a prefix of
    /// whole segments. Host names have no case; everything behind them has.
    pub(super) fn covers(&self, host_name: &str, path: &str) -> bool {
        let mut claimed = self.resource.trim_end_matches('/').split('/');
        if !claimed
            .next()
            .is_some_and(|host| host.eq_ignore_ascii_case(host_name))
        {
            return false;
        }
        let mut wanted = path.trim_start_matches('/').split('/');
        claimed.all(|segment| wanted.next() == Some(segment))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("resource", &self.resource)
            .field("policy", &self.policy)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use aws_lc_rs::hmac;

    use super::*;
    use crate::hub::identity::Key;

    /// Signs like an SDK does; `resource` goes in as it stands.
    pub(in crate::hub) fn sign(
        resource: &str,
        key: &str,
        expiry: i64,
        policy: Option<&str>,
    ) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &BASE64_STANDARD.decode(key).unwrap());
        let tag = hmac::sign(&key, format!("{resource}\n{expiry}").as_bytes());
        let signature = BASE64_STANDARD.encode(tag.as_ref());
        let signature = signature
            .replace('+', "%2B")
            .replace('/', "%2F")
            .replace('=', "%3D");
        let policy = policy.map_or_else(String::new, |name| format!("&skn={name}"));
        format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}{policy}")
    }

    const PRIMARY: &str = "cHJpbWFyeS1rZXktMDEyMw==";
    const SECONDARY: &str = "c2Vjb25kYXJ5LWtleS0wMQ==";

    fn keys() -> SymmetricKeys {
        let key = |text| Key::parse(text).unwrap();
        SymmetricKeys {
            primary: key(PRIMARY),
            secondary: key(SECONDARY),
        }
    }

    #[test]
    fn either_key_signs_over_the_resource_as_it_was_sent() {
        for resource in [
            "hub.test",
            "hub.test%2Fdevices%2Fa",
            "hub.test%2fdevices%2fa",
            "hub.test/devices/a",
        ] {
            for key in [PRIMARY, SECONDARY] {
                let token = Token::parse(&sign(resource, key, 2_000_000_000, None)).unwrap();
                assert!(token.is_signed_by(&keys()), "{resource}");
                assert!(token.covers("HUB.TEST", "/devices/a"), "{resource}");
            }
        }
        let other = sign("hub.test", "b3RoZXIta2V5LTAxMjM0NQ==", 2_000_000_000, None);
        assert!(!Token::parse(&other).unwrap().is_signed_by(&keys()));
        let longer = sign("hub.test", PRIMARY, 2_000_000_000, None).replace("se=2", "se=3");
        assert!(!Token::parse(&longer).unwrap().is_signed_by(&keys()));
    }

    #[test]
    fn fields_come_in_any_order_and_the_scheme_in_any_case() {
        let text = "sharedaccesssignature skn=service&se=12&x=y&sig=MTI=&sr=hub.test";
        let token = Token::parse(text).unwrap();
        assert_eq!(token.policy(), Some("service"));
        assert_eq!(token.ends(), Timestamp::from_second(312).unwrap());
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for text in [
            "",
            "Bearer x",
            "SharedAccessSignature",
            "SharedAccessSignature sr=a&sig=MTI=",
            "SharedAccessSignature sr=a&se=1",
            "SharedAccessSignature sig=MTI=&se=1",
            "SharedAccessSignature sr=a&sig=?&se=1",
            "SharedAccessSignature sr=a&sig=MTI=&se=soon",
            "SharedAccessSignature sr=a&sig=MTI=&se=99999999999999999999",
            "SharedAccessSignature sr=%ff&sig=MTI=&se=1",
        ] {
            assert!(Token::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_token_covers_whole_segments() {
        let token = |resource| Token::parse(&sign(resource, PRIMARY, 1, None)).unwrap();
        for (resource, path, covered) in [
            ("hub.test", "/devices/a", true),
            ("hub.test/", "/devices/a", true),
            ("hub.test%2Fdevices", "/devices/a", true),
            ("hub.test%2Fdevices%2Fa", "/devices/a/modules", true),
            ("hub.test%2Fdevices%2Fa", "/devices/ab", false),
            ("hub.test%2Fdevices%2FA", "/devices/a", false),
            ("hub.test%2Fdevices%2Fa%2Fb", "/devices/a", false),
            ("other.test", "/devices/a", false),
            ("", "/devices/a", false),
        ] {
            assert_eq!(
                token(resource).covers("hub.test", path),
                covered,
                "{resource} {path}"
            );
        }
    }
}
