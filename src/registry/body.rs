//! JSON of the IoT Hub service API: what is sent, and what comes back.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::domain::identity::{Identity, IdentityChange, Mark, NewIdentity};
use crate::domain::module::NewModule;
use crate::domain::twin::{Content, Metadata};

/// Answer to a bulk call (page "Service - Bulk Create Or Update Devices").
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct BulkAnswer {
    pub(super) is_successful: bool,
    pub(super) errors: Vec<BulkError>,
    pub(super) warnings: Vec<BulkWarning>,
    /// Our hub's extension: saves reading what was just created.
    pub(super) devices: Vec<BulkDevice>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct BulkError {
    /// A name in the documented schema, a number in logs.
    error_code: Value,
    pub(super) error_status: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct BulkWarning {
    pub(super) warning_code: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BulkDevice {
    pub(super) device_id: String,
    pub(super) generation_id: String,
    pub(super) etag: String,
}

/// Answer to `GET /statistics/devices`; all but the count are our hub's extensions.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Statistics {
    pub(super) total_device_count: u64,
    #[serde(default)]
    pub(super) max_device_count: Option<u64>,
    #[serde(default)]
    pub(super) is_store_full: bool,
}

/// What a query for disabled devices says about one of them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct QueriedTwin {
    pub(super) device_id: String,
    #[serde(default)]
    status_reason: Option<String>,
}

/// What a list of modules says about one of them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListedModule {
    pub(super) module_id: String,
}

impl BulkError {
    /// The code as text, whether it came as a name or a number.
    pub(super) fn code(&self) -> String {
        let number = || self.error_code.to_string();
        self.error_code.as_str().map_or_else(number, str::to_owned)
    }

    pub(super) fn is_already_exists(&self) -> bool {
        let code = self.code();
        let device = matches!(code.as_str(), "DeviceAlreadyExists" | "409001");
        device || matches!(code.as_str(), "ModuleAlreadyExistsOnDevice" | "409301")
    }
}

impl QueriedTwin {
    pub(super) fn mark(&self) -> Option<Mark> {
        self.status_reason.as_deref().and_then(Mark::parse)
    }
}

/// One entry of a bulk create: always disabled, so that a create from a dead attempt is inert.
/// Versions are for hubs that keep them; others ignore `$` members.
pub(super) fn create_entry(new: &NewIdentity, with_versions: bool) -> Value {
    let NewIdentity {
        device_id,
        mark,
        credential,
        edge,
        content,
        versions,
        metadata,
    } = new;
    let versions = versions.filter(|_| with_versions);
    json!({
        "id": device_id,
        "importMode": "create",
        "status": status(false),
        "statusReason": mark.to_string(),
        "authentication": credential.authentication(),
        "capabilities": { "iotEdge": edge },
        "tags": content.tags,
        "properties": properties(content, versions, metadata),
    })
}

/// One entry of a bulk create of a module. Without `authentication` the hub makes new keys.
pub(super) fn create_module_entry(new: &NewModule, with_versions: bool) -> Value {
    let NewModule {
        device_id,
        id,
        managed_by,
        authentication,
        content,
        versions,
        metadata,
        device_etag,
    } = new;
    let versions = Some(*versions).filter(|_| with_versions);
    let mut entry = json!({
        "id": device_id,
        "moduleId": id,
        "importMode": "create",
        "managedBy": managed_by,
        "tags": content.tags,
        "properties": properties(content, versions, metadata),
    });
    if let Some(authentication) = authentication {
        entry["authentication"] = authentication.clone();
    }
    if let Some(etag) = device_etag {
        entry["deviceETag"] = etag.as_str().into();
    }
    entry
}

fn properties(content: &Content, versions: Option<(i64, i64)>, metadata: &Metadata) -> Value {
    let (desired, reported) = versions.unzip();
    let section = |values: &Map<String, Value>, version: Option<i64>, metadata: &Option<Value>| {
        let mut values = values.clone();
        if let Some(version) = version {
            values.insert("$version".into(), version.into());
            if let Some(metadata) = metadata {
                values.insert("$metadata".into(), metadata.clone());
            }
        }
        values
    };
    json!({
        "desired": section(&content.desired, desired, &metadata.desired),
        "reported": section(&content.reported, reported, &metadata.reported),
    })
}

/// The whole body of an update: a PUT drops what it omits. `None` when the hub did not show the
/// keys and none are given: sending that back would make the hub mint new ones.
pub(super) fn update_body(
    identity: &Identity,
    change: &IdentityChange,
) -> Option<Map<String, Value>> {
    let IdentityChange {
        enabled,
        reason,
        credential,
    } = change;
    let mut body = identity.body().clone();
    body.insert("status".into(), status(*enabled).into());
    body.insert("statusReason".into(), json!(reason));
    match credential {
        Some(credential) => {
            body.insert("authentication".into(), credential.authentication());
        }
        None if !shows_credentials(&body) => return None,
        None => {}
    }
    Some(body)
}

/// Whether a PUT of this body leaves the credentials as they are.
fn shows_credentials(body: &Map<String, Value>) -> bool {
    let Some(authentication) = body.get("authentication") else {
        return false;
    };
    let is_sas = authentication
        .get("type")
        .and_then(Value::as_str)
        .is_none_or(|kind| kind.eq_ignore_ascii_case("sas"));
    let has = |name: &str| {
        let key = authentication
            .get("symmetricKey")
            .and_then(|keys| keys.get(name));
        key.and_then(Value::as_str)
            .is_some_and(|key| !key.is_empty())
    };
    !is_sas || (has("primaryKey") && has("secondaryKey"))
}

fn status(enabled: bool) -> &'static str {
    if enabled { "enabled" } else { "disabled" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::identity::Credential;

    fn keys() -> Credential {
        let keys = json!({"primaryKey": "YQ==", "secondaryKey": "Yg=="});
        Credential::Copied(json!({"type": "sas", "symmetricKey": keys}))
    }

    fn identity(authentication: &Value) -> Identity {
        let body = json!({"deviceId": "d", "generationId": "g", "etag": "MA==", "status": "enabled",
            "statusReason": null, "capabilities": {"iotEdge": true}, "deviceScope": "s",
            "authentication": authentication});
        Identity::from_json(body.as_object().unwrap().clone()).unwrap()
    }

    fn change(credential: Option<Credential>) -> IdentityChange {
        IdentityChange {
            enabled: false,
            reason: Some("rehome u t".into()),
            credential,
        }
    }

    #[test]
    fn an_update_sends_back_everything_that_it_does_not_change() {
        let keys =
            json!({"type": "sas", "symmetricKey": {"primaryKey": "YQ==", "secondaryKey": "Yg=="}});
        let body = update_body(&identity(&keys), &change(None)).unwrap();
        assert_eq!(body["authentication"], keys);
        assert_eq!(body["deviceScope"], "s");
        assert_eq!(body["status"], "disabled");
        assert_eq!(body["statusReason"], "rehome u t");
    }

    #[test]
    fn keys_that_the_hub_hides_are_never_sent_back_as_missing() {
        for hidden in [
            json!({"type": "sas", "symmetricKey": {"primaryKey": null, "secondaryKey": null}}),
            json!({"type": "sas"}),
            json!({"type": "sas", "symmetricKey": {"primaryKey": "YQ=="}}),
        ] {
            assert_eq!(
                update_body(&identity(&hidden), &change(None)),
                None,
                "{hidden}"
            );
            assert!(update_body(&identity(&hidden), &change(Some(keys()))).is_some());
        }
        let x509 = json!({"type": "certificateAuthority"});
        assert!(update_body(&identity(&x509), &change(None)).is_some());
    }

    #[test]
    fn a_create_carries_versions_only_where_the_hub_keeps_them() {
        let new = NewIdentity {
            device_id: "press-7".into(),
            mark: Mark::new("u", "t"),
            credential: keys(),
            edge: false,
            content: Content {
                desired: json!({"speed": 3}).as_object().unwrap().clone(),
                ..Content::default()
            },
            versions: Some((41, 7)),
            metadata: Metadata {
                desired: Some(json!({"$lastUpdated": "2026-01-01T00:00:00Z"})),
                reported: None,
            },
        };
        assert_eq!(
            create_entry(&new, true),
            json!({"id": "press-7", "importMode": "create", "status": "disabled",
                "statusReason": "rehome u t",
                "authentication": {"type": "sas",
                    "symmetricKey": {"primaryKey": "YQ==", "secondaryKey": "Yg=="}},
                "capabilities": {"iotEdge": false}, "tags": {},
                "properties": {
                    "desired": {"speed": 3, "$version": 41,
                        "$metadata": {"$lastUpdated": "2026-01-01T00:00:00Z"}},
                    "reported": {"$version": 7}}})
        );
        assert_eq!(
            create_entry(&new, false)["properties"],
            json!({"desired": {"speed": 3}, "reported": {}})
        );
    }
}
