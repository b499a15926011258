//! A device asks the gateway where it lives: the registration API over HTTPS and over MQTT, as
//! device SDKs speak it.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http::header::{AUTHORIZATION, RETRY_AFTER};
use serde_json::{Value, json};

use super::Trust;
use super::key::{Key, encoded};
use super::line::Line;
use super::mqtt::{Login, Mqtt};

/// How long an SDK waits before it asks again, when it is not told.
const PAUSE: Duration = Duration::from_secs(2);
/// Longest time for an operation.
const PATIENCE: Duration = Duration::from_mins(2);

/// How a device speaks to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Https,
    Mqtt,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Https => "HTTPS",
            Self::Mqtt => "MQTT",
        })
    }
}

/// Where the gateway is.
#[derive(Clone)]
pub struct Registrar {
    /// The name that devices are given.
    pub host: String,
    /// Where HTTPS is served.
    pub https: SocketAddr,
    /// Where MQTT is served.
    pub mqtt: SocketAddr,
    /// Where AMQP is served.
    pub amqp: SocketAddr,
    pub trust: Trust,
}

/// A device before it has a hub.
#[derive(Clone, Debug)]
pub struct Applicant {
    pub scope: String,
    pub registration_id: String,
    /// Its own key: for a group, the derived one.
    pub key: Key,
    /// Such as `2019-03-31`.
    pub api_version: String,
}

/// What the device is told in the end.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub operation_id: String,
    /// `assigned`, `failed` or `disabled`.
    pub status: String,
    /// Empty unless assigned, as are the next two.
    pub hub: String,
    pub device_id: String,
    pub substatus: String,
}

/// An answer to one request: its status code, its body, and when to ask again.
struct Answer {
    code: u16,
    body: Value,
    pause: Duration,
}

impl Registrar {
    /// Registers and polls until the operation is over.
    pub async fn register(
        &self,
        applicant: &Applicant,
        protocol: Protocol,
        payload: Option<&Value>,
    ) -> Result<Told> {
        let work = async {
            match protocol {
                Protocol::Https => self.over_https(applicant, payload).await,
                Protocol::Mqtt => self.over_mqtt(applicant, payload).await,
            }
        };
        tokio::time::timeout(PATIENCE, work)
            .await
            .context("still assigning")
            .flatten()
            .with_context(|| format!("{} over {protocol}", applicant.registration_id))
    }

    /// Registers over HTTPS with the certificate that `trust` presents, and polls until the operation
    /// is over.
    pub async fn register_presenting(
        &self,
        trust: &Trust,
        scope: &str,
        registration_id: &str,
        api_version: &str,
    ) -> Result<Told> {
        let work = async {
            let mut line = Line::connect(&self.host, self.https, trust).await?;
            let registration = format!("/{scope}/registrations/{registration_id}");
            let mut ask = async |method: &str, what: &str, body: &str| {
                let length = body.len();
                let request = format!(
                    "{method} {registration}/{what}?api-version={api_version} HTTP/1.1\r\n\
                     Host: gateway\r\nContent-Length: {length}\r\n\r\n{body}"
                );
                let reply = line.ask(request.as_bytes()).await?;
                anyhow::Ok(Answer {
                    code: reply.code,
                    pause: PAUSE,
                    body: reply.json()?,
                })
            };
            let mut answer = ask("PUT", "register", "{}").await?;
            while let Some(operation) = answer.open_operation()? {
                tokio::time::sleep(answer.pause).await;
                answer = ask("GET", &format!("operations/{operation}"), "").await?;
            }
            answer.told()
        };
        tokio::time::timeout(PATIENCE, work)
            .await
            .context("still assigning")
            .flatten()
            .with_context(|| format!("{registration_id} with a certificate"))
    }

    async fn over_https(&self, applicant: &Applicant, payload: Option<&Value>) -> Result<Told> {
        // The registration id is in the path, so it is there in the path's encoding.
        let registration = format!(
            "https://{}:{}/{}/registrations/{}",
            self.host,
            self.https.port(),
            applicant.scope,
            encoded(&applicant.registration_id)
        );
        let version = format!("api-version={}", applicant.api_version);
        let client = self.trust.http_client(&self.host, self.https)?;
        let ask = async |request: reqwest::RequestBuilder| {
            let token = applicant.token()?;
            let response = request.header(AUTHORIZATION, token).send().await?;
            let pause = response.headers().get(RETRY_AFTER);
            anyhow::Ok(Answer {
                code: response.status().as_u16(),
                pause: pause.map_or(Ok(PAUSE), |text| seconds(text.to_str()?))?,
                body: response.json().await?,
            })
        };
        let url = format!("{registration}/register?{version}");
        let mut answer = ask(client.put(url).json(&applicant.body(payload))).await?;
        while let Some(operation) = answer.open_operation()? {
            tokio::time::sleep(answer.pause).await;
            let url = format!("{registration}/operations/{operation}?{version}");
            answer = ask(client.get(url)).await?;
        }
        answer.told()
    }

    async fn over_mqtt(&self, applicant: &Applicant, payload: Option<&Value>) -> Result<Told> {
        let Applicant {
            scope,
            registration_id,
            api_version,
            ..
        } = applicant;
        let user = format!(
            "{scope}/registrations/{registration_id}/api-version={api_version}&ClientVersion=rehome-testing"
        );
        let login = Login {
            host: &self.host,
            address: self.mqtt,
            client_id: registration_id,
            user: &user,
            password: Some(&applicant.token()?),
        };
        let mut mqtt = Mqtt::connect(&login, &self.trust.tls).await?;
        mqtt.subscribe("$dps/registrations/res/#").await?;
        let mut ask = async |request: &str, body: &[u8], number: u32| {
            let parameters = if request.contains('?') { "&" } else { "?" };
            let topic = format!("$dps/registrations/{request}{parameters}$rid={number}");
            mqtt.publish(&topic, body).await?;
            let message = mqtt.message("$dps/registrations/res/").await?;
            Answer::from_mqtt(&message.topic, &message.payload, number)
        };
        let body = applicant.body(payload).to_string();
        let mut answer = ask("PUT/iotdps-register/", body.as_bytes(), 1).await?;
        let mut number = 1;
        while let Some(operation) = answer.open_operation()? {
            tokio::time::sleep(answer.pause).await;
            number += 1;
            let request = format!("GET/iotdps-get-operationstatus/?operationId={operation}");
            answer = ask(&request, b" ", number).await?;
        }
        mqtt.disconnect().await?;
        answer.told()
    }
}

impl Applicant {
    pub(super) fn token(&self) -> Result<String> {
        let resource = format!("{}/registrations/{}", self.scope, self.registration_id);
        self.key.token(&resource, Some("registration"))
    }

    pub(super) fn body(&self, payload: Option<&Value>) -> Value {
        let mut body = json!({ "registrationId": self.registration_id });
        if let Some(payload) = payload {
            body["payload"] = payload.clone();
        }
        body
    }
}

impl Answer {
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

    /// The id of the operation while it is under way.
    fn open_operation(&self) -> Result<Option<String>> {
        if self.code != 200 && self.code != 202 {
            bail!("the gateway answered {}: {}", self.code, self.body);
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
