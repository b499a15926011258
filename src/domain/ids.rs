//! Identifiers, parsed once at the edge: whoever holds one need not check it again.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use aws_lc_rs::digest;

/// An identifier that breaks the rules for its kind; the text is for the device's developer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {problem}")]
pub struct InvalidId {
    what: &'static str,
    problem: &'static str,
}

/// A device's registration id: compared without regard to case, shown as it was spelt.
///
/// Syntax of the Azure page "DPS service concepts", Registration ID.
#[derive(Clone)]
pub struct RegistrationId {
    spelt: String,
    canonical: String,
}

impl RegistrationId {
    /// As the device spelt it.
    pub fn as_str(&self) -> &str {
        &self.spelt
    }

    /// Lower-cased: equal exactly for ids that count as the same.
    pub fn canonical(&self) -> &str {
        &self.canonical
    }
}

impl FromStr for RegistrationId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let what = "the registration id";
        length(what, text, "has more than 128 characters")?;
        let bytes = text.as_bytes();
        let inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._:".contains(byte);
        if !bytes.iter().all(inner) {
            let problem = "may hold ASCII letters, digits and - . _ : only";
            return Err(InvalidId { what, problem });
        }
        let (first, last) = (bytes[0], bytes[bytes.len() - 1]);
        if !first.is_ascii_alphanumeric() || !(last.is_ascii_alphanumeric() || last == b'-') {
            let problem = "must start with a letter or digit and end with a letter, digit or -";
            return Err(InvalidId { what, problem });
        }
        Ok(Self {
            spelt: text.to_owned(),
            canonical: text.to_ascii_lowercase(),
        })
    }
}

impl PartialEq for RegistrationId {
    fn eq(&self, other: &Self) -> bool {
        self.canonical == other.canonical
    }
}

impl Eq for RegistrationId {}

impl Hash for RegistrationId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.canonical.hash(state);
    }
}

/// A device's id at its hub: case-sensitive.
///
/// Syntax of the Azure page "Understand the identity registry", device identity properties.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct DeviceId(String);

impl DeviceId {
    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DeviceId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        registry_name("the device id", text)?;
        Ok(Self(text.to_owned()))
    }
}

/// What device ids and module ids are made of.
fn registry_name(what: &'static str, text: &str) -> Result<(), InvalidId> {
    length(what, text, "has more than 128 characters")?;
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-:.+%_#*?!(),=@;$'".contains(&byte);
    if text.bytes().all(legal) {
        return Ok(());
    }
    let problem = "may hold ASCII letters, digits and - : . + % _ # * ? ! ( ) , = @ ; $ '";
    Err(InvalidId { what, problem })
}

/// A module's id, unique within its device: case-sensitive.
///
/// Syntax of the Azure page "Understand the identity registry", module identity properties. Names
/// that begin with `$` belong to IoT Edge itself and are not among them.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ModuleId(String);

impl ModuleId {
    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ModuleId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let what = "the module id";
        registry_name(what, text)?;
        if text.starts_with('$') {
            let problem = "begins with $, which is kept for the system modules of IoT Edge";
            return Err(InvalidId { what, problem });
        }
        Ok(Self(text.to_owned()))
    }
}

impl From<&RegistrationId> for DeviceId {
    /// The device id of a device whose Enrollment names none.
    fn from(id: &RegistrationId) -> Self {
        // Everything a registration id may hold, a device id may hold too.
        Self(id.spelt.clone())
    }
}

/// Names a tenant to devices. Compared without regard to case.
#[derive(Clone)]
pub struct IdScope {
    spelt: String,
    canonical: String,
}

impl IdScope {
    /// As it was spelt.
    pub fn as_str(&self) -> &str {
        &self.spelt
    }

    /// Lower-cased: equal exactly for scopes that count as the same.
    pub fn canonical(&self) -> &str {
        &self.canonical
    }
}

impl FromStr for IdScope {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let what = "the ID scope";
        length(what, text, "has more than 128 characters")?;
        if !text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        {
            return Err(InvalidId {
                what,
                problem: "may hold ASCII letters, digits and - . _ only",
            });
        }
        Ok(Self {
            spelt: text.to_owned(),
            canonical: text.to_ascii_lowercase(),
        })
    }
}

impl PartialEq for IdScope {
    fn eq(&self, other: &Self) -> bool {
        self.canonical == other.canonical
    }
}

impl Eq for IdScope {}

impl Hash for IdScope {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.canonical.hash(state);
    }
}

/// Names one registration operation. Only letters, digits, `.` and `-`, because most device SDKs
/// paste it unescaped into paths and topics.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct OperationId(String);

impl OperationId {
    /// A new id in the form that the Azure service uses: `5.{16 hex digits}.{guid}`. The digits
    /// belong to the registration, so that ids made up for another one are told apart without
    /// asking anybody.
    pub fn new(registration: &RegistrationId, random: u128) -> Self {
        let guid = uuid::Uuid::from_u128(random);
        Self(format!("{}.{guid}", operation_prefix(registration)))
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether [`OperationId::new`] may have made this id for that registration.
    pub fn may_belong_to(&self, registration: &RegistrationId) -> bool {
        let rest = self.0.strip_prefix(&operation_prefix(registration));
        rest.and_then(|rest| rest.strip_prefix('.'))
            .is_some_and(|guid| guid.len() == 36)
    }
}

impl FromStr for OperationId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let what = "the operation id";
        if text.len() > 80 {
            return Err(InvalidId {
                what,
                problem: "has more than 80 characters",
            });
        }
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
        if !text.starts_with(|first: char| first.is_ascii_alphanumeric())
            || !text.bytes().all(legal)
        {
            let problem = "must be one that a registration was answered with";
            return Err(InvalidId { what, problem });
        }
        Ok(Self(text.to_owned()))
    }
}

fn operation_prefix(registration: &RegistrationId) -> String {
    let digest = digest::digest(&digest::SHA256, registration.canonical.as_bytes());
    format!("5.{}", super::hex(&digest.as_ref()[..8]))
}

/// Version of the registration API that a device speaks: a date, perhaps with `-preview`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ApiVersion(String);

impl ApiVersion {
    /// As the device sent it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a device that speaks it stays where it is while its Enrollment names no policy
    /// (Azure page "IoT Hub Device reprovisioning concepts", backward compatibility).
    pub fn is_sticky(&self) -> bool {
        self.date() <= "2018-04-01"
    }

    /// Whether its MQTT clients understand `retry-after` in a topic; older ones of the Node SDK
    /// take it for a part of the request id.
    pub fn has_retry_after_in_topics(&self) -> bool {
        self.date() >= "2019-03-31"
    }

    /// Whether `reprovisionedToInitialAssignment` exists in it.
    pub fn has_reprovisioned_substatus(&self) -> bool {
        self.date() >= "2019-04-15"
    }

    fn date(&self) -> &str {
        &self.0[..10]
    }
}

impl FromStr for ApiVersion {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let what = "api-version";
        let date = text.strip_suffix("-preview").unwrap_or(text).as_bytes();
        let digits = |range: std::ops::Range<usize>| {
            let digits = &date[range];
            let legal = digits.iter().all(u8::is_ascii_digit);
            legal.then(|| {
                digits
                    .iter()
                    .fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'))
            })
        };
        let shaped = date.len() == 10 && date[4] == b'-' && date[7] == b'-';
        let parts = shaped.then(|| (digits(0..4), digits(5..7), digits(8..10)));
        let Some((Some(2000..=2099), Some(1..=12), Some(1..=31))) = parts else {
            let problem = "must be a date such as 2019-03-31, perhaps with -preview behind it";
            return Err(InvalidId { what, problem });
        };
        let version = Self(text.to_owned());
        if version.date() < "2017-08-31" {
            return Err(InvalidId {
                what,
                problem: "is older than the first one, 2017-08-31-preview",
            });
        }
        Ok(version)
    }
}

fn length(what: &'static str, text: &str, too_long: &'static str) -> Result<(), InvalidId> {
    match text.len() {
        0 => Err(InvalidId {
            what,
            problem: "is empty",
        }),
        1..=128 => Ok(()),
        _ => Err(InvalidId {
            what,
            problem: too_long,
        }),
    }
}

macro_rules! shown_as_text {
    ($($id:ty),+) => {$(
        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }
    )+};
}
shown_as_text!(
    RegistrationId,
    DeviceId,
    ModuleId,
    IdScope,
    OperationId,
    ApiVersion
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registration_ids_follow_the_rules_of_the_service() {
        let longest = "a".repeat(128);
        for legal in [
            "a",
            "7",
            "device-001",
            "Device-001",
            "sn:aa.bb_cc-01",
            "ends-",
            &longest,
        ] {
            assert_eq!(
                legal.parse::<RegistrationId>().map(|id| id.to_string()),
                Ok(legal.to_owned())
            );
        }
        let too_long = "a".repeat(129);
        for illegal in [
            "", "-a", ".a", "_a", ":a", "a.", "a_", "a:", "a b", "a/b", "ä", "a\n", "a%2f",
            &too_long,
        ] {
            assert!(illegal.parse::<RegistrationId>().is_err(), "{illegal:?}");
        }
    }

    #[test]
    fn registration_ids_and_scopes_are_equal_without_regard_to_case() {
        let (one, two): (RegistrationId, RegistrationId) =
            ("Device-001".parse().unwrap(), "dEVICE-001".parse().unwrap());
        assert_eq!(one, two);
        assert_eq!(one.canonical(), "device-001");
        assert_eq!(one.as_str(), "Device-001");
        assert_eq!("0NE000test".parse::<IdScope>(), "0ne000TEST".parse());
    }

    #[test]
    fn device_ids_are_wider_and_case_sensitive() {
        for legal in ["a", "-a.", "A+b%c#d*e?f!g(h),i=j@k;l$m'n:o_p"] {
            assert_eq!(
                legal.parse::<DeviceId>().map(|id| id.to_string()),
                Ok(legal.to_owned())
            );
        }
        for illegal in ["", "a b", "a/b", "a\"b", "ä"] {
            assert!(illegal.parse::<DeviceId>().is_err(), "{illegal:?}");
        }
        assert_ne!("A".parse::<DeviceId>(), "a".parse());
    }

    #[test]
    fn operation_ids_belong_to_one_registration() {
        let id: RegistrationId = "Device-001".parse().unwrap();
        let operation = OperationId::new(&id, 0xb1e0_2da8_c3a0_4ff2_a121_7ea7_a6b7_f550);
        assert_eq!(operation.as_str().len(), 2 + 16 + 1 + 36);
        assert!(
            operation
                .as_str()
                .ends_with(".b1e02da8-c3a0-4ff2-a121-7ea7a6b7f550"),
            "{operation}"
        );
        assert_eq!(operation.as_str().parse(), Ok(operation.clone()));
        assert!(operation.may_belong_to(&"device-001".parse().unwrap()));
        assert!(!operation.may_belong_to(&"device-002".parse().unwrap()));
        assert!(!OperationId("5.x".to_owned()).may_belong_to(&id));
        for illegal in ["", ".a", "a/b", "a b", "a&b", &"a".repeat(81)] {
            assert!(illegal.parse::<OperationId>().is_err(), "{illegal:?}");
        }
    }

    #[test]
    fn api_versions_are_compared_by_date() {
        for (text, sticky, topics, substatus) in [
            ("2017-08-31-preview", true, false, false),
            ("2017-11-15", true, false, false),
            ("2018-04-01", true, false, false),
            ("2018-04-01-preview", true, false, false),
            ("2018-04-02", false, false, false),
            ("2018-09-01-preview", false, false, false),
            ("2018-11-01", false, false, false),
            ("2019-03-31", false, true, false),
            ("2019-04-15", false, true, true),
            ("2021-06-01", false, true, true),
            ("2025-07-01-preview", false, true, true),
        ] {
            let version: ApiVersion = text.parse().unwrap();
            assert_eq!(version.to_string(), text);
            assert_eq!(version.is_sticky(), sticky, "{text}");
            assert_eq!(version.has_retry_after_in_topics(), topics, "{text}");
            assert_eq!(version.has_reprovisioned_substatus(), substatus, "{text}");
        }
    }

    #[test]
    fn what_is_not_an_api_version_is_refused() {
        for text in [
            "",
            "2017-08-30",
            "2016-01-01",
            "2019",
            "2019-3-31",
            "2019-13-01",
            "2019-00-01",
            "2019-01-32",
            "2019-03-31-beta",
            "2019-03-31-preview-preview",
            "20190331",
            "1999-01-01",
            "2019-03-31 ",
            "2019/03/31",
            "٢٠١٩-03-31",
            "20é9-03-31",
        ] {
            assert!(text.parse::<ApiVersion>().is_err(), "{text:?}");
        }
    }
}
