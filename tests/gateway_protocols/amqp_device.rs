//! A device that speaks AMQP, by a client that is not ours.

use std::sync::Arc;

use fe2o3_amqp::connection::ConnectionHandle;
use fe2o3_amqp::sasl_profile::SaslProfile;
use fe2o3_amqp::session::SessionHandle;
use fe2o3_amqp::types::definitions::Fields;
use fe2o3_amqp::types::messaging::{
    ApplicationProperties, Body, Data, Message, MessageId, Outcome, Properties,
};
use fe2o3_amqp::types::primitives::{Binary, SimpleValue, Symbol, Value};
use fe2o3_amqp::{Connection, Receiver, Sender, Session};
use serde_json::Value as Json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::device::PATIENCE;
use crate::stage::{SCOPE, Sockets, token};

/// How a device of some SDK connects.
#[derive(Debug, Clone)]
pub(crate) struct Links {
    /// User name and password; absent where TLS says who it is.
    pub(crate) login: Option<(String, String)>,
    pub(crate) address: String,
    pub(crate) properties: Vec<(&'static str, String)>,
    /// Names of the receiving and the sending link.
    pub(crate) names: [&'static str; 2],
}

impl Links {
    /// Like the current Node SDK.
    pub(crate) fn of(id: &str) -> Self {
        let address = format!("{SCOPE}/registrations/{id}");
        let client = "azure-iot-provisioning-device/1.9.2".to_owned();
        Self {
            login: Some((address.clone(), token(id))),
            address,
            properties: vec![
                ("com.microsoft:api-version", "2019-03-31".to_owned()),
                ("com.microsoft:client-version", client),
            ],
            names: ["5b2a", "7c1d"],
        }
    }

    /// Like the Java SDK.
    pub(crate) fn java(id: &str) -> Self {
        let mut this = Self::of(id);
        this.address.insert(0, '/');
        let client = "com.microsoft.azure.sdk.iot.dps.dps-device-client/2.1.3";
        this.properties[1].1 = client.to_owned();
        this.names = ["provision_receiver_link", "provision_sender_link"];
        this
    }

    /// Like the C SDK.
    pub(crate) fn c(id: &str) -> Self {
        let mut this = Self::of(id);
        this.address = format!("amqps://localhost/{}", this.address);
        this.properties.truncate(1);
        this.names = ["recv_link", "sender_link"];
        this
    }
}

/// One connection with both links.
pub(crate) struct Amqp {
    pub(crate) receiver: Receiver,
    pub(crate) sender: Sender,
    /// The server that it needs, if nobody else keeps it.
    pub(crate) server: Option<Arc<Sockets>>,
    _session: SessionHandle<()>,
    _connection: ConnectionHandle<()>,
}

/// What a device asks.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) operation: &'static str,
    pub(crate) operation_id: Option<String>,
    pub(crate) correlation_id: Option<MessageId>,
    pub(crate) body: Body<Value>,
}

impl Ask {
    pub(crate) fn register(body: &[u8]) -> Self {
        Self {
            operation: "iotdps-register",
            operation_id: None,
            correlation_id: None,
            body: data(body),
        }
    }

    pub(crate) fn poll(operation_id: &str) -> Self {
        Self {
            operation: "iotdps-get-operationstatus",
            operation_id: Some(operation_id.to_owned()),
            correlation_id: None,
            body: Body::Value(fe2o3_amqp::types::messaging::AmqpValue(Value::String(
                String::new(),
            ))),
        }
    }
}

pub(crate) fn data(bytes: &[u8]) -> Body<Value> {
    Body::Data(vec![Data(Binary::from(bytes.to_vec()))].into())
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) correlation_id: Option<MessageId>,
    pub(crate) retry_after: [Option<i32>; 2],
    pub(crate) body: Json,
}

/// A rejection.
#[derive(Debug)]
pub(crate) struct Rejection {
    pub(crate) condition: Json,
    pub(crate) retry_after: [Option<i32>; 2],
    pub(crate) description: Json,
}

impl Amqp {
    pub(crate) async fn open<S>(stream: S, links: &Links) -> Result<Self, String>
    where
        S: AsyncRead + AsyncWrite + std::fmt::Debug + Send + Unpin + 'static,
    {
        timeout(PATIENCE, Self::try_open(stream, links))
            .await
            .expect("in time")
    }

    async fn try_open<S>(stream: S, links: &Links) -> Result<Self, String>
    where
        S: AsyncRead + AsyncWrite + std::fmt::Debug + Send + Unpin + 'static,
    {
        let mut builder = Connection::builder()
            .container_id("device")
            .hostname("localhost");
        if let Some((username, password)) = links.login.clone() {
            builder = builder.sasl_profile(SaslProfile::Plain { username, password });
        }
        let opened = builder.open_with_stream(stream).await;
        let mut connection = opened.map_err(|error| format!("open: {error:?}"))?;
        let mut session = Session::begin(&mut connection)
            .await
            .map_err(|error| format!("begin: {error:?}"))?;
        let mut properties = Fields::default();
        for (name, value) in &links.properties {
            properties.insert(Symbol::from(*name), Value::String(value.clone()));
        }
        let receiver = Receiver::builder()
            .name(links.names[0])
            .source(links.address.clone())
            .properties(properties.clone())
            .attach(&mut session)
            .await
            .map_err(|error| format!("receiver: {error:?}"))?;
        let sender = Sender::builder()
            .name(links.names[1])
            .target(links.address.clone())
            .properties(properties)
            .attach(&mut session)
            .await
            .map_err(|error| format!("sender: {error:?}"))?;
        Ok(Self {
            receiver,
            sender,
            server: None,
            _session: session,
            _connection: connection,
        })
    }

    /// Asks and is answered.
    pub(crate) async fn ask(&mut self, ask: Ask) -> Told {
        let asked = self.try_ask(ask).await;
        asked.unwrap_or_else(|rejection| panic!("rejected: {rejection:?}"))
    }

    pub(crate) async fn try_ask(&mut self, ask: Ask) -> Result<Told, Rejection> {
        timeout(PATIENCE, self.exchange(ask))
            .await
            .expect("an answer in time")
    }

    async fn exchange(&mut self, ask: Ask) -> Result<Told, Rejection> {
        let mut properties = ApplicationProperties::builder()
            .insert("iotdps-operation-type", ask.operation)
            .insert("iotdps-forceRegistration", false);
        if let Some(operation_id) = ask.operation_id {
            properties = properties.insert("iotdps-operation-id", operation_id);
        }
        let message = Message::builder()
            .properties(Properties {
                correlation_id: ask.correlation_id,
                ..Properties::default()
            })
            .application_properties(properties.build())
            .value(Value::Null)
            .build()
            .map_body(|_| ask.body);
        match self.sender.send(message).await.expect("an outcome") {
            Outcome::Accepted(_) => {}
            Outcome::Rejected(rejected) => {
                let error = rejected.error.expect("an error");
                let info = error.info.unwrap_or_default();
                let number = |name: &str| match info.get(&Symbol::from(name)) {
                    Some(Value::Int(seconds)) => Some(*seconds),
                    _ => None,
                };
                return Err(Rejection {
                    condition: serde_json::to_value(&error.condition).unwrap(),
                    retry_after: ["retry-after", "Retry-After"].map(number),
                    description: serde_json::from_str(&error.description.unwrap()).unwrap(),
                });
            }
            other @ (Outcome::Released(_) | Outcome::Modified(_)) => panic!("{other:?}"),
        }
        Ok(self.told().await)
    }

    pub(crate) async fn told(&mut self) -> Told {
        let delivery = self
            .receiver
            .recv::<Body<Value>>()
            .await
            .expect("an answer");
        self.receiver.accept(&delivery).await.unwrap();
        let message = delivery.into_message();
        let Body::Data(sections) = message.body else {
            panic!("the body of an answer is data");
        };
        let sections: Vec<Data> = sections.into_iter().collect();
        assert_eq!(sections.len(), 1, "R22");
        let properties = message.application_properties.unwrap_or_default();
        let number = |name: &str| match properties.0.get(name) {
            Some(SimpleValue::Int(seconds)) => Some(*seconds),
            _ => None,
        };
        Told {
            correlation_id: message.properties.and_then(|it| it.correlation_id),
            retry_after: ["retry-after", "Retry-After"].map(number),
            body: serde_json::from_slice(&sections[0].0).expect("every answer is JSON"),
        }
    }
}
