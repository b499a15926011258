//! A device at its hub: its twin and its telemetry over MQTT, as device SDKs speak it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Trust;
use super::key::Key;
use super::mqtt::{Login, Mqtt};

const RESPONSES: &str = "$iothub/twin/res/";
const DESIRED: &str = "$iothub/twin/PATCH/properties/desired/";

/// A connection of a device to its hub.
pub struct Session {
    mqtt: Mqtt,
    device_id: String,
    requests: u32,
}

impl Session {
    /// Connects. An error that holds [`super::Refused`] means that the hub does not let it in.
    pub async fn connect(
        host: &str,
        address: SocketAddr,
        trust: &Trust,
        device_id: &str,
        key: &Key,
    ) -> Result<Self> {
        let token = key.token(&format!("{host}/devices/{device_id}"), None)?;
        Self::log_in(host, address, trust, device_id, Some(&token)).await
    }

    /// Connects with a token for the device at this hub, however it was signed.
    pub async fn connect_with_token(
        host: &str,
        address: SocketAddr,
        trust: &Trust,
        device_id: &str,
        token: &str,
    ) -> Result<Self> {
        Self::log_in(host, address, trust, device_id, Some(token)).await
    }

    /// Connects with the certificate that `trust` presents.
    pub async fn connect_presenting(
        host: &str,
        address: SocketAddr,
        trust: &Trust,
        device_id: &str,
    ) -> Result<Self> {
        Self::log_in(host, address, trust, device_id, None).await
    }

    async fn log_in(
        host: &str,
        address: SocketAddr,
        trust: &Trust,
        device_id: &str,
        password: Option<&str>,
    ) -> Result<Self> {
        let login = Login {
            host,
            address,
            client_id: device_id,
            user: &format!("{host}/{device_id}/?api-version=2019-10-01"),
            password,
        };
        let mut mqtt = Mqtt::connect(&login, &trust.tls).await?;
        mqtt.subscribe(&format!("{RESPONSES}#")).await?;
        mqtt.subscribe(&format!("{DESIRED}#")).await?;
        Ok(Self {
            mqtt,
            device_id: device_id.to_owned(),
            requests: 0,
        })
    }

    /// `desired` and `reported` as the device sees them, with their `$version`.
    pub async fn twin(&mut self) -> Result<Value> {
        let payload = self.ask("GET/", 200, b" ").await?;
        serde_json::from_slice(&payload).context("a twin that is not JSON")
    }

    /// Merges into `reported`; answered once the hub has it for good.
    pub async fn report(&mut self, patch: &Value) -> Result<()> {
        let patch = patch.to_string();
        self.ask("PATCH/properties/reported/", 204, patch.as_bytes())
            .await
            .map(drop)
    }

    /// Sends telemetry; done once the hub has it.
    pub async fn send(&mut self, message: &Value) -> Result<()> {
        let topic = format!("devices/{}/messages/events/", self.device_id);
        let message = message.to_string();
        self.mqtt.publish(&topic, message.as_bytes()).await
    }

    /// Says goodbye.
    pub async fn close(self) -> Result<()> {
        self.mqtt.disconnect().await
    }

    /// The next change of `desired`, with its `$version`.
    pub async fn desired_change(&mut self) -> Result<Value> {
        let message = self.mqtt.message(DESIRED).await?;
        serde_json::from_slice(&message.payload).context("a patch that is not JSON")
    }

    /// Whether the hub ends the connection within the time.
    pub async fn is_ended(&mut self, within: Duration) -> bool {
        self.mqtt.is_ended(within).await
    }

    async fn ask(&mut self, what: &str, expected: u16, payload: &[u8]) -> Result<Vec<u8>> {
        self.requests += 1;
        let rid = self.requests;
        let topic = format!("$iothub/twin/{what}?$rid={rid}");
        self.mqtt.publish(&topic, payload).await?;
        let answer = self.mqtt.message(RESPONSES).await?;
        let fine = format!("{RESPONSES}{expected}/?$rid={rid}");
        ensure!(
            answer.topic == fine || answer.topic.starts_with(&format!("{fine}&")),
            "{topic} was answered on {}: {}",
            answer.topic,
            String::from_utf8_lossy(&answer.payload)
        );
        Ok(answer.payload)
    }
}
