//! One registration, from the first request to the end of the operation: what a device asks, and
//! what the answers say, whatever the protocol.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::Trust;
use super::amqp::Rejection;
use super::channel::Channel;
use super::key::{Key, encoded};
use super::line::Reply;
use super::registration::{Protocol, Registrar, Told, Unregistered};

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
pub(super) struct Answer {
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
            let mut channel = Channel::open(self, at, trust, protocol).await?;
            let mut answer = channel.register(self).await?;
            while let Some(operation) = answer.open_operation()? {
                sleep(answer.pause).await;
                answer = channel.poll(self, &operation).await?;
            }
            channel.close().await?;
            answer.told()
        };
        timeout(PATIENCE, work)
            .await
            .context("still assigning")
            .flatten()
            .with_context(|| format!("{} over {protocol}", self.registration_id))
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

    pub(super) fn token(&self) -> Result<Option<String>> {
        let resource = format!("{}/registrations/{}", self.scope, self.registration_id);
        let token = self
            .key
            .map(|key| key.token(&resource, Some("registration")));
        token.transpose()
    }
}

impl Answer {
    pub(super) fn from_https(reply: &Reply) -> Result<Self> {
        Ok(Self {
            code: reply.code,
            body: reply.json()?,
            pause: reply.retry_after.map_or(PAUSE, Duration::from_secs),
        })
    }

    /// Reads `$dps/registrations/res/{code}/?$rid={number}[&retry-after={seconds}]`.
    pub(super) fn from_mqtt(topic: &str, payload: &[u8], number: u32) -> Result<Self> {
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
    pub(super) fn from_amqp(answer: Result<super::amqp::Answer>) -> Result<Self> {
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

    pub(super) fn told(&self) -> Result<Told> {
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
