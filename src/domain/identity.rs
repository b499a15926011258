//! A device's identity in a hub's registry, and the mark by which we know ours.

use std::fmt;

use serde_json::{Map, Value, json};
use subtle::ConstantTimeEq as _;

use super::attestation::{DeviceCredential, DeviceKeys, SymmetricKey};
use super::twin::{Content, Metadata};

/// An identity as a hub's registry holds it.
///
/// The whole JSON is kept, because a PUT replaces everything and drops what it omits: Azure mints
/// new keys when `authentication` is missing.
#[derive(Clone, PartialEq)]
pub struct Identity {
    /// Device id, case-sensitive.
    pub device_id: String,
    /// Changes whenever the identity is created anew.
    pub generation_id: String,
    /// Opaque version, without quotes, for If-Match.
    pub etag: String,
    /// Whether the device may connect.
    pub enabled: bool,
    /// `statusReason`.
    pub reason: Option<String>,
    body: Map<String, Value>,
}

/// What we write into the `statusReason` of every identity that we create or fence:
/// `rehome <registration uid> <transfer id>`, with the digest of the copied twin behind it on the
/// target of a move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Uid of the `DeviceRegistration`.
    pub registration: String,
    /// Transfer, or operation of a first assignment.
    pub transfer: String,
    /// Digest of the twin that the identity was created with.
    pub digest: Option<String>,
}

/// Proof that a device shows at its hub.
#[derive(Clone)]
pub enum Credential {
    /// What follows from the attestation of the registration.
    Attested(DeviceCredential),
    /// `authentication` as another hub holds it: only when the Enrollment is gone mid-move.
    Copied(Value),
}

/// An identity to be created, always disabled: a late create is then an inert leftover and not a
/// second home.
#[derive(Clone, Debug, PartialEq)]
pub struct NewIdentity {
    /// Device id, case-sensitive.
    pub device_id: String,
    /// What stands in its `statusReason`.
    pub mark: Mark,
    /// How the device authenticates.
    pub credential: Credential,
    /// Whether it is an IoT Edge device.
    pub edge: bool,
    /// Its twin.
    pub content: Content,
    /// `$version`s of desired and reported, for hubs that carry them forward.
    pub versions: Option<(i64, i64)>,
    /// `$metadata`, for hubs that carry it forward.
    pub metadata: Metadata,
}

/// What an update of an identity changes; everything else stays.
#[derive(Clone, Debug, PartialEq)]
pub struct IdentityChange {
    /// Whether the device may connect.
    pub enabled: bool,
    /// `statusReason`.
    pub reason: Option<String>,
    /// How the device authenticates from now on, if that changes.
    pub credential: Option<Credential>,
}

/// An identity in JSON that lacks what every identity has.
#[derive(Debug, thiserror::Error)]
#[error("the hub's answer is not a device identity: {0} is missing")]
pub struct NotAnIdentity(&'static str);

impl Identity {
    /// Reads the JSON of the IoT Hub service API ("Devices - Get Identity").
    pub fn from_json(body: Map<String, Value>) -> Result<Self, NotAnIdentity> {
        let text = |name: &'static str| {
            body.get(name)
                .and_then(Value::as_str)
                .map(str::to_owned)
                .ok_or(NotAnIdentity(name))
        };
        Ok(Self {
            device_id: text("deviceId")?,
            generation_id: text("generationId")?,
            etag: text("etag")?.trim_matches('"').to_owned(),
            enabled: text("status").is_ok_and(|status| status.eq_ignore_ascii_case("enabled")),
            reason: text("statusReason")
                .ok()
                .filter(|reason| !reason.is_empty()),
            body,
        })
    }

    /// The JSON as the hub sent it. Holds keys: never log it.
    pub fn body(&self) -> &Map<String, Value> {
        &self.body
    }

    /// Our mark, when the `statusReason` is one.
    pub fn mark(&self) -> Option<Mark> {
        self.reason.as_deref().and_then(Mark::parse)
    }

    /// Whether the identity carries the mark of that registration.
    pub fn is_marked_by(&self, registration: &str) -> bool {
        self.mark()
            .is_some_and(|mark| mark.registration == registration)
    }

    /// Whether the identity carries the mark of that transfer of that registration.
    pub fn is_marked(&self, registration: &str, transfer: &str) -> bool {
        self.mark()
            .is_some_and(|mark| mark.registration == registration && mark.transfer == transfer)
    }

    /// Whether the identity is disabled with the mark of that transfer.
    pub fn is_fenced(&self, registration: &str, transfer: &str) -> bool {
        !self.enabled && self.is_marked(registration, transfer)
    }

    /// Whether the device can authenticate with this credential, and with no other.
    pub fn has_credential(&self, credential: &DeviceCredential) -> bool {
        match credential {
            DeviceCredential::Keys(keys) => self.has_keys(keys),
            DeviceCredential::Certificate(thumbprint) => {
                let held = |name| self.held("x509Thumbprint", name).unwrap_or_default();
                held("primaryThumbprint").eq_ignore_ascii_case(&thumbprint.to_string())
                    && held("secondaryThumbprint").is_empty()
            }
        }
    }

    fn has_keys(&self, keys: &DeviceKeys) -> bool {
        let is_held = |name: &str, key: &SymmetricKey| {
            let held = self.held("symmetricKey", name);
            held.is_some_and(|held| held.as_bytes().ct_eq(key.to_base64().as_bytes()).into())
        };
        is_held("primaryKey", &keys.primary) && is_held("secondaryKey", &keys.secondary)
    }

    /// A text of `authentication`.
    fn held(&self, kind: &str, name: &str) -> Option<&str> {
        self.body
            .get("authentication")?
            .get(kind)?
            .get(name)?
            .as_str()
    }

    /// Ids of the device's modules, as hubs of ours list them; other hubs tell nothing here.
    pub fn module_ids(&self) -> Vec<String> {
        let listed = self.body.get("moduleIds").and_then(Value::as_array);
        let ids = listed.into_iter().flatten().filter_map(Value::as_str);
        ids.map(str::to_owned).collect()
    }

    /// The same identity with one more module.
    #[must_use]
    pub fn with_module(mut self, id: &str) -> Self {
        let mut ids = self.module_ids();
        if !ids.iter().any(|known| known == id) {
            ids.push(id.to_owned());
        }
        self.body.insert("moduleIds".to_owned(), ids.into());
        self
    }

    /// Whether the device is an IoT Edge device.
    pub fn is_edge(&self) -> bool {
        self.body
            .get("capabilities")
            .and_then(|capabilities| capabilities.get("iotEdge"))
            .and_then(Value::as_bool)
            .unwrap_or(false)
    }
}

impl NewIdentity {
    /// The identity that the hub made of it, when its answer names generation id and etag.
    pub fn created(&self, generation_id: String, etag: String) -> Identity {
        Identity {
            device_id: self.device_id.clone(),
            generation_id: generation_id.clone(),
            etag: etag.clone(),
            enabled: false,
            reason: Some(self.mark.to_string()),
            body: Map::from_iter([
                ("deviceId".to_owned(), self.device_id.clone().into()),
                ("generationId".to_owned(), generation_id.into()),
                ("etag".to_owned(), etag.into()),
                ("status".to_owned(), "disabled".into()),
                ("statusReason".to_owned(), self.mark.to_string().into()),
                (
                    "authentication".to_owned(),
                    self.credential.authentication(),
                ),
                ("capabilities".to_owned(), json!({ "iotEdge": self.edge })),
            ]),
        }
    }
}

impl Credential {
    /// `authentication` as it stands in an identity. Holds keys: never log it.
    pub fn authentication(&self) -> Value {
        match self {
            Self::Attested(DeviceCredential::Keys(keys)) => json!({
                "type": "sas",
                "symmetricKey": {
                    "primaryKey": keys.primary.to_base64().as_str(),
                    "secondaryKey": keys.secondary.to_base64().as_str(),
                },
            }),
            Self::Attested(DeviceCredential::Certificate(thumbprint)) => json!({
                "type": "selfSigned",
                "x509Thumbprint": {
                    "primaryThumbprint": thumbprint.to_string(),
                    "secondaryThumbprint": null,
                },
            }),
            Self::Copied(authentication) => authentication.clone(),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("device_id", &self.device_id)
            .field("generation_id", &self.generation_id)
            .field("etag", &self.etag)
            .field("enabled", &self.enabled)
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

impl PartialEq for Credential {
    fn eq(&self, other: &Self) -> bool {
        self.authentication() == other.authentication()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Attested(_) => "Attested(…)",
            Self::Copied(_) => "Copied(…)",
        })
    }
}

impl Mark {
    /// First word of every mark.
    pub const PREFIX: &'static str = "rehome ";

    /// A mark without a digest.
    pub fn new(registration: &str, transfer: &str) -> Self {
        Self {
            registration: registration.to_owned(),
            transfer: transfer.to_owned(),
            digest: None,
        }
    }

    /// The same mark with the digest of the twin that the identity is created with.
    #[must_use]
    pub fn with_digest(mut self, digest: String) -> Self {
        self.digest = Some(digest);
        self
    }

    /// Reads a `statusReason`; `None` when it is not a mark of ours.
    pub fn parse(reason: &str) -> Option<Self> {
        let mut words = reason.strip_prefix(Self::PREFIX)?.split(' ');
        let registration = words.next().filter(|word| !word.is_empty())?.to_owned();
        let transfer = words.next().filter(|word| !word.is_empty())?.to_owned();
        let digest = words.next().map(str::to_owned);
        words.next().is_none().then_some(Self {
            registration,
            transfer,
            digest,
        })
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{} {}", Self::PREFIX, self.registration, self.transfer)?;
        match &self.digest {
            Some(digest) => write!(f, " {digest}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_reads_back_what_it_wrote() {
        for mark in [
            Mark::new("u-1", "t-1"),
            Mark::new("u-1", "t-1").with_digest("d".into()),
        ] {
            assert_eq!(Mark::parse(&mark.to_string()), Some(mark));
        }
    }

    #[test]
    fn other_reasons_are_not_marks() {
        for reason in [
            "",
            "rehome",
            "rehome u",
            "rehome  t",
            "broken by rehome u t",
            "rehome a b c d",
        ] {
            assert_eq!(Mark::parse(reason), None, "{reason}");
        }
    }

    #[test]
    fn debug_hides_the_keys() {
        let body = serde_json::json!({"deviceId": "d", "generationId": "g", "etag": "e",
            "status": "enabled", "authentication": {"symmetricKey": {"primaryKey": "c2VjcmV0"}}});
        let Value::Object(body) = body else {
            unreachable!()
        };
        let identity = Identity::from_json(body).unwrap();
        assert!(!format!("{identity:?}").contains("c2VjcmV0"));
    }
}
