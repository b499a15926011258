//! A device of an official SDK, in a process of its own.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rehome_testing::device::Registrar;
use rehome_testing::sdk::{Device, Transport};
use serde_json::{Value, json};

use super::{Body, Failure, Home, Kind};

/// Every SDK and what it speaks: `sdk::Programs` knows it by this name.
pub(crate) const KINDS: [(&str, &[Transport]); 4] = [
    ("python", &[Transport::Mqtt, Transport::MqttWs]),
    ("node", &ALL),
    ("node-legacy", &ALL),
    ("java", &ALL),
];

/// In an order in which few processes show much.
const ALL: [Transport; 5] = [
    Transport::Https,
    Transport::Amqp,
    Transport::Mqtt,
    Transport::AmqpWs,
    Transport::MqttWs,
];

/// See [`Body`].
pub(crate) struct Sdk {
    /// Of [`KINDS`].
    pub(crate) client: &'static str,
    pub(crate) device: Device,
    /// The host name of the hub that it is connected to.
    pub(crate) hub: Option<String>,
}

impl Sdk {
    fn hub(&self) -> Result<&str> {
        self.hub.as_deref().context("it is not connected")
    }
}

impl Body for Sdk {
    fn kind(&self) -> Kind {
        Kind {
            client: self.client,
            protocol: match self.device.transport {
                Transport::Https => "https",
                Transport::Mqtt => "mqtt",
                Transport::MqttWs => "mqtt-ws",
                Transport::Amqp => "amqp",
                Transport::AmqpWs => "amqp-ws",
            },
        }
    }

    async fn register(&mut self, at: &Registrar) -> Result<Home, Failure> {
        let answer = self.device.register(&at.host).await;
        let told = match answer {
            Ok(Ok(told)) => told,
            Ok(Err(said)) => return Err(Failure::Broken(format!("the SDK says: {said}"))),
            Err(error) => return Err(Failure::Broken(format!("{error:#}"))),
        };
        let text = |member: &str| told[member].as_str().unwrap_or_default().to_owned();
        if text("status") != "assigned" {
            return Err(Failure::Refused(format!("it was told {told}")));
        }
        Ok(Home {
            hub: text("hub"),
            device_id: text("device"),
        })
    }

    async fn connect(&mut self, home: &Home) -> Result<()> {
        let answer = self.device.connect(&home.hub, Transport::Mqtt).await?;
        let answer = answer.map_err(|said| anyhow!("the SDK says of the hub: {said}"))?;
        ensure!(answer["connected"] == true, "not connected: {answer}");
        self.hub = Some(home.hub.clone());
        Ok(())
    }

    async fn count(&mut self) -> Result<Option<u64>> {
        let twin = self.device.twin(self.hub()?).await?;
        read(&twin["reported"]["count"])
    }

    async fn report(&mut self, count: u64) -> Result<()> {
        let hub = self.hub()?.to_owned();
        let patch = json!({ "count": count });
        self.device.report(&hub, &patch).await.map(drop)
    }

    async fn send(&mut self) -> Result<()> {
        Ok(())
    }

    async fn stay(&mut self, time: Duration) -> bool {
        tokio::time::sleep(time).await;
        true
    }

    async fn is_cut_off(&mut self) -> bool {
        let Some(hub) = self.hub.take() else {
            return true;
        };
        self.device.lost(&hub).await.is_ok_and(|lost| lost)
    }

    async fn close(&mut self) {
        if let Some(hub) = self.hub.take() {
            // Some SDKs say so if the hub has ended the connection before.
            let _ = self.device.close(&hub).await;
        }
    }
}

/// Java's twins have only numbers with a point.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "only whole numbers come that far"
)]
fn read(count: &Value) -> Result<Option<u64>> {
    if count.is_null() {
        return Ok(None);
    }
    let number = count.as_f64();
    let whole = number.filter(|number| *number >= 0.0 && number.fract() == 0.0);
    let whole = whole.with_context(|| format!("the count is {count}"))?;
    Ok(Some(whole as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_read_whatever_the_sdk_makes_of_it() {
        assert_eq!(read(&json!(7)).unwrap(), Some(7));
        assert_eq!(read(&json!(7.0)).unwrap(), Some(7));
        assert_eq!(read(&Value::Null).unwrap(), None);
        assert!(read(&json!(7.5)).is_err());
        assert!(read(&json!("7")).is_err());
    }
}
