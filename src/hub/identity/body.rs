//! What a service sends to create or replace an identity (Azure's page "Devices - Create Or
//! Update Identity"), and the rules it has to follow.

use jiff::Timestamp;
use serde::Deserialize;

use super::{Authentication, Identity, Key, SymmetricKeys};
use crate::hub::error::{ErrorCode, Refusal};

const STATUS_REASON_CHARS: usize = 128;
const MANAGED_BY_BYTES: usize = 128;

/// An identity as a service wants it: everything that a service may set.
#[derive(Clone, Debug, PartialEq)]
pub struct IdentityWrite {
    enabled: bool,
    status_reason: Option<String>,
    /// `None`: the hub makes new keys.
    authentication: Option<Authentication>,
    iot_edge: bool,
}

/// A module's identity as a service wants it.
#[derive(Clone, Debug, PartialEq)]
pub struct ModuleWrite {
    pub managed_by: Option<String>,
    /// `None`: the hub makes new keys.
    pub authentication: Option<Authentication>,
}

/// The members of a module's body that count.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::hub) struct ModuleBody {
    pub(in crate::hub) device_id: Option<String>,
    pub(in crate::hub) module_id: Option<String>,
    managed_by: Option<String>,
    authentication: Option<AuthenticationBody>,
}

impl TryFrom<ModuleBody> for ModuleWrite {
    type Error = Refusal;

    fn try_from(body: ModuleBody) -> Result<Self, Refusal> {
        let managed_by = body.managed_by.filter(|name| !name.is_empty());
        if managed_by
            .as_ref()
            .is_some_and(|it| it.len() > MANAGED_BY_BYTES)
        {
            let message = format!("managedBy is longer than {MANAGED_BY_BYTES} bytes");
            return Err(Refusal::invalid(message));
        }
        // As on IoT Hub: a module without a credential of its own gets keys.
        let authentication = body
            .authentication
            .filter(|it| it.kind.as_deref() != Some("none"));
        Ok(Self {
            managed_by,
            authentication: authentication.map_or(Ok(None), AuthenticationBody::read)?,
        })
    }
}

/// The members of the body that count. Members that the hub sets itself are ignored.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::hub) struct IdentityBody {
    #[serde(default, alias = "id")]
    pub(in crate::hub) device_id: Option<String>,
    status: Option<String>,
    status_reason: Option<String>,
    authentication: Option<AuthenticationBody>,
    capabilities: Option<Capabilities>,
    device_scope: Option<String>,
    parent_scopes: Option<Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct AuthenticationBody {
    #[serde(rename = "type")]
    kind: Option<String>,
    symmetric_key: Option<Pair>,
    x509_thumbprint: Option<Pair>,
}

/// Two keys or two thumbprints; empty text counts as absent.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Pair {
    #[serde(alias = "primaryThumbprint")]
    primary_key: Option<String>,
    #[serde(alias = "secondaryThumbprint")]
    secondary_key: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Capabilities {
    iot_edge: Option<bool>,
}

impl std::fmt::Debug for AuthenticationBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthenticationBody")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl Pair {
    fn into_parts(self) -> (Option<String>, Option<String>) {
        let present = |text: Option<String>| text.filter(|text| !text.is_empty());
        (present(self.primary_key), present(self.secondary_key))
    }
}

impl TryFrom<IdentityBody> for IdentityWrite {
    type Error = Refusal;

    fn try_from(body: IdentityBody) -> Result<Self, Refusal> {
        let enabled = match body.status.as_deref() {
            None | Some("enabled") => true,
            Some("disabled") => false,
            Some(other) => {
                let message = format!("status must be enabled or disabled, not {other:?}");
                return Err(Refusal::invalid(message));
            }
        };
        if body
            .status_reason
            .as_ref()
            .is_some_and(|it| it.chars().count() > STATUS_REASON_CHARS)
        {
            let message = format!("statusReason is longer than {STATUS_REASON_CHARS} characters");
            return Err(Refusal::invalid(message));
        }
        let scoped = body.device_scope.is_some_and(|scope| !scope.is_empty())
            || body.parent_scopes.is_some_and(|scopes| !scopes.is_empty());
        if scoped {
            return Err(Refusal::new(
                ErrorCode::InvalidDeviceScope,
                "this hub keeps no parent devices: leave deviceScope and parentScopes out",
            ));
        }
        Ok(Self {
            enabled,
            status_reason: body.status_reason,
            authentication: body
                .authentication
                .map_or(Ok(None), AuthenticationBody::read)?,
            iot_edge: body
                .capabilities
                .and_then(|it| it.iot_edge)
                .unwrap_or(false),
        })
    }
}

impl AuthenticationBody {
    fn read(self) -> Result<Option<Authentication>, Refusal> {
        let keys = self.symmetric_key.unwrap_or_default().into_parts();
        let thumbprints = self.x509_thumbprint.unwrap_or_default().into_parts();
        let has_thumbprint = thumbprints != (None, None);
        let kind =
            self.kind
                .as_deref()
                .unwrap_or(if has_thumbprint { "selfSigned" } else { "sas" });
        let has_keys = keys != (None, None);
        match kind {
            "sas" if has_thumbprint => Err(mismatch(kind, "x509Thumbprint")),
            "sas" => read_keys(keys).map(|keys| keys.map(Authentication::Sas)),
            "selfSigned" | "certificateAuthority" if has_keys => {
                Err(mismatch(kind, "symmetricKey"))
            }
            "selfSigned" => {
                let (primary, secondary) = thumbprints;
                check_thumbprint("primaryThumbprint", primary.as_deref())?;
                check_thumbprint("secondaryThumbprint", secondary.as_deref())?;
                Ok(Some(Authentication::SelfSigned { primary, secondary }))
            }
            "certificateAuthority" if has_thumbprint => Err(mismatch(kind, "x509Thumbprint")),
            "certificateAuthority" => Ok(Some(Authentication::CertificateAuthority)),
            other => Err(Refusal::invalid(format!(
                "authentication.type must be sas, selfSigned or certificateAuthority, not {other:?}"
            ))),
        }
    }
}

fn mismatch(kind: &str, member: &str) -> Refusal {
    Refusal::invalid(format!(
        "authentication.type {kind} does not go with {member}"
    ))
}

fn read_keys(keys: (Option<String>, Option<String>)) -> Result<Option<SymmetricKeys>, Refusal> {
    let read = |name: &str, text: &str| {
        Key::parse(text).map_err(|why| Refusal::invalid(format!("symmetricKey.{name}: {why}")))
    };
    match keys {
        (None, None) => Ok(None),
        (Some(primary), Some(secondary)) => Ok(Some(SymmetricKeys {
            primary: read("primaryKey", &primary)?,
            secondary: read("secondaryKey", &secondary)?,
        })),
        _ => Err(Refusal::invalid("give both symmetric keys or neither")),
    }
}

/// SHA-1 or SHA-256 in hexadecimal, without separators.
fn check_thumbprint(name: &str, text: Option<&str>) -> Result<(), Refusal> {
    let fine = |text: &str| {
        matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    if text.is_none_or(fine) {
        return Ok(());
    }
    let message = format!("{name} must be 40 (SHA-1) or 64 (SHA-256) hexadecimal digits");
    Err(Refusal::invalid(message))
}

impl IdentityWrite {
    /// The identity that replaces `before`, or a new one of this generation where there is none.
    pub fn apply(
        self,
        before: Option<&Identity>,
        new_generation: impl FnOnce() -> String,
        serial: u64,
        now: Timestamp,
        random: &dyn Fn(&mut [u8]),
    ) -> Identity {
        let same_status = |before: &&Identity| {
            before.enabled == self.enabled && before.status_reason == self.status_reason
        };
        Identity {
            generation_id: before.map_or_else(new_generation, |it| it.generation_id.clone()),
            serial,
            status_updated: match before {
                None => None,
                Some(before) if same_status(&before) => before.status_updated,
                Some(_) => Some(now),
            },
            enabled: self.enabled,
            status_reason: self.status_reason,
            authentication: self
                .authentication
                .unwrap_or_else(|| Authentication::Sas(SymmetricKeys::mint(random))),
            iot_edge: self.iot_edge,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZg==";

    fn read(body: Value) -> Result<IdentityWrite, Refusal> {
        serde_json::from_value::<IdentityBody>(body)
            .unwrap()
            .try_into()
    }

    fn authentication(body: &Value) -> Result<Option<Authentication>, String> {
        let read = read(json!({ "authentication": body }));
        read.map(|it| it.authentication)
            .map_err(|refusal| refusal.message)
    }

    #[test]
    fn a_minimal_body_is_an_enabled_device_whose_keys_the_hub_makes() {
        let identity = read(json!({})).unwrap().apply(
            None,
            || "g1".into(),
            5,
            Timestamp::UNIX_EPOCH,
            &|bytes| bytes.fill(1),
        );
        assert!(identity.enabled);
        let Authentication::Sas(keys) = &identity.authentication else {
            panic!("not sas")
        };
        assert_eq!(keys.primary.reveal().len(), 44);
    }

    #[test]
    fn what_a_get_returned_can_be_put_back() {
        let none = json!({ "primaryKey": null, "secondaryKey": null });
        let no_prints = json!({ "primaryThumbprint": null, "secondaryThumbprint": null });
        let keys = json!({ "primaryKey": KEY, "secondaryKey": KEY });
        let sas = json!({ "type": "sas", "symmetricKey": keys, "x509Thumbprint": no_prints });
        assert!(matches!(
            authentication(&sas),
            Ok(Some(Authentication::Sas(_)))
        ));
        let ca = json!({ "type": "certificateAuthority", "symmetricKey": none, "x509Thumbprint": no_prints });
        assert_eq!(
            authentication(&ca),
            Ok(Some(Authentication::CertificateAuthority))
        );
        let print = json!({ "primaryThumbprint": "aB".repeat(20), "secondaryThumbprint": null });
        let own = json!({ "type": "selfSigned", "symmetricKey": none, "x509Thumbprint": print });
        let expected = Authentication::SelfSigned {
            primary: Some("aB".repeat(20)),
            secondary: None,
        };
        assert_eq!(authentication(&own), Ok(Some(expected)));
    }

    #[test]
    fn keys_come_in_pairs_and_omitted_ones_are_made() {
        assert_eq!(authentication(&json!({ "type": "sas" })), Ok(None));
        for (keys, complaint) in [
            (
                json!({ "primaryKey": KEY }),
                "both symmetric keys or neither",
            ),
            (
                json!({ "primaryKey": KEY, "secondaryKey": "c2hvcnQ=" }),
                "symmetricKey.secondaryKey: the key must have 16 to 64",
            ),
        ] {
            let message = authentication(&json!({ "symmetricKey": keys })).unwrap_err();
            assert!(message.contains(complaint), "{message}");
        }
    }

    #[test]
    fn credentials_that_do_not_go_together_are_refused() {
        let keys = json!({ "primaryKey": KEY, "secondaryKey": KEY });
        let print = json!({ "primaryThumbprint": "0".repeat(64) });
        for (body, complaint) in [
            (
                json!({ "type": "none" }),
                "must be sas, selfSigned or certificateAuthority",
            ),
            (
                json!({ "type": "sas", "x509Thumbprint": print }),
                "sas does not go with x509Thumbprint",
            ),
            (
                json!({ "type": "selfSigned", "symmetricKey": keys }),
                "selfSigned does not go with",
            ),
            (
                json!({ "type": "certificateAuthority", "x509Thumbprint": print }),
                "certificateAuthority does not",
            ),
            (
                json!({ "x509Thumbprint": { "primaryThumbprint": "AA:BB" } }),
                "hexadecimal digits",
            ),
        ] {
            let message = authentication(&body).unwrap_err();
            assert!(message.contains(complaint), "{message}");
        }
    }

    #[test]
    fn a_status_that_is_none_and_a_reason_too_long_are_refused() {
        assert!(read(json!({ "status": "paused" })).is_err());
        assert!(read(json!({ "statusReason": "ä".repeat(128) })).is_ok());
        assert!(read(json!({ "statusReason": "x".repeat(129) })).is_err());
        assert_eq!(
            read(json!({ "deviceScope": "ms-azure-iot-edge://x-1" }))
                .unwrap_err()
                .code,
            ErrorCode::InvalidDeviceScope
        );
    }

    #[test]
    fn the_time_of_the_status_moves_with_the_status_alone() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let apply = |body, before: Option<&Identity>, second| {
            let write = read(body).unwrap();
            write.apply(before, || "g1".into(), 1, at(second), &|bytes| {
                bytes.fill(0);
            })
        };
        let created = apply(json!({}), None, 1);
        assert_eq!(created.status_updated, None);
        let edge = apply(
            json!({ "capabilities": { "iotEdge": true } }),
            Some(&created),
            2,
        );
        assert_eq!((edge.status_updated, edge.iot_edge), (None, true));
        let disabled = apply(json!({ "status": "disabled" }), Some(&edge), 3);
        assert_eq!(disabled.status_updated, Some(at(3)));
        assert_eq!(disabled.generation_id, "g1");
    }
}
