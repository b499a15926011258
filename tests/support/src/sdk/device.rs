//! One device of one SDK.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use serde::Deserialize;
use serde_json::{Value, json};

use super::driver::Driver;
use crate::device::{Key, SimulatedTpm};

/// How a device speaks.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    Https,
    Mqtt,
    MqttWs,
    Amqp,
    AmqpWs,
}

/// What a device proves itself with, at the gateway and at its hub.
#[derive(Clone)]
pub enum Credential {
    Key(Key),
    /// Files in PEM: the device's certificate, with those between it and its authority, and its key.
    Certificate {
        chain: PathBuf,
        key: PathBuf,
    },
    /// A TPM of its own, whose key for the hub the SDK keeps there.
    Tpm(Arc<SimulatedTpm>),
}

/// A device with its credential.
#[derive(Clone)]
pub struct Device {
    /// The process that runs it.
    pub driver: Arc<Driver>,
    /// How it speaks to the gateway.
    pub transport: Transport,
    pub registration_id: String,
    pub id_scope: String,
    pub credential: Credential,
}

/// What a device is told, or what its SDK reports instead.
pub type Answer = Result<Value, String>;

impl Device {
    /// Registers: the answer has `status`, `hub`, `device` and `substatus`.
    pub async fn register(&self, host: &str) -> Result<Answer> {
        let mut command = json!({
            "do": "register",
            "host": host,
            "idScope": self.id_scope,
            "registrationId": self.registration_id,
            "transport": self.transport.to_string(),
        });
        self.add_credential(&mut command);
        self.driver.ask(command).await
    }

    /// Connects to a hub, over MQTT or MQTT over WebSocket. There is one session at a time with each.
    pub async fn connect(&self, hub: &str, transport: Transport) -> Result<Answer> {
        let mut command = json!({
            "do": "connect",
            "session": self.session(hub),
            "hub": hub,
            "device": self.registration_id,
            "transport": transport.to_string(),
        });
        self.add_credential(&mut command);
        self.driver.ask(command).await
    }

    /// The twin: `desired` and `reported`.
    pub async fn twin(&self, hub: &str) -> Result<Value> {
        let session = self.session(hub);
        let command = json!({ "do": "twin", "session": session });
        self.driver.must(command).await
    }

    /// Reports properties.
    pub async fn report(&self, hub: &str, patch: &Value) -> Result<Value> {
        let session = self.session(hub);
        let command = json!({ "do": "report", "session": session, "patch": patch });
        self.driver.must(command).await
    }

    /// From now on answers calls of this method with 200 and what the caller has sent, as `echo`.
    /// For the programs of Python and Node.
    pub async fn answer(&self, hub: &str, method: &str) -> Result<()> {
        let session = self.session(hub);
        let command = json!({ "do": "answer", "session": session, "method": method });
        self.driver.must(command).await.map(drop)
    }

    /// Waits until the hub has ended the session, which is over then.
    pub async fn lost(&self, hub: &str) -> Result<bool> {
        let command = json!({ "do": "lost", "session": self.session(hub) });
        Ok(self.driver.must(command).await?["lost"] == true)
    }

    /// Ends the session.
    pub async fn close(&self, hub: &str) -> Result<()> {
        let command = json!({ "do": "close", "session": self.session(hub) });
        self.driver.must(command).await.map(drop)
    }

    fn session(&self, hub: &str) -> String {
        format!("{}@{hub}", self.registration_id)
    }

    fn add_credential(&self, command: &mut Value) {
        match &self.credential {
            Credential::Key(key) => command["key"] = key.to_base64().into(),
            Credential::Certificate { chain, key } => {
                command["certificateFile"] = chain.display().to_string().into();
                command["keyFile"] = key.display().to_string().into();
            }
            Credential::Tpm(tpm) => command["tpmPort"] = tpm.port().into(),
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Https => "https",
            Self::Mqtt => "mqtt",
            Self::MqttWs => "mqtt-ws",
            Self::Amqp => "amqp",
            Self::AmqpWs => "amqp-ws",
        })
    }
}
