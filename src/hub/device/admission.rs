//! Whether a client is the device that it says it is.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::ids::DeviceId;
use crate::domain::sas::SasToken;
use crate::hub::identity::Authentication;
use crate::hub::policy::Permission;
use crate::hub::record::Record;
use crate::hub::sessions::LinkName;
use crate::hub::{Hub, scope};
use crate::wire::mqtt::{Connect, Handle, Refusal};

/// A device let in.
pub(super) struct Admission {
    pub(super) id: DeviceId,
    pub(super) record: Arc<Record>,
    /// How long its token still counts.
    pub(super) counts_for: Duration,
}

/// Judges a CONNECT and takes the device's place among the sessions.
pub(super) async fn admit(
    hub: &Hub,
    connect: &Connect,
    handle: &Handle,
) -> Result<(Admission, LinkName), Refusal> {
    let user_name = connect
        .user_name
        .as_deref()
        .ok_or(Refusal::BadUserNameOrPassword)?;
    let id = device_id(user_name, hub.host_name()).ok_or(Refusal::NotAuthorized)?;
    if connect.client_id != id.as_str() {
        return Err(Refusal::IdentifierRejected);
    }
    let password = connect.password.as_deref().ok_or(Refusal::NotAuthorized)?;
    let token = std::str::from_utf8(password)
        .ok()
        .and_then(|text| SasToken::parse(text).ok());
    let token = token.ok_or(Refusal::NotAuthorized)?;
    let record = read(hub, &id).await?;
    let counts_for = verify(hub, &id, &record, &token)?;
    let link = hub
        .sessions
        .open(&id, &record.identity, handle.clone(), hub.now());
    // A change after this read finds the link and closes it; one before it is seen here.
    match read(hub, &id).await {
        Ok(record) if verify(hub, &id, &record, &token).is_ok() => {
            hub.sessions.begin_after(&link, record.twin.desired.version);
            Ok((
                Admission {
                    id,
                    record,
                    counts_for,
                },
                link,
            ))
        }
        Ok(_) => {
            hub.sessions.close(&link, hub.now());
            Err(Refusal::NotAuthorized)
        }
        Err(refusal) => {
            hub.sessions.close(&link, hub.now());
            Err(refusal)
        }
    }
}

async fn read(hub: &Hub, id: &DeviceId) -> Result<Arc<Record>, Refusal> {
    match hub.read(id).await {
        Ok(Some(record)) => Ok(record),
        Ok(None) => Err(Refusal::NotAuthorized),
        Err(why) => {
            tracing::warn!(device = %id, %why, "a connecting device could not be looked up");
            Err(Refusal::ServerUnavailable)
        }
    }
}

fn verify(
    hub: &Hub,
    id: &DeviceId,
    record: &Record,
    token: &SasToken,
) -> Result<Duration, Refusal> {
    let is_signed = match (token.key_name(), &record.identity.authentication) {
        (Some(name), _) => hub.policies.load().find(name).is_some_and(|policy| {
            policy.permissions.contains(&Permission::DeviceConnect)
                && policy.keys.have_signed(token)
        }),
        (None, Authentication::Sas(keys)) => keys.have_signed(token),
        (None, Authentication::SelfSigned { .. } | Authentication::CertificateAuthority) => false,
    };
    let covers = scope::covers(token, hub.host_name(), &format!("/devices/{id}"));
    let left = scope::remaining(token, hub.now());
    match left {
        Some(left) if is_signed && covers && record.identity.enabled => Ok(left),
        _ => Err(Refusal::NotAuthorized),
    }
}

/// The device that `{host}/{deviceId}/?api-version=…` names at this host; some clients leave the
/// question mark or the whole query out. A module's user name names no device.
fn device_id(user_name: &str, host_name: &str) -> Option<DeviceId> {
    let (host, rest) = user_name.split_once('/')?;
    if !host.eq_ignore_ascii_case(host_name) {
        return None;
    }
    let (id, query) = rest.split_once('/').unwrap_or((rest, ""));
    let first = query.split('/').next().unwrap_or_default();
    let is_query = query.is_empty() || query.starts_with('?') || first.contains('=');
    if !is_query {
        return None;
    }
    id.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_a_user_name_name_the_device() {
        for (user_name, expected) in [
            (
                "hub.test/press-7/?api-version=2021-04-12&DeviceClientType=x%2F1",
                Some("press-7"),
            ),
            ("HUB.test/press-7/api-version=2016-11-14", Some("press-7")),
            ("hub.test/press-7/", Some("press-7")),
            ("hub.test/press-7", Some("press-7")),
            ("hub.test/press-7/module/?api-version=2021-04-12", None),
            ("hub.test/press-7/module", None),
            ("other.test/press-7/?api-version=2021-04-12", None),
            ("hub.test/", None),
            ("hub.test", None),
            ("", None),
        ] {
            let found = device_id(user_name, "hub.test");
            assert_eq!(
                found.as_ref().map(DeviceId::as_str),
                expected,
                "{user_name}"
            );
        }
    }
}
