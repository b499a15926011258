//! The body of a request: `DeviceRegistration` of the device API. It never says who the device is.

use aws_lc_rs::digest;
use serde_json::Value;

use super::error::Problem;
use crate::domain::ids::RegistrationId;

/// Largest body: the message size of the Azure page "DPS service limits".
pub const LARGEST: usize = 96 * 1024;

/// What a body may tell us.
#[derive(Debug, Default, PartialEq)]
pub struct Body {
    /// Digest of the payload: equal for equal payloads. Absent when there is none.
    pub payload_digest: Option<String>,
    /// The device asks for a certificate.
    pub has_csr: bool,
    /// The public keys of its TPM, if it shows any.
    pub tpm: Option<TpmKeys>,
}

/// What a device with a TPM shows: base64 of `TPM2B_PUBLIC`s, as it sent them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TpmKeys {
    pub endorsement_key: String,
    pub storage_root_key: String,
}

impl Body {
    /// Reads a body. Nothing, white space, and a `payload` of `null` are how SDKs say nothing.
    pub fn parse(bytes: &[u8], id: &RegistrationId) -> Result<Self, Problem> {
        if bytes.len() > LARGEST {
            return Err(Problem::TooLarge(LARGEST));
        }
        if bytes.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        let body: Value = serde_json::from_slice(bytes)
            .map_err(|error| Problem::BadRequest(format!("the body is not JSON: {error}")))?;
        let Value::Object(members) = body else {
            return Err(Problem::BadRequest(
                "the body is not a JSON object".to_owned(),
            ));
        };
        match members.get("registrationId") {
            None | Some(Value::Null) => {}
            Some(Value::String(said)) if said.eq_ignore_ascii_case(id.as_str()) => {}
            Some(_) => {
                let text = format!("registrationId in the body is not {id}, which authenticates");
                return Err(Problem::BadRequest(text));
            }
        }
        let payload = members.get("payload").filter(|payload| !payload.is_null());
        Ok(Self {
            payload_digest: payload.map(digest_of),
            has_csr: members.get("csr").is_some_and(|csr| !csr.is_null()),
            tpm: members.get("tpm").and_then(TpmKeys::read),
        })
    }
}

impl TpmKeys {
    fn read(tpm: &Value) -> Option<Self> {
        let text = |name| tpm.get(name).and_then(Value::as_str).map(str::to_owned);
        let endorsement_key = text("endorsementKey")?;
        Some(Self {
            endorsement_key,
            storage_root_key: text("storageRootKey").unwrap_or_default(),
        })
    }
}

/// 128 bits in hex.
fn digest_of(payload: &Value) -> String {
    let digest = digest::digest(&digest::SHA256, payload.to_string().as_bytes());
    let half = digest
        .as_ref()
        .iter()
        .take(16)
        .fold(0, |sum, byte| sum << 8 | u128::from(*byte));
    format!("{half:032x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<Body, Problem> {
        Body::parse(body.as_bytes(), &"Device-001".parse().unwrap())
    }

    #[test]
    fn r04_every_way_of_saying_nothing_is_understood() {
        for body in [
            "",
            " ",
            "\n",
            "{}",
            r#"{"registrationId":"device-001"}"#,
            r#"{"registrationId":"device-001","payload":null}"#,
            r#"{"payload": null, "registrationId": "Device-001"}"#,
            r#"{"registrationId":null,"future":{"a":1}}"#,
        ] {
            assert_eq!(parse(body), Ok(Body::default()), "{body}");
        }
    }

    #[test]
    fn r15_a_payload_may_be_any_json_and_is_compared_by_digest() {
        let digest = |body: &str| parse(body).unwrap().payload_digest.unwrap();
        let first = digest(r#"{"payload":{"a":1}}"#);
        assert_eq!(first.len(), 32);
        assert_eq!(
            first,
            digest(r#"{ "payload" : { "a" : 1 }, "registrationId": "device-001" }"#)
        );
        for other in [
            r#"{"payload":{"a":2}}"#,
            r#"{"payload":"{\"a\":1}"}"#,
            r#"{"payload":[1]}"#,
        ] {
            assert_ne!(first, digest(other), "{other}");
        }
    }

    #[test]
    fn r04_a_body_that_contradicts_the_authentication_is_refused() {
        for body in [
            r#"{"registrationId":"device-002"}"#,
            r#"{"registrationId":7}"#,
            "[]",
            "7",
            "{",
            "\u{1}",
        ] {
            assert_eq!(parse(body).unwrap_err().code(), 400_001, "{body}");
        }
        let nested = format!("{{\"payload\":{}{}}}", "[".repeat(9999), "]".repeat(9999));
        assert_eq!(parse(&nested).unwrap_err().code(), 400_001);
    }
}
