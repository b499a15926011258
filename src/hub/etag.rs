//! Entity tags and the preconditions that name them.
//!
//! Every tag is made of a serial: a number that this hub never uses twice, also not for a device
//! deleted and created again. So a precondition that held once can never hold again by accident.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// The tag of an identity: base64 of the serial in decimal, as IoT Hub writes it.
pub fn of_identity(serial: u64) -> String {
    BASE64_STANDARD.encode(serial.to_string())
}

/// The tag of a twin: base64 of the serial as eight bytes, as IoT Hub writes it.
pub fn of_twin(serial: u64) -> String {
    BASE64_STANDARD.encode(serial.to_be_bytes())
}

/// The precondition of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IfMatch {
    Absent,
    /// `*`: whatever is there, as long as something is.
    Any,
    Tag(String),
}

impl IfMatch {
    /// Reads a header or an `eTag` member. SDKs send tags and even the star quoted or bare.
    pub fn parse(text: Option<&str>) -> Self {
        let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else {
            return Self::Absent;
        };
        let bare = text
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
            .unwrap_or(text);
        if bare == "*" {
            Self::Any
        } else {
            Self::Tag(bare.to_owned())
        }
    }

    /// Whether the tag found meets the precondition; an absent one is always met.
    pub fn admits(&self, found: &str) -> bool {
        match self {
            Self::Absent | Self::Any => true,
            Self::Tag(tag) => tag == found,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_look_like_those_of_iot_hub() {
        assert_eq!(of_identity(580_089_003), "NTgwMDg5MDAz");
        assert_eq!(of_twin(7), "AAAAAAAAAAc=");
    }

    #[test]
    fn tags_and_stars_are_read_quoted_or_bare() {
        for (text, expected) in [
            (None, IfMatch::Absent),
            (Some(""), IfMatch::Absent),
            (Some("*"), IfMatch::Any),
            (Some("\"*\""), IfMatch::Any),
            (Some("MA=="), IfMatch::Tag("MA==".into())),
            (Some(" \"MA==\" "), IfMatch::Tag("MA==".into())),
            (Some("\""), IfMatch::Tag("\"".into())),
        ] {
            assert_eq!(IfMatch::parse(text), expected, "{text:?}");
        }
    }
}
