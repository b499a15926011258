//! Identities and twins as the service API shows them.

use serde_json::{Value, json};

use crate::hub::etag;
use crate::hub::identity::{Authentication, Identity};
use crate::hub::record::Record;
use crate::hub::time;

pub(super) fn identity(id: &str, record: &Record) -> Value {
    let identity = &record.identity;
    json!({
        "deviceId": id,
        "generationId": identity.generation_id,
        "etag": etag::of_identity(identity.serial),
        "connectionState": "Disconnected",
        "connectionStateUpdatedTime": time::NEVER,
        "status": status(identity),
        "statusReason": identity.status_reason,
        "statusUpdatedTime": time::format_or_never(identity.status_updated),
        "lastActivityTime": time::NEVER,
        "cloudToDeviceMessageCount": 0,
        "authentication": authentication(&identity.authentication),
        "capabilities": { "iotEdge": identity.iot_edge },
    })
}

pub(super) fn twin(id: &str, record: &Record) -> Value {
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
        "connectionState": "Disconnected",
        "lastActivityTime": time::NEVER,
        "cloudToDeviceMessageCount": 0,
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

const fn status(identity: &Identity) -> &'static str {
    if identity.enabled {
        "enabled"
    } else {
        "disabled"
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
