//! The registration API over AMQP, as device SDKs speak it, by a client that is not ours: two links
//! on one connection, requests on one and answers on the other.

mod tpm;

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use fe2o3_amqp::connection::ConnectionHandle;
use fe2o3_amqp::sasl_profile::SaslProfile;
use fe2o3_amqp::session::SessionHandle;
use fe2o3_amqp::types::definitions::Fields;
use fe2o3_amqp::types::messaging::{
    AmqpValue, ApplicationProperties, Body, Data, Message, MessageId, Outcome, Properties, Rejected,
};
use fe2o3_amqp::types::primitives::{Binary, SimpleValue, Symbol, Value};
use fe2o3_amqp::{Connection, Receiver, Sender, Session};
use serde_json::Value as Json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

pub use fe2o3_amqp::types;
pub use tpm::{SaslRefused, log_in_showing, log_in_with_tpm};

use super::{Registrar, Tpm, dial};

/// Longest time for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What AMQP runs on.
pub trait Stream: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin + 'static> Stream for S {}

/// How a device of some SDK connects.
#[derive(Debug, Clone)]
pub struct Links {
    /// User name and password; absent where TLS or a TPM has said who it is.
    pub login: Option<(String, String)>,
    pub address: String,
    pub properties: Vec<(&'static str, String)>,
    /// Names of the receiving and the sending link.
    pub names: [&'static str; 2],
}

impl Links {
    /// Like the current Node SDK, with no login.
    pub fn like_node(scope: &str, id: &str) -> Self {
        let client = "azure-iot-provisioning-device/1.9.2".to_owned();
        Self {
            login: None,
            address: format!("{scope}/registrations/{id}"),
            properties: vec![
                ("com.microsoft:api-version", "2019-03-31".to_owned()),
                ("com.microsoft:client-version", client),
            ],
            names: ["5b2a", "7c1d"],
        }
    }

    /// The same device with the Java SDK.
    #[must_use]
    pub fn like_java(mut self) -> Self {
        self.address.insert(0, '/');
        let client = "com.microsoft.azure.sdk.iot.dps.dps-device-client/2.1.3";
        self.properties[1] = ("com.microsoft:client-version", client.to_owned());
        self.names = ["provision_receiver_link", "provision_sender_link"];
        self
    }

    /// The same device with the C SDK.
    #[must_use]
    pub fn like_c(mut self) -> Self {
        self.address = format!("amqps://localhost/{}", self.address);
        self.properties.truncate(1);
        self.names = ["recv_link", "sender_link"];
        self
    }

    /// With a user name, which is the address without decoration, and a password.
    #[must_use]
    pub fn with_token(mut self, token: String) -> Self {
        self.login = Some((self.address.clone(), token));
        self
    }
}

/// One connection with both links.
pub struct Amqp {
    receiver: Receiver,
    sender: Sender,
    _session: SessionHandle<()>,
    connection: ConnectionHandle<()>,
}

/// What a device asks.
#[derive(Debug, Clone)]
pub struct Ask {
    pub operation: &'static str,
    pub operation_id: Option<String>,
    pub correlation_id: Option<MessageId>,
    pub body: Body<Value>,
}

impl Ask {
    pub fn register(body: &[u8]) -> Self {
        Self {
            operation: "iotdps-register",
            operation_id: None,
            correlation_id: None,
            body: data(body),
        }
    }

    pub fn poll(operation_id: &str) -> Self {
        Self {
            operation: "iotdps-get-operationstatus",
            operation_id: Some(operation_id.to_owned()),
            correlation_id: None,
            body: Body::Value(AmqpValue(Value::String(String::new()))),
        }
    }
}

/// A body of bytes.
pub fn data(bytes: &[u8]) -> Body<Value> {
    Body::Data(vec![Data(Binary::from(bytes.to_vec()))].into())
}

/// What a device is told.
#[derive(Debug)]
pub struct Answer {
    pub correlation_id: Option<MessageId>,
    /// `retry-after` in both spellings.
    pub retry_after: [Option<i32>; 2],
    pub body: Json,
}

/// A request that the server rejected, and how it said so.
#[derive(Debug)]
pub struct Rejection {
    pub condition: Json,
    pub retry_after: [Option<i32>; 2],
    pub description: Json,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rejected with {}: {}", self.condition, self.description)
    }
}

impl std::error::Error for Rejection {}

impl Amqp {
    /// Connects a device with a TPM to a gateway; [`SaslRefused`] can be taken out of the error.
    pub async fn connect_with_tpm(
        at: &Registrar,
        tpm: &Tpm,
        scope: &str,
        id: &str,
    ) -> Result<Self> {
        let stream = dial(&at.host, at.amqp, &at.trust.tls).await?;
        let stream = log_in_with_tpm(stream, tpm, scope, id).await?;
        Self::open(stream, &Links::like_node(scope, id)).await
    }

    /// Opens a connection, a session and both links.
    pub async fn open(stream: impl Stream, links: &Links) -> Result<Self> {
        timeout(PATIENCE, Self::try_open(stream, links))
            .await
            .context("the links are not open in time")?
    }

    async fn try_open(stream: impl Stream, links: &Links) -> Result<Self> {
        let mut builder = Connection::builder()
            .container_id("device")
            .hostname("localhost");
        if let Some((username, password)) = links.login.clone() {
            builder = builder.sasl_profile(SaslProfile::Plain { username, password });
        }
        let opened = builder.open_with_stream(stream).await;
        let mut connection = opened.map_err(|error| anyhow!("open: {error:?}"))?;
        let begun = Session::begin(&mut connection).await;
        let mut session = begun.map_err(|error| anyhow!("begin: {error:?}"))?;
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
            .map_err(|error| anyhow!("receiver: {error:?}"))?;
        let sender = Sender::builder()
            .name(links.names[1])
            .target(links.address.clone())
            .properties(properties)
            .attach(&mut session)
            .await
            .map_err(|error| anyhow!("sender: {error:?}"))?;
        Ok(Self {
            receiver,
            sender,
            _session: session,
            connection,
        })
    }

    /// Asks and is answered; a [`Rejection`] can be taken out of the error.
    pub async fn ask(&mut self, ask: Ask) -> Result<Answer> {
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
        let sending = timeout(PATIENCE, self.sender.send(message)).await;
        match sending.context("no outcome in time")? {
            Ok(Outcome::Accepted(_)) => self.answer().await,
            Ok(Outcome::Rejected(rejected)) => Err(Rejection::read(rejected)?.into()),
            other => bail!("the outcome of a request is {other:?}"),
        }
    }

    /// Ends the connection, with all that is in it.
    pub async fn close(mut self) -> Result<()> {
        let closing = timeout(PATIENCE, self.connection.close()).await;
        let closed = closing.context("the connection is not closed in time")?;
        closed.map_err(|error| anyhow!("close: {error:?}"))
    }

    /// The next answer.
    pub async fn answer(&mut self) -> Result<Answer> {
        let receiving = timeout(PATIENCE, self.receiver.recv::<Body<Value>>()).await;
        let delivery = receiving
            .context("no answer in time")?
            .map_err(|error| anyhow!("no answer: {error:?}"))?;
        let accepted = self.receiver.accept(&delivery).await;
        accepted.map_err(|error| anyhow!("the answer cannot be accepted: {error:?}"))?;
        let message = delivery.into_message();
        let Body::Data(sections) = message.body else {
            bail!("the body of an answer is not data");
        };
        let sections: Vec<Data> = sections.into_iter().collect();
        ensure!(
            sections.len() == 1,
            "an answer has {} data sections",
            sections.len()
        );
        let properties = message.application_properties.unwrap_or_default();
        let number = |name: &str| match properties.0.get(name) {
            Some(SimpleValue::Int(seconds)) => Some(*seconds),
            _ => None,
        };
        Ok(Answer {
            correlation_id: message.properties.and_then(|it| it.correlation_id),
            retry_after: RETRY_AFTER.map(number),
            body: serde_json::from_slice(&sections[0].0).context("an answer that is not JSON")?,
        })
    }
}

const RETRY_AFTER: [&str; 2] = ["retry-after", "Retry-After"];

impl Rejection {
    fn read(rejected: Rejected) -> Result<Self> {
        let error = rejected.error.context("a rejection without an error")?;
        let info = error.info.unwrap_or_default();
        let number = |name: &str| match info.get(&Symbol::from(name)) {
            Some(Value::Int(seconds)) => Some(*seconds),
            _ => None,
        };
        let description = error.description.unwrap_or_default();
        Ok(Self {
            condition: serde_json::to_value(&error.condition)?,
            retry_after: RETRY_AFTER.map(number),
            description: serde_json::from_str(&description)
                .with_context(|| format!("a rejection that is not JSON: {description}"))?,
        })
    }
}
