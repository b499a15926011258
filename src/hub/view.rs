//! Identities and twins as the service API shows them.

use serde_json::{Value, json};

use super::Hub;
use super::etag;
use super::identity::{Authentication, Identity};
use super::record::Record;
use super::sessions::Presence;
use super::time;

pub(super) fn identity(hub: &Hub, id: &str, record: &Record) -> Value {
    let presence = hub.sessions.presence(id, None);
    let identity = &record.identity;
    let mut body = json!({
        "deviceId": id,
        "generationId": identity.generation_id,
        "etag": etag::of_identity(identity.serial),
        "connectionState": connection_state(&presence),
        "connectionStateUpdatedTime": time::format_or_never(presence.changed),
        "status": status(identity),
        "statusReason": identity.status_reason,
        "statusUpdatedTime": time::format_or_never(identity.status_updated),
        "lastActivityTime": time::format_or_never(presence.last_activity),
        "cloudToDeviceMessageCount": record.messages.len(),
        "authentication": authentication(&identity.authentication),
        "capabilities": { "iotEdge": identity.iot_edge },
    });
    if !record.modules.is_empty() {
        body["moduleIds"] = record.modules.keys().map(String::as_str).collect();
    }
    body
}

/// `None` where the device has no such module.
pub(super) fn module(hub: &Hub, device: &str, id: &str, record: &Record) -> Option<Value> {
    let module = record.modules.get(id)?;
    let presence = hub.sessions.presence(device, Some(id));
    Some(json!({
        "moduleId": id,
        "managedBy": module.managed_by,
        "deviceId": device,
        "generationId": module.generation_id,
        "etag": etag::of_identity(module.serial),
        "connectionState": connection_state(&presence),
        "connectionStateUpdatedTime": time::format_or_never(presence.changed),
        "lastActivityTime": time::format_or_never(presence.last_activity),
        "cloudToDeviceMessageCount": 0,
        "authentication": authentication(&module.authentication),
    }))
}

pub(super) fn twin(hub: &Hub, id: &str, record: &Record) -> Value {
    let presence = hub.sessions.presence(id, None);
    let Record { identity, twin, .. } = record;
    json!({
        "deviceId": id,
        "etag": etag::of_twin(twin.serial),
        "deviceEtag": etag::of_identity(identity.serial),
        "version": twin.version,
        "modelId": "",
        "status": status(identity),
        "statusReason": identity.status_reason,
        "statusUpdateTime": time::format_or_never(identity.status_updated),
        "connectionState": connection_state(&presence),
        "lastActivityTime": time::format_or_never(presence.last_activity),
        "cloudToDeviceMessageCount": record.messages.len(),
        "authenticationType": identity.authentication.name(),
        "x509Thumbprint": thumbprints(&identity.authentication),
        "capabilities": { "iotEdge": identity.iot_edge },
        "tags": twin.tags,
        "properties": {
            "desired": twin.desired.for_service(),
            "reported": twin.reported.for_service(),
        },
    })
}

/// `None` where the device has no such module.
pub(super) fn module_twin(hub: &Hub, device: &str, id: &str, record: &Record) -> Option<Value> {
    let module = record.modules.get(id)?;
    let presence = hub.sessions.presence(device, Some(id));
    let twin = &module.twin;
    Some(json!({
        "deviceId": device,
        "moduleId": id,
        "etag": etag::of_twin(twin.serial),
        // As on IoT Hub: of the identity that the twin belongs to, which is the module's.
        "deviceEtag": etag::of_identity(module.serial),
        "version": twin.version,
        "modelId": "",
        "status": status(&record.identity),
        "statusUpdateTime": time::format_or_never(record.identity.status_updated),
        "connectionState": connection_state(&presence),
        "lastActivityTime": time::format_or_never(presence.last_activity),
        "cloudToDeviceMessageCount": 0,
        "authenticationType": module.authentication.name(),
        "x509Thumbprint": thumbprints(&module.authentication),
        "tags": twin.tags,
        "properties": {
            "desired": twin.desired.for_service(),
            "reported": twin.reported.for_service(),
        },
    }))
}

pub(super) const fn status(identity: &Identity) -> &'static str {
    if identity.enabled {
        "enabled"
    } else {
        "disabled"
    }
}

fn connection_state(presence: &Presence) -> &'static str {
    if presence.connected {
        "Connected"
    } else {
        "Disconnected"
    }
}

fn authentication(authentication: &Authentication) -> Value {
    let keys = match authentication {
        Authentication::Sas(keys) => Some(keys),
        Authentication::SelfSigned { .. } | Authentication::CertificateAuthority => None,
    };
    json!({
        "type": authentication.name(),
        "symmetricKey": {
            "primaryKey": keys.map(|keys| keys.primary.reveal()),
            "secondaryKey": keys.map(|keys| keys.secondary.reveal()),
        },
        "x509Thumbprint": thumbprints(authentication),
    })
}

fn thumbprints(authentication: &Authentication) -> Value {
    match authentication {
        Authentication::SelfSigned { primary, secondary } => {
            json!({ "primaryThumbprint": primary, "secondaryThumbprint": secondary })
        }
        Authentication::Sas(_) | Authentication::CertificateAuthority => {
            json!({ "primaryThumbprint": null, "secondaryThumbprint": null })
        }
    }
}
