//! A device of an official SDK, in a process of its own.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rehome_testing::device::Registrar;
use rehome_testing::sdk::{Device, Transport};
use serde_json::{Value, json};

use super::{Body, Failure, Home, Kind};

/// An SDK, and what it can.
pub(crate) struct Client {
    /// As `sdk::Programs` knows it.
    pub(crate) name: &'static str,
    pub(crate) transports: &'static [Transport],
    /// Whether it can prove itself with a key; with a certificate they all can.
    pub(crate) knows_keys: bool,
}

/// Every SDK.
pub(crate) const CLIENTS: [Client; 5] = [
    Client {
        name: "python",
        transports: &[Transport::Mqtt, Transport::MqttWs],
        knows_keys: true,
    },
    Client::with_all_transports("node"),
    Client::with_all_transports("node-legacy"),
    Client::with_all_transports("java"),
    Client {
        knows_keys: false,
        ..Client::with_all_transports("java-legacy")
    },
];

/// In an order in which few processes show much.
const ALL: [Transport; 5] = [
    Transport::Https,
    Transport::Amqp,
    Transport::Mqtt,
    Transport::AmqpWs,
    Transport::MqttWs,
];

impl Client {
    const fn with_all_transports(name: &'static str) -> Self {
        Self {
            name,
            transports: &ALL,
            knows_keys: true,
        }
    }
}

/// See [`Body`].
pub(crate) struct Sdk {
    /// Of [`CLIENTS`].
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

    async fn reported(&mut self) -> Result<Value> {
        Ok(self.device.twin(self.hub()?).await?["reported"].take())
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
