//! Who a CONNECT says it is. Pure.

use std::sync::Arc;

use percent_encoding::percent_decode_str;

use crate::domain::ids::RegistrationId;
use crate::gateway::service::{Caller, Protocol};
use crate::wire::mqtt::{Connect, Refusal};
use crate::wire::tls::Peer;

/// A CONNECT that can be let in.
#[derive(Debug, Clone)]
pub(super) struct Login {
    pub(super) caller: Caller,
    /// Whether the client understands `retry-after` in topics.
    pub(super) paced: bool,
}

/// Reads `{idScope}/registrations/{registrationId}/api-version={v}[&ClientVersion={…}]`.
///
/// A client with a certificate needs no password. Whether the certificate is good is told with the
/// answer to the first request, as the service does it.
pub(super) fn login(connect: &Connect, protocol: Protocol, peer: &Peer) -> Result<Login, Refusal> {
    let unreadable = Refusal::BadUserNameOrPassword;
    let user_name = connect.user_name.as_deref().ok_or(unreadable)?;
    let mut parts = user_name.splitn(4, '/');
    let (Some(scope), Some(word), Some(id), Some(parameters)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(unreadable);
    };
    if !word.eq_ignore_ascii_case("registrations") {
        return Err(unreadable);
    }
    let parameter = |wanted: &str| {
        let pairs = parameters
            .split('&')
            .filter_map(|pair| pair.split_once('='));
        let mut found = pairs.filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.next().map(|(_, value)| decoded(value))
    };
    let id: RegistrationId = decoded(id).parse().map_err(|_| unreadable)?;
    let api_version = parameter("api-version")
        .ok_or(unreadable)?
        .parse()
        .map_err(|_| unreadable)?;
    let scope = decoded(scope).parse().map_err(|_| unreadable)?;
    if !connect.client_id.eq_ignore_ascii_case(id.as_str()) {
        return Err(Refusal::NotAuthorized);
    }
    let token = match connect.password.as_deref() {
        Some(token) if !token.is_empty() || peer.certificates.is_empty() => {
            let token = std::str::from_utf8(token).map_err(|_| unreadable)?;
            Some(Arc::from(token))
        }
        _ if peer.certificates.is_empty() => return Err(Refusal::NotAuthorized),
        _ => None,
    };
    let caller = Caller {
        protocol,
        address: peer.address.ip(),
        scope,
        id,
        api_version,
        token,
        certificates: peer.certificates.clone(),
        storage_root_key: None,
    };
    let takes_it_for_the_request_id = parameter("ClientVersion").is_some_and(|client| {
        let version = client.strip_prefix("azure-iot-provisioning-device/");
        matches!(version, Some("1.5.5" | "1.5.6" | "1.5.7"))
    });
    let paced = caller.api_version.has_retry_after_in_topics() && !takes_it_for_the_request_id;
    Ok(Login { caller, paced })
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(client_id: &str, user_name: Option<&str>, password: Option<&str>) -> Connect {
        Connect {
            client_id: client_id.to_owned(),
            user_name: user_name.map(str::to_owned),
            password: password.map(|text| text.as_bytes().to_vec().into()),
            clean_session: true,
            keep_alive: 60,
            will: None,
        }
    }

    fn peer(certificates: &[&'static [u8]]) -> Peer {
        Peer {
            address: ([127, 0, 0, 1], 40_000).into(),
            certificates: certificates.iter().map(|&der| der.into()).collect(),
            server_name: None,
        }
    }

    fn attempt(user_name: &str) -> Result<Login, Refusal> {
        let connect = connect(
            "device-001",
            Some(user_name),
            Some("SharedAccessSignature x"),
        );
        login(&connect, Protocol::Mqtt, &peer(&[]))
    }

    #[test]
    fn user_names_of_the_sdks_are_understood() {
        let name = "0ne000TEST1/registrations/device-001/api-version=2019-03-31\
                    &ClientVersion=azure-iot-provisioning-device%2F1.9.2";
        let Login { caller, paced } = attempt(name).unwrap();
        assert_eq!(
            (caller.scope.as_str(), caller.id.as_str()),
            ("0ne000TEST1", "device-001")
        );
        assert_eq!(caller.api_version.as_str(), "2019-03-31");
        assert!(paced);
        for good in [
            "s/registrations/Device-001/api-version=2021-06-01",
            "s/registrations/device-001/ClientVersion=a/b%20c&api-version=2017-11-15&future=1",
            "s/registrations/device-001/api-version=2019-03-31&ClientVersion=2019-03-31",
        ] {
            assert!(attempt(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn r08_clients_that_cannot_read_retry_after_are_known() {
        for (parameters, paced) in [
            ("api-version=2017-11-15", false),
            ("api-version=2018-11-01", false),
            ("api-version=2019-03-31", true),
            (
                "api-version=2019-03-31&ClientVersion=azure-iot-provisioning-device%2F1.5.4",
                true,
            ),
            (
                "api-version=2019-03-31&ClientVersion=azure-iot-provisioning-device%2F1.5.5",
                false,
            ),
            (
                "api-version=2019-03-31&ClientVersion=azure-iot-provisioning-device%2F1.5.7",
                false,
            ),
            (
                "api-version=2019-03-31&ClientVersion=azure-iot-provisioning-device%2F1.5.8",
                true,
            ),
        ] {
            let login = attempt(&format!("s/registrations/device-001/{parameters}")).unwrap();
            assert_eq!(login.paced, paced, "{parameters}");
        }
    }

    #[test]
    fn unreadable_names_are_told_apart_from_contradictions() {
        for bad in [
            "",
            "s",
            "s/registrations/device-001",
            "s/devices/device-001/api-version=2019-03-31",
            "s/registrations/-bad-/api-version=2019-03-31",
            "s/registrations/device-001/ClientVersion=x",
            "s/registrations/device-001/api-version=tomorrow",
            "/registrations/device-001/api-version=2019-03-31",
        ] {
            assert_eq!(
                attempt(bad).unwrap_err(),
                Refusal::BadUserNameOrPassword,
                "{bad}"
            );
        }
        let name = "s/registrations/device-001/api-version=2019-03-31";
        for (client_id, user_name, password, expected) in [
            ("device-002", Some(name), Some("t"), Refusal::NotAuthorized),
            ("device-001", Some(name), None, Refusal::NotAuthorized),
            ("device-001", None, None, Refusal::BadUserNameOrPassword),
        ] {
            let connect = connect(client_id, user_name, password);
            let refused = login(&connect, Protocol::Mqtt, &peer(&[])).unwrap_err();
            assert_eq!(refused, expected, "{client_id} {user_name:?} {password:?}");
        }
        let mut connect = connect("device-001", Some(name), None);
        connect.password = Some(vec![0xff].into());
        let refused = login(&connect, Protocol::Mqtt, &peer(&[])).unwrap_err();
        assert_eq!(refused, Refusal::BadUserNameOrPassword);
    }

    #[test]
    fn a_certificate_stands_in_for_the_password() {
        let name = "s/registrations/device-001/api-version=2019-03-31";
        let peer = peer(&[b"leaf", b"issuer"]);
        for password in [None, Some("")] {
            let login = login(
                &connect("device-001", Some(name), password),
                Protocol::Mqtt,
                &peer,
            )
            .unwrap();
            assert_eq!(login.caller.token, None);
            assert_eq!(login.caller.certificates.len(), 2);
        }
        let both = connect("device-001", Some(name), Some("token"));
        assert!(
            login(&both, Protocol::Mqtt, &peer)
                .unwrap()
                .caller
                .token
                .is_some()
        );
    }
}
