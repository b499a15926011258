//! Messages: those from devices (sent over HTTPS, and the tail that services read) and those to
//! devices (sent by services).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Permission::ServiceConnect;
use super::admission::{Caller, DeviceCaller};
use super::identities::parse;
use super::request::{Body, Device, header};
use crate::domain::ids::DeviceId;
use crate::hub::Hub;
use crate::hub::client::Client;
use crate::hub::error::{ErrorCode, Refusal};
use crate::hub::messages::{Content, MESSAGE_BYTES};
use crate::hub::telemetry::Telemetry;
use crate::hub::time;

/// Largest message of a device.
const TELEMETRY_BYTES: usize = 256 * 1024;
/// Application properties are headers with this prefix.
pub(super) const APPLICATION: &str = "iothub-app-";
/// Headers of system properties, and what property bags call them.
pub(super) const SYSTEM: [(&str, &str); 7] = [
    ("iothub-messageid", "$.mid"),
    ("iothub-correlationid", "$.cid"),
    ("iothub-userid", "$.uid"),
    ("iothub-contenttype", "$.ct"),
    ("iothub-contentencoding", "$.ce"),
    ("iothub-creationtimeutc", "$.ctime"),
    ("iothub-ack", "iothub-ack"),
];
/// Several messages in one request.
const BATCH: &str = "application/vnd.microsoft.iothub.json";
const BATCH_MESSAGES: usize = 500;
/// How many messages of the tail a request gets, unless it says, and at most.
const TAIL: usize = 100;
const MAX_TAIL: usize = 1000;

/// A device sends telemetry.
pub(super) async fn receive(
    State(hub): State<Arc<Hub>>,
    DeviceCaller(client): DeviceCaller,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<StatusCode, Refusal> {
    if body.len() > TELEMETRY_BYTES {
        let message = format!("a message of a device has at most {TELEMETRY_BYTES} bytes");
        return Err(Refusal::new(ErrorCode::MessageTooLarge, message));
    }
    let now = hub.now();
    let is_batch = header(&headers, "content-type").is_some_and(|it| it.starts_with(BATCH));
    let messages = if is_batch {
        batch(&body)?
    } else {
        vec![(properties(&headers), body)]
    };
    for (properties, body) in messages {
        hub.sessions.took(&client, &body);
        let told = Telemetry::new(client.clone(), properties, &body, now);
        hub.tail.push(told);
    }
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Batched {
    body: String,
    #[serde(default)]
    base64_encoded: Option<bool>,
    #[serde(default)]
    properties: Map<String, Value>,
}

type Properties = Vec<(String, String)>;

fn batch(body: &[u8]) -> Result<Vec<(Properties, bytes::Bytes)>, Refusal> {
    let batch: Vec<Batched> = parse(body)?;
    if batch.len() > BATCH_MESSAGES {
        let message = format!("a batch has at most {BATCH_MESSAGES} messages");
        return Err(Refusal::invalid(message));
    }
    let message = |one: Batched| {
        let body = if one.base64_encoded.unwrap_or(true) {
            BASE64_STANDARD
                .decode(one.body)
                .map_err(|_| Refusal::invalid("a body in the batch is not base64"))?
        } else {
            one.body.into_bytes()
        };
        let properties = one.properties.into_iter().map(|(name, value)| {
            let name = match name.to_ascii_lowercase().strip_prefix(APPLICATION) {
                Some(_) => name[APPLICATION.len()..].to_owned(),
                None => system_name(&name).map_or(name, str::to_owned),
            };
            let value = match value {
                Value::String(text) => text,
                other @ (Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::Array(_)
                | Value::Object(_)) => other.to_string(),
            };
            (name, value)
        });
        Ok((properties.collect(), bytes::Bytes::from(body)))
    };
    batch.into_iter().map(message).collect()
}

fn system_name(header: &str) -> Option<&'static str> {
    let known = |(name, _): &&(&str, &str)| header.eq_ignore_ascii_case(name);
    SYSTEM.iter().find(known).map(|(_, short)| *short)
}

/// Properties in headers, named as in a property bag: system properties first.
fn properties(headers: &HeaderMap) -> Properties {
    let mut all: Properties = SYSTEM
        .iter()
        .filter_map(|(name, short)| Some(((*short).to_owned(), text(headers.get(*name)?)?)))
        .collect();
    let application = |(name, value): (&HeaderName, &HeaderValue)| {
        let name = name.as_str().strip_prefix(APPLICATION)?;
        Some((name.to_owned(), text(value)?))
    };
    all.extend(headers.iter().filter_map(application));
    all
}

/// Properties are UTF-8, also where HTTP would rather have ASCII.
fn text(value: &HeaderValue) -> Option<String> {
    std::str::from_utf8(value.as_bytes())
        .ok()
        .map(str::to_owned)
}

/// A service sends a message to the device that `iothub-to` names.
pub(super) async fn send(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<StatusCode, Refusal> {
    caller.may(ServiceConnect)?;
    let to = header(&headers, "iothub-to").unwrap_or_default();
    let device = recipient(to)?;
    if body.len() > MESSAGE_BYTES {
        let message = format!("a message to a device has at most {MESSAGE_BYTES} bytes");
        return Err(Refusal::new(ErrorCode::MessageTooLarge, message));
    }
    let expires = header(&headers, "iothub-expiry").map(str::parse::<Timestamp>);
    let expires = expires.transpose().map_err(|_| {
        Refusal::invalid("iothub-expiry must be a time such as 2026-11-23T12:00:00Z")
    })?;
    let mut properties = properties(&headers);
    properties.insert(0, ("$.to".to_owned(), to.to_owned()));
    let content = Content { properties, body };
    hub.send_message(&device, content, expires).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn recipient(to: &str) -> Result<DeviceId, Refusal> {
    let wrong = || Refusal::invalid("iothub-to must be /devices/{deviceId}/messages/devicebound");
    let rest = to.strip_prefix("/devices/").ok_or_else(wrong)?;
    let (id, rest) = rest.split_once('/').ok_or_else(wrong)?;
    if !rest.eq_ignore_ascii_case("messages/devicebound") {
        return Err(wrong());
    }
    let id = percent_decode_str(id).decode_utf8().map_err(|_| wrong())?;
    Ok(id.parse()?)
}

/// The newest messages from all devices.
pub(super) async fn tail(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<Value>, Refusal> {
    caller.may(ServiceConnect)?;
    show(&hub, None, &uri)
}

/// The newest messages from one device and its modules.
pub(super) async fn device_tail(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Device(id): Device,
    uri: Uri,
) -> Result<Json<Value>, Refusal> {
    caller.may(ServiceConnect)?;
    hub.device(&id).await?;
    show(&hub, Some(id.as_str()), &uri)
}

fn show(hub: &Hub, device: Option<&str>, uri: &Uri) -> Result<Json<Value>, Refusal> {
    let number = |name: &str| {
        let query = uri.query().unwrap_or_default();
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let found = pairs.find(|(found, _)| *found == name);
        let wrong = |_| Refusal::invalid(format!("'{name}' must be a number"));
        found
            .map(|(_, text)| text.parse::<u64>().map_err(wrong))
            .transpose()
    };
    let after = number("after")?;
    let limit = number("top")?.and_then(|top| usize::try_from(top).ok());
    let limit = limit.unwrap_or(TAIL).clamp(1, MAX_TAIL);
    let messages = hub.tail.read(device, after, limit);
    let next = messages.last().map_or(after, |(number, _)| Some(*number));
    let messages = messages.iter().map(|(number, one)| message(*number, one));
    Ok(Json(
        json!({ "messages": messages.collect::<Value>(), "next": next.unwrap_or(0) }),
    ))
}

fn message(number: u64, telemetry: &Telemetry) -> Value {
    let Client { device, module } = &telemetry.client;
    let properties: Map<String, Value> = telemetry
        .properties
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().into()))
        .collect();
    let mut message = json!({
        "sequenceNumber": number,
        "enqueuedTime": time::format(telemetry.enqueued),
        "deviceId": device.as_str(),
        "properties": properties,
        "bodyBytes": telemetry.size,
    });
    if let Some(module) = module {
        message["moduleId"] = module.as_str().into();
    }
    match std::str::from_utf8(&telemetry.body) {
        Ok(text) => message["body"] = text.into(),
        Err(_) => message["bodyBase64"] = BASE64_STANDARD.encode(&telemetry.body).into(),
    }
    message
}
