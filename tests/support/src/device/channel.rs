//! A connection to the gateway on which a device asks as often as it likes, over each protocol.

use anyhow::Result;

use super::amqp::{Amqp, Ask, Links};
use super::asking::{Answer, Asking};
use super::line::Line;
use super::mqtt::{Login, Mqtt};
use super::registration::{Applicant, Protocol, Registrar, Told};
use super::{Trust, dial};

/// An open connection of one device. Not usable after an error.
pub(super) enum Channel {
    Https(Line),
    /// With the number of the last request.
    Mqtt(Mqtt, u32),
    /// On the heap: it would make every future large that may register.
    Amqp(Box<Amqp>),
}

/// A device whose connection stays open after it registered, so that it can do so again.
pub struct Conversation {
    applicant: Applicant,
    channel: Channel,
}

impl Registrar {
    /// Connects, and asks nothing yet.
    pub async fn converse(&self, applicant: Applicant, protocol: Protocol) -> Result<Conversation> {
        let asking = applicant.asking();
        let channel = Channel::open(&asking, self, &self.trust, protocol).await?;
        Ok(Conversation { applicant, channel })
    }
}

impl Conversation {
    /// Registers once more, for an answer that is final at once.
    pub async fn register(&mut self) -> Result<Told> {
        let answer = self.channel.register(&self.applicant.asking()).await?;
        answer.told()
    }
}

impl Channel {
    pub(super) async fn open(
        asking: &Asking<'_>,
        at: &Registrar,
        trust: &Trust,
        protocol: Protocol,
    ) -> Result<Self> {
        Ok(match protocol {
            Protocol::Https => Self::Https(Line::connect(&at.host, at.https, trust).await?),
            Protocol::Mqtt => Self::Mqtt(mqtt(asking, at, trust).await?, 0),
            Protocol::Amqp => Self::Amqp(Box::pin(amqp(asking, at, trust)).await?.into()),
        })
    }

    pub(super) async fn register(&mut self, asking: &Asking<'_>) -> Result<Answer> {
        let body = asking.body().to_string();
        match self {
            Self::Https(line) => {
                let request = asking.request("PUT", "register", &body)?;
                Answer::from_https(&line.ask(&request).await?)
            }
            Self::Mqtt(mqtt, number) => {
                *number += 1;
                ask_mqtt(mqtt, "PUT/iotdps-register/?", body.as_bytes(), *number).await
            }
            Self::Amqp(amqp) => Answer::from_amqp(amqp.ask(Ask::register(body.as_bytes())).await),
        }
    }

    pub(super) async fn poll(&mut self, asking: &Asking<'_>, operation: &str) -> Result<Answer> {
        match self {
            Self::Https(line) => {
                let what = format!("operations/{operation}");
                Answer::from_https(&line.ask(&asking.request("GET", &what, "")?).await?)
            }
            Self::Mqtt(mqtt, number) => {
                *number += 1;
                let request = format!("GET/iotdps-get-operationstatus/?operationId={operation}&");
                ask_mqtt(mqtt, &request, b" ", *number).await
            }
            Self::Amqp(amqp) => Answer::from_amqp(amqp.ask(Ask::poll(operation)).await),
        }
    }

    /// Says goodbye, where the protocol has a word for it.
    pub(super) async fn close(self) -> Result<()> {
        match self {
            Self::Https(_) => Ok(()),
            Self::Mqtt(mqtt, _) => mqtt.disconnect().await,
            Self::Amqp(amqp) => amqp.close().await,
        }
    }
}

async fn mqtt(asking: &Asking<'_>, at: &Registrar, trust: &Trust) -> Result<Mqtt> {
    let (scope, id, version) = (asking.scope, asking.registration_id, asking.api_version);
    let user =
        format!("{scope}/registrations/{id}/api-version={version}&ClientVersion=rehome-testing");
    let password = asking.token()?;
    let login = Login {
        host: &at.host,
        address: at.mqtt,
        client_id: id,
        user: &user,
        password: password.as_deref(),
    };
    let mut mqtt = Mqtt::connect(&login, trust.tls()).await?;
    mqtt.subscribe("$dps/registrations/res/#").await?;
    Ok(mqtt)
}

/// `request` is the topic up to where the request's number goes.
async fn ask_mqtt(mqtt: &mut Mqtt, request: &str, body: &[u8], number: u32) -> Result<Answer> {
    let topic = format!("$dps/registrations/{request}$rid={number}");
    mqtt.publish(&topic, body).await?;
    let message = mqtt.message("$dps/registrations/res/").await?;
    Answer::from_mqtt(&message.topic, &message.payload, number)
}

async fn amqp(asking: &Asking<'_>, at: &Registrar, trust: &Trust) -> Result<Amqp> {
    let stream = dial(&at.host, at.amqp, trust.tls()).await?;
    let mut links = Links::like_node(asking.scope, asking.registration_id);
    asking.api_version.clone_into(&mut links.properties[0].1);
    if let Some(token) = asking.token()? {
        links = links.with_token(token);
    }
    Amqp::open(stream, &links).await
}
