//! A device asks the gateway where it lives: the registration API over HTTPS, MQTT and AMQP, as
//! device SDKs speak it.

use std::fmt;
use std::net::SocketAddr;

use anyhow::Result;
use serde_json::Value;

use super::Trust;
use super::asking::Asking;
use super::key::Key;

/// How a device speaks to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Https,
    Mqtt,
    Amqp,
}

impl Protocol {
    pub const ALL: [Self; 3] = [Self::Https, Self::Mqtt, Self::Amqp];
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Https => "HTTPS",
            Self::Mqtt => "MQTT",
            Self::Amqp => "AMQP",
        })
    }
}

/// Where the gateway is.
#[derive(Clone)]
pub struct Registrar {
    /// The name that devices are given.
    pub host: String,
    /// Where HTTPS is served.
    pub https: SocketAddr,
    /// Where MQTT is served.
    pub mqtt: SocketAddr,
    /// Where AMQP is served.
    pub amqp: SocketAddr,
    pub trust: Trust,
}

/// A device before it has a hub.
#[derive(Clone, Debug)]
pub struct Applicant {
    pub scope: String,
    pub registration_id: String,
    /// Its own key: for a group, the derived one.
    pub key: Key,
    /// Such as `2019-03-31`.
    pub api_version: String,
}

/// What the device is told in the end.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub operation_id: String,
    /// `assigned`, `failed` or `disabled`.
    pub status: String,
    /// Empty unless assigned, as are the next two.
    pub hub: String,
    pub device_id: String,
    pub substatus: String,
}

/// A gateway that answered with an error, whatever the protocol, by its HTTP status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unregistered {
    pub code: u16,
    pub body: String,
}

impl fmt::Display for Unregistered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the gateway answered {}: {}", self.code, self.body)
    }
}

impl std::error::Error for Unregistered {}

impl Registrar {
    /// Registers and polls until the operation is over; [`Unregistered`] can be taken out of the
    /// error.
    pub async fn register(
        &self,
        applicant: &Applicant,
        protocol: Protocol,
        payload: Option<&Value>,
    ) -> Result<Told> {
        let mut asking = applicant.asking();
        asking.payload = payload;
        asking.to_the_end(self, &self.trust, protocol).await
    }

    /// As [`Self::register`] over HTTPS, with the certificate that `trust` presents.
    pub async fn register_presenting(
        &self,
        trust: &Trust,
        scope: &str,
        registration_id: &str,
        api_version: &str,
    ) -> Result<Told> {
        let https = Protocol::Https;
        self.register_presenting_over(https, trust, scope, registration_id, api_version)
            .await
    }

    /// As [`Self::register_presenting`], over any protocol.
    pub async fn register_presenting_over(
        &self,
        protocol: Protocol,
        trust: &Trust,
        scope: &str,
        registration_id: &str,
        api_version: &str,
    ) -> Result<Told> {
        let asking = Asking {
            scope,
            registration_id,
            api_version,
            key: None,
            payload: None,
        };
        asking.to_the_end(self, trust, protocol).await
    }
}

impl Applicant {
    /// The request to register over HTTPS, with a token of an hour.
    pub fn register_request(&self) -> Result<Vec<u8>> {
        let asking = self.asking();
        asking.request("PUT", "register", &asking.body().to_string())
    }

    /// The request how that operation stands.
    pub fn poll_request(&self, operation: &str) -> Result<Vec<u8>> {
        let what = format!("operations/{operation}");
        self.asking().request("GET", &what, "")
    }

    pub(super) fn asking(&self) -> Asking<'_> {
        Asking {
            scope: &self.scope,
            registration_id: &self.registration_id,
            api_version: &self.api_version,
            key: Some(&self.key),
            payload: None,
        }
    }
}
