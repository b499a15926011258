//! Whether a client is the device or module that it says it is.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::credential::{ClientCertificates, Proof};
use crate::hub::Hub;
use crate::hub::client::Client;
use crate::hub::record::Record;
use crate::hub::sessions::LinkName;
use crate::wire::mqtt::{Connect, Handle, Refusal};

/// A client let in.
pub(super) struct Admission {
    pub(super) client: Client,
    pub(super) record: Arc<Record>,
    /// How long its token or certificate still counts.
    pub(super) counts_for: Duration,
    pub(super) link: LinkName,
}

/// Judges a CONNECT and takes the client's place among the sessions.
pub(super) async fn admit(
    hub: &Hub,
    connect: &Connect,
    certificates: &ClientCertificates,
    handle: &Handle,
    mail: &Arc<Notify>,
) -> Result<Admission, Refusal> {
    let user_name = connect
        .user_name
        .as_deref()
        .ok_or(Refusal::BadUserNameOrPassword)?;
    let client = client_of(user_name, hub.host_name()).ok_or(Refusal::NotAuthorized)?;
    if connect.client_id != client.to_string() {
        return Err(Refusal::IdentifierRejected);
    }
    let proof = Proof::of(connect.password.as_deref(), certificates);
    let proof = proof.ok_or(Refusal::NotAuthorized)?;
    let record = read(hub, &client).await?;
    verify(hub, &client, &record, &proof)?;
    let party = record
        .party(client.module())
        .ok_or(Refusal::NotAuthorized)?;
    let (handle, mail) = (handle.clone(), Arc::clone(mail));
    let link = hub.sessions.open(&client, &party, handle, mail, hub.now());
    // A change after this read finds the link and closes it; one before it is seen here.
    let again = match read(hub, &client).await {
        Ok(record) => verify(hub, &client, &record, &proof).map(|left| (record, left)),
        Err(refusal) => Err(refusal),
    };
    match again {
        Ok((record, counts_for)) => {
            if let Some(party) = record.party(client.module()) {
                hub.sessions.begin_after(&link, party.twin.desired.version);
            }
            Ok(Admission {
                client,
                record,
                counts_for,
                link,
            })
        }
        Err(refusal) => {
            hub.sessions.close(&link, hub.now());
            Err(refusal)
        }
    }
}

async fn read(hub: &Hub, client: &Client) -> Result<Arc<Record>, Refusal> {
    match hub.read(&client.device).await {
        Ok(Some(record)) => Ok(record),
        Ok(None) => Err(Refusal::NotAuthorized),
        Err(why) => {
            tracing::warn!(%client, %why, "a connecting device could not be looked up");
            Err(Refusal::ServerUnavailable)
        }
    }
}

fn verify(hub: &Hub, client: &Client, record: &Record, proof: &Proof) -> Result<Duration, Refusal> {
    record
        .party(client.module())
        .and_then(|party| proof.speaks_for(hub, client, &party))
        .ok_or(Refusal::NotAuthorized)
}

/// The client that `{host}/{deviceId}[/{moduleId}]/?api-version=…` names at this host; some leave
/// the question mark or the whole query out.
fn client_of(user_name: &str, host_name: &str) -> Option<Client> {
    let mut parts = user_name.split('/');
    if !parts.next()?.eq_ignore_ascii_case(host_name) {
        return None;
    }
    let device = parts.next()?.parse().ok()?;
    let is_query = |part: &str| part.is_empty() || part.starts_with('?') || part.contains('=');
    let module = match parts.next() {
        None => None,
        Some(part) if is_query(part) => None,
        Some(module) => {
            if !parts.next().is_none_or(is_query) {
                return None;
            }
            Some(module.parse().ok()?)
        }
    };
    Some(Client { device, module })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_a_user_name_name_the_device_or_module() {
        for (user_name, expected) in [
            (
                "hub.test/press-7/?api-version=2021-04-12&DeviceClientType=x%2F1",
                Some("press-7"),
            ),
            ("HUB.test/press-7/api-version=2016-11-14", Some("press-7")),
            ("hub.test/press-7/", Some("press-7")),
            ("hub.test/press-7", Some("press-7")),
            (
                "hub.test/press-7/gauge/?api-version=2021-04-12",
                Some("press-7/gauge"),
            ),
            ("hub.test/press-7/gauge", Some("press-7/gauge")),
            ("hub.test/press-7/gauge/more", None),
            ("hub.test/press-7/$edgeHub/?api-version=2021-04-12", None),
            ("other.test/press-7/?api-version=2021-04-12", None),
            ("hub.test/", None),
            ("hub.test", None),
            ("", None),
        ] {
            let found = client_of(user_name, "hub.test").map(|found| found.to_string());
            assert_eq!(found.as_deref(), expected, "{user_name}");
        }
    }
}
