//! Shared access signatures: the tokens with which devices and services of the Azure IoT family
//! prove that they hold a symmetric key.
//!
//! What is signed is the resource **as it stands in the token**, percent-encoded or not: SDKs differ,
//! and each signs what it sends.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::attestation::SymmetricKey;

/// First word of every token.
const SCHEME: &str = "SharedAccessSignature";

/// A token that cannot be read; says what is wrong with it, never what is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the shared access signature {0}")]
pub struct MalformedToken(&'static str);

/// A token as it was sent. Holds a signature, so `Debug` shows only what it is for.
#[derive(Clone, PartialEq, Eq)]
pub struct SasToken {
    literal_resource: String,
    resource: String,
    signature: Vec<u8>,
    literal_expiry: String,
    expiry: u64,
    key_name: Option<String>,
}

impl SasToken {
    /// Reads `SharedAccessSignature sr=…&sig=…&se=…[&skn=…]`, the fields in any order.
    pub fn parse(text: &str) -> Result<Self, MalformedToken> {
        let (scheme, fields) = text.trim().split_once(' ').ok_or(NOT_A_TOKEN)?;
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            return Err(NOT_A_TOKEN);
        }
        let [mut resource, mut signature, mut expiry, mut key_name] = [None; 4];
        for field in fields.trim_start().split('&') {
            let (name, value) = field
                .split_once('=')
                .ok_or(MalformedToken("has a field without ="))?;
            let place = match name {
                "sr" => &mut resource,
                "sig" => &mut signature,
                "se" => &mut expiry,
                "skn" => &mut key_name,
                _ => continue,
            };
            if place.replace(value).is_some() {
                return Err(MalformedToken("has a field twice"));
            }
        }
        let literal_resource = resource.ok_or(MalformedToken("lacks sr"))?;
        let literal_expiry = expiry.ok_or(MalformedToken("lacks se"))?;
        if literal_expiry.is_empty() || !literal_expiry.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(MalformedToken("has an se that is not a number of seconds"));
        }
        Ok(Self {
            resource: decoded(literal_resource)?,
            literal_resource: literal_resource.to_owned(),
            signature: signature_bytes(signature.ok_or(MalformedToken("lacks sig"))?)?,
            expiry: literal_expiry
                .parse()
                .map_err(|_| MalformedToken("has an se beyond all time"))?,
            literal_expiry: literal_expiry.to_owned(),
            // Java sends an empty one, Python none.
            key_name: key_name
                .filter(|name| !name.is_empty())
                .map(decoded)
                .transpose()?,
        })
    }

    /// The resource that the token is for, percent-decoded. Not proven until [`SasToken::is_signed_by`].
    pub fn resource(&self) -> &str {
        &self.resource
    }

    /// The name of the signing key, when the token says one.
    pub fn key_name(&self) -> Option<&str> {
        self.key_name.as_deref()
    }

    /// Unix seconds after which the token is void.
    pub fn expires_at(&self) -> u64 {
        self.expiry
    }

    /// Whether it expired more than `skew` ago; `now` in Unix seconds.
    pub fn is_expired(&self, now: u64, skew: Duration) -> bool {
        self.expiry.saturating_add(skew.as_secs()) <= now
    }

    /// Whether that key signed it. Takes the same time whatever the signature.
    pub fn is_signed_by(&self, key: &SymmetricKey) -> bool {
        let text = signed_text(&self.literal_resource, &self.literal_expiry);
        hmac::verify(&key.hmac(), text.as_bytes(), &self.signature).is_ok()
    }

    /// A token for `resource`, which is percent-encoded first as most SDKs do.
    pub fn sign(
        resource: &str,
        key: &SymmetricKey,
        expires_at: u64,
        key_name: Option<&str>,
    ) -> String {
        Self::sign_literal(&encoded(resource), key, expires_at, key_name)
    }

    /// A token for a resource in exactly this spelling, as the Node and Java SDKs sign theirs.
    pub fn sign_literal(
        resource: &str,
        key: &SymmetricKey,
        expires_at: u64,
        key_name: Option<&str>,
    ) -> String {
        let text = signed_text(resource, &expires_at.to_string());
        let signature = STANDARD.encode(hmac::sign(&key.hmac(), text.as_bytes()));
        let key_name = key_name
            .map(|name| format!("&skn={}", encoded(name)))
            .unwrap_or_default();
        format!(
            "{SCHEME} sr={resource}&sig={}&se={expires_at}{key_name}",
            encoded(&signature)
        )
    }
}

impl fmt::Debug for SasToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SasToken")
            .field("resource", &self.resource)
            .field("expires_at", &self.expiry)
            .field("key_name", &self.key_name)
            .finish_non_exhaustive()
    }
}

const NOT_A_TOKEN: MalformedToken = MalformedToken("does not start with SharedAccessSignature");

/// What Python's `quote(safe="")` and JavaScript's `encodeURIComponent` leave alone.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

fn decoded(text: &str) -> Result<String, MalformedToken> {
    let decoded = percent_decode_str(text).decode_utf8();
    Ok(decoded
        .map_err(|_| MalformedToken("is not UTF-8"))?
        .into_owned())
}

fn signed_text(resource: &str, expiry: &str) -> String {
    format!("{resource}\n{expiry}")
}

/// `+` stays `+`: some clients leave it unescaped, and it is a digit of base64.
fn signature_bytes(text: &str) -> Result<Vec<u8>, MalformedToken> {
    const TOLERANT: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    TOLERANT
        .decode(percent_decode_str(text).collect::<Vec<u8>>())
        .map_err(|_| MalformedToken("has a sig that is not base64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIG: &str = "aYIl%2FFVMHb3Hu7DKSiQv9vIYi9%2FuELygvtJa5noKJ40%3D";
    const RAW: &str = "0ne000TEST1/registrations/device-001";

    fn device_key() -> SymmetricKey {
        "Tz4Wtei6uHSGQm0NiJy0Ijsh6/sJcnyJYOAfzqC4oKM="
            .parse()
            .unwrap()
    }

    #[test]
    fn fields_may_come_in_any_order_with_or_without_a_key_name() {
        for fields in [
            format!("sr={RAW}&sig={SIG}&skn=registration&se=1900000000"),
            format!("sr={RAW}&sig={SIG}&se=1900000000&skn="),
            format!("se=1900000000&sig={SIG}&sr={RAW}"),
            format!("skn=registration&sig={SIG}&future=1&sr={RAW}&se=1900000000"),
            // Nothing escaped in the signature, and no padding.
            format!("sr={RAW}&sig=aYIl/FVMHb3Hu7DKSiQv9vIYi9/uELygvtJa5noKJ40=&se=1900000000"),
            format!("sr={RAW}&sig=aYIl/FVMHb3Hu7DKSiQv9vIYi9/uELygvtJa5noKJ40&se=1900000000"),
        ] {
            let token = SasToken::parse(&format!("SharedAccessSignature {fields}")).unwrap();
            assert_eq!(token.resource(), RAW);
            assert!(token.is_signed_by(&device_key()), "{fields}");
        }
        let lower = SasToken::parse(&format!("sharedaccesssignature sr={RAW}&sig={SIG}&se=1"));
        assert!(
            !lower.unwrap().is_signed_by(&device_key()),
            "the expiry is signed too"
        );
    }

    #[test]
    fn what_is_not_a_token_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", "start"),
            ("Bearer abc", "start"),
            ("SharedAccessSignature", "start"),
            ("SharedAccessSignature sr", "without ="),
            ("SharedAccessSignature sig=AAAA&se=1", "lacks sr"),
            ("SharedAccessSignature sr=a&se=1", "lacks sig"),
            ("SharedAccessSignature sr=a&sig=AAAA", "lacks se"),
            ("SharedAccessSignature sr=a&sr=b&sig=AAAA&se=1", "twice"),
            ("SharedAccessSignature sr=a&sig=AAAA&se=", "number"),
            ("SharedAccessSignature sr=a&sig=AAAA&se=-1", "number"),
            ("SharedAccessSignature sr=a&sig=AAAA&se=+1", "number"),
            (
                "SharedAccessSignature sr=a&sig=AAAA&se=99999999999999999999",
                "beyond",
            ),
            ("SharedAccessSignature sr=a&sig=A*AA&se=1", "base64"),
            ("SharedAccessSignature sr=%ff&sig=AAAA&se=1", "UTF-8"),
        ] {
            let error = SasToken::parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn expiry_allows_for_skew_and_ends_exactly_there() {
        let token = SasToken::parse("SharedAccessSignature sr=a&sig=AAAA&se=1000").unwrap();
        let skew = Duration::from_mins(5);
        for (now, expired) in [(0, false), (1000, false), (1299, false), (1300, true)] {
            assert_eq!(token.is_expired(now, skew), expired, "{now}");
        }
        assert!(token.is_expired(1000, Duration::ZERO));
        let far = "SharedAccessSignature sr=a&sig=AAAA&se=18446744073709551615";
        assert!(!SasToken::parse(far).unwrap().is_expired(u64::MAX - 1, skew));
    }

    #[test]
    fn signing_makes_what_the_sdks_make() {
        let key = device_key();
        assert_eq!(
            SasToken::sign(RAW, &key, 1_900_000_000, None),
            "SharedAccessSignature sr=0ne000TEST1%2Fregistrations%2Fdevice-001\
             &sig=j8rv1LaM9ZwWgL%2F2MYqvckLo99Q7HiKXY1%2BFiXlJK7k%3D&se=1900000000"
        );
        assert_eq!(
            SasToken::sign_literal(RAW, &key, 1_900_000_000, Some("registration")),
            format!("SharedAccessSignature sr={RAW}&sig={SIG}&se=1900000000&skn=registration")
        );
        let token = SasToken::sign("hub.example.com", &key, 5, Some("iothubowner"));
        assert_eq!(
            SasToken::parse(&token).unwrap().key_name(),
            Some("iothubowner")
        );
    }

    #[test]
    fn debug_shows_no_signature() {
        let text = format!("SharedAccessSignature sr={RAW}&sig={SIG}&se=1");
        let shown = format!("{:?}", SasToken::parse(&text).unwrap());
        assert!(shown.contains(RAW) && !shown.contains("sig"), "{shown}");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "(SharedAccessSignature )?[ -~é%&=]{0,80}") {
            let _ = SasToken::parse(&text);
        }
    }
}
