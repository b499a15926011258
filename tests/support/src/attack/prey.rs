//! Whom attackers attack, and how they connect.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::device::{Applicant, Key, Registrar, Trust};
use crate::fleet::{Group, Tenant};

pub type Tls = TlsStream<TcpStream>;

/// A gateway, and what attackers know about it.
#[derive(Clone)]
pub struct Prey {
    pub host: String,
    pub https: SocketAddr,
    pub mqtt: SocketAddr,
    pub amqp: SocketAddr,
    pub trust: Trust,
    pub scope: String,
    /// Of a group with few registrations left: it has leaked.
    pub leaked: Key,
    /// A device that has gone bad: it knows its own key.
    pub insider: Applicant,
    /// Where attackers connect from.
    pub from: Ipv4Addr,
}

impl Prey {
    pub fn new(at: &Registrar, tenant: &Tenant, leaked: &Group, insider: Applicant) -> Self {
        Self {
            host: at.host.clone(),
            https: at.https,
            mqtt: at.mqtt,
            amqp: at.amqp,
            trust: at.trust.clone(),
            scope: tenant.namespace.name().to_owned(),
            leaked: leaked.key.clone(),
            insider,
            from: Ipv4Addr::LOCALHOST,
        }
    }

    /// For a process of the attackers' own.
    pub fn to_json(&self) -> Value {
        json!({
            "host": self.host, "https": self.https, "mqtt": self.mqtt, "amqp": self.amqp,
            "ca": self.trust.pem(), "scope": self.scope, "leaked": self.leaked.to_base64(),
            "insider": self.insider.registration_id, "key": self.insider.key.to_base64(),
        })
    }

    pub fn from_json(json: &Value) -> Result<Self> {
        let text = |name: &str| json[name].as_str().with_context(|| format!("no {name}"));
        Ok(Self {
            host: text("host")?.to_owned(),
            https: text("https")?.parse()?,
            mqtt: text("mqtt")?.parse()?,
            amqp: text("amqp")?.parse()?,
            trust: Trust::new(text("ca")?)?,
            scope: text("scope")?.to_owned(),
            leaked: Key::from_base64(text("leaked")?)?,
            insider: Applicant {
                scope: text("scope")?.to_owned(),
                registration_id: text("insider")?.to_owned(),
                key: Key::from_base64(text("key")?)?,
                api_version: "2021-06-01".to_owned(),
            },
            from: Ipv4Addr::LOCALHOST,
        })
    }

    pub(super) async fn tcp(&self, to: SocketAddr) -> Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((self.from, 0).into())?;
        Ok(socket.connect(to).await?)
    }

    pub(super) async fn tls(&self, to: SocketAddr) -> Result<Tls> {
        let name = ServerName::try_from(self.host.clone())?;
        let tls = TlsConnector::from(self.trust.tls().clone());
        Ok(tls.connect(name, self.tcp(to).await?).await?)
    }

    /// A device of the leaked group that nobody has ever built.
    pub(super) fn invented(&self, id: String) -> Applicant {
        Applicant {
            scope: self.scope.clone(),
            key: self.leaked.of_device(&id),
            registration_id: id,
            api_version: "2021-06-01".to_owned(),
        }
    }
}
