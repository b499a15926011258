//! One registration, from the first request to the end of the operation, over each protocol.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::amqp::{Amqp, Ask, Links, Rejection};
use super::key::{Key, encoded};
use super::line::{Line, Reply};
use super::mqtt::{Login, Mqtt};
use super::registration::{Protocol, Registrar, Told, Unregistered};
use super::{Trust, dial};

/// How long an SDK waits before it asks again, when it is not told.
const PAUSE: Duration = Duration::from_secs(2);
/// Longest time for an operation.
const PATIENCE: Duration = Duration::from_mins(2);

/// A device that asks where it lives.
pub(super) struct Asking<'a> {
    pub(super) scope: &'a str,
    pub(super) registration_id: &'a str,
    pub(super) api_version: &'a str,
    /// None for a device that presents a certificate.
    pub(super) key: Option<&'a Key>,
    pub(super) payload: Option<&'a Value>,
}

/// An answer to one request: its status code, its body, and when to ask again.
struct Answer {
    code: u16,
    body: Value,
    pause: Duration,
}

impl Asking<'_> {
    /// Registers and polls until the operation is over.
    pub(super) async fn to_the_end(
        &self,
        at: &Registrar,
        trust: &Trust,
        protocol: Protocol,
    ) -> Result<Told> {
        let work = async {
            match protocol {
                // On the heap: the largest would be part of every future that may register.
                Protocol::Https => Box::pin(self.over_https(at, trust)).await,
                Protocol::Mqtt => Box::pin(self.over_mqtt(at, trust)).await,
                Protocol::Amqp => Box::pin(self.over_amqp(at, trust)).await,
            }
        };
        timeout(PATIENCE, work)
            .await
            .context("still assigning")
            .flatten()
            .with_context(|| format!("{} over {protocol}", self.registration_id))
    }

    async fn over_https(&self, at: &Registrar, trust: &Trust) -> Result<Told> {
        let mut line = Line::connect(&at.host, at.https, trust).await?;
        let body = self.body().to_string();
        let reply = line.ask(&self.request("PUT", "register", &body)?).await?;
        let mut answer = Answer::from_https(&reply)?;
        while let Some(operation) = answer.open_operation()? {
            sleep(answer.pause).await;
            let what = format!("operations/{operation}");
            let reply = line.ask(&self.request("GET", &what, "")?).await?;
            answer = Answer::from_https(&reply)?;
        }
        answer.told()
    }

    async fn over_mqtt(&self, at: &Registrar, trust: &Trust) -> Result<Told> {
        let (scope, registration_id) = (self.scope, self.registration_id);
        let version = self.api_version;
        let user = format!(
            "{scope}/registrations/{registration_id}/api-version={version}&ClientVersion=rehome-testing"
        );
        let password = self.token()?;
        let login = Login {
            host: &at.host,
            address: at.mqtt,
            client_id: registration_id,
            user: &user,
            password: password.as_deref(),
        };
        let mut mqtt = Mqtt::connect(&login, trust.tls()).await?;
        mqtt.subscribe("$dps/registrations/res/#").await?;
        let mut ask = async |request: &str, body: &[u8], number: u32| {
            let parameters = if request.contains('?') { "&" } else { "?" };
            let topic = format!("$dps/registrations/{request}{parameters}$rid={number}");
            mqtt.publish(&topic, body).await?;
            let message = mqtt.message("$dps/registrations/res/").await?;
            Answer::from_mqtt(&message.topic, &message.payload, number)
        };
        let body = self.body().to_string();
        let mut answer = ask("PUT/iotdps-register/", body.as_bytes(), 1).await?;
        let mut number = 1;
        while let Some(operation) = answer.open_operation()? {
            sleep(answer.pause).await;
            number += 1;
            let request = format!("GET/iotdps-get-operationstatus/?operationId={operation}");
            answer = ask(&request, b" ", number).await?;
        }
        mqtt.disconnect().await?;
        answer.told()
    }

    async fn over_amqp(&self, at: &Registrar, trust: &Trust) -> Result<Told> {
        let stream = dial(&at.host, at.amqp, trust.tls()).await?;
        let mut links = Links::like_node(self.scope, self.registration_id);
        self.api_version.clone_into(&mut links.properties[0].1);
        if let Some(token) = self.token()? {
            links = links.with_token(token);
        }
        let mut amqp = Amqp::open(stream, &links).await?;
        let mut ask = async |ask: Ask| Answer::from_amqp(amqp.ask(ask).await);
        let body = self.body().to_string();
        let mut answer = ask(Ask::register(body.as_bytes())).await?;
        while let Some(operation) = answer.open_operation()? {
            sleep(answer.pause).await;
            answer = ask(Ask::poll(&operation)).await?;
        }
        amqp.close().await?;
        answer.told()
    }

    /// One request over HTTPS, as it goes over the wire.
    pub(super) fn request(&self, method: &str, what: &str, body: &str) -> Result<Vec<u8>> {
        let (scope, id) = (self.scope, encoded(self.registration_id));
        let (version, length) = (self.api_version, body.len());
        let token = self.token()?;
        let token = token.map(|token| format!("Authorization: {token}\r\n"));
        let token = token.unwrap_or_default();
        let request = format!(
            "{method} /{scope}/registrations/{id}/{what}?api-version={version} HTTP/1.1\r\n\
             Host: gateway\r\n{token}Content-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        Ok(request.into_bytes())
    }

    pub(super) fn body(&self) -> Value {
        let mut body = json!({ "registrationId": self.registration_id });
        if let Some(payload) = self.payload {
            body["payload"] = payload.clone();
        }
        body
    }

    fn token(&self) -> Result<Option<String>> {
        let resource = format!("{}/registrations/{}", self.scope, self.registration_id);
        let token = self
            .key
            .map(|key| key.token(&resource, Some("registration")));
        token.transpose()
    }
}

impl Answer {
    fn from_https(reply: &Reply) -> Result<Self> {
        Ok(Self {
            code: reply.code,
            body: reply.json()?,
            pause: reply.retry_after.map_or(PAUSE, Duration::from_secs),
        })
    }

    /// Reads `$dps/registrations/res/{code}/?$rid={number}[&retry-after={seconds}]`.
    fn from_mqtt(topic: &str, payload: &[u8], number: u32) -> Result<Self> {
        let unreadable = || format!("an answer on the topic {topic}");
        let rest = topic.strip_prefix("$dps/registrations/res/");
        let (code, parameters) = rest
            .and_then(|rest| rest.split_once("/?"))
            .with_context(unreadable)?;
        let mut parameters = parameters.split('&');
        if parameters.next() != Some(&format!("$rid={number}")) {
            bail!("{}, not to request {number}", unreadable());
        }
        let pause = parameters.find_map(|one| one.strip_prefix("retry-after="));
        Ok(Self {
            code: code.parse().with_context(unreadable)?,
            body: serde_json::from_slice(payload).with_context(unreadable)?,
            pause: pause.map_or(Ok(PAUSE), seconds)?,
        })
    }

    /// Over AMQP, an error is a request that is rejected, and its number tells the status.
    fn from_amqp(answer: Result<super::amqp::Answer>) -> Result<Self> {
        let rejection = match answer {
            Ok(answer) => {
                let [pause, _] = answer.retry_after;
                let pause = pause.and_then(|seconds| u64::try_from(seconds).ok());
                return Ok(Self {
                    code: 200,
                    body: answer.body,
                    pause: pause.map_or(PAUSE, Duration::from_secs),
                });
            }
            Err(error) => error.downcast::<Rejection>()?,
        };
        let number = rejection.description["errorCode"].as_u64();
        let number = number.with_context(|| format!("no error number: {rejection}"))?;
        Ok(Self {
            code: u16::try_from(number / 1000)?,
            body: rejection.description,
            pause: PAUSE,
        })
    }

    /// The id of the operation while it is under way.
    fn open_operation(&self) -> Result<Option<String>> {
        if self.code != 200 && self.code != 202 {
            return Err(Unregistered {
                code: self.code,
                body: self.body.to_string(),
            }
            .into());
        }
        let is_open = self.body["status"] == "assigning";
        Ok(is_open.then(|| text(&self.body["operationId"])))
    }

    fn told(&self) -> Result<Told> {
        let state = &self.body["registrationState"];
        if state["status"] != self.body["status"] {
            bail!("the answer contradicts itself: {}", self.body);
        }
        Ok(Told {
            operation_id: text(&self.body["operationId"]),
            status: text(&state["status"]),
            hub: text(&state["assignedHub"]),
            device_id: text(&state["deviceId"]),
            substatus: text(&state["substatus"]),
        })
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn seconds(text: &str) -> Result<Duration> {
    let seconds = text.parse();
    Ok(Duration::from_secs(
        seconds.with_context(|| format!("retry-after is {text:?}"))?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejection_over_amqp_has_the_status_of_its_number() {
        let rejection = Rejection {
            condition: json!("amqp:not-found"),
            retry_after: [None, None],
            description: json!({ "errorCode": 404_201, "message": "who?" }),
        };
        let answer = Answer::from_amqp(Err(rejection.into())).unwrap();
        let error = answer.open_operation().unwrap_err();
        assert_eq!(error.downcast_ref::<Unregistered>().unwrap().code, 404);
        assert!(error.to_string().contains("who?"), "{error}");
        let broken = Answer::from_amqp(Err(anyhow::anyhow!("gone")));
        assert!(
            broken
                .err()
                .unwrap()
                .downcast_ref::<Unregistered>()
                .is_none()
        );
    }
}
