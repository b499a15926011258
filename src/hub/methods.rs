//! Direct methods (Azure's page "Understand and invoke direct methods from IoT Hub"): a question
//! to a connected device or module, answered while the caller waits. Nothing is kept.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::Hub;
use super::client::Client;
use super::error::{ErrorCode, Refusal};
use super::sessions::{Busy, Call, MethodAnswer};

/// Largest payload, in both directions.
const PAYLOAD_BYTES: usize = 128 * 1024;
const NAME_BYTES: usize = 100;
const DEFAULT_RESPONSE: u64 = 30;
/// Seconds that a caller may wait for the answer.
const RESPONSE_SECONDS: std::ops::RangeInclusive<u64> = 5..=300;
/// Seconds that a caller may wait for the client to connect.
const MAX_CONNECT_SECONDS: u64 = 300;

/// A method call as a service wants it.
#[derive(Debug)]
pub(super) struct MethodCall {
    name: String,
    payload: Bytes,
    respond_within: Duration,
    connect_within: Duration,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    method_name: Option<String>,
    #[serde(default)]
    payload: Option<Value>,
    response_timeout_in_seconds: Option<u64>,
    connect_timeout_in_seconds: Option<u64>,
}

impl MethodCall {
    /// Reads the body of a request.
    pub(super) fn read(body: &[u8]) -> Result<Self, Refusal> {
        let body: Body = serde_json::from_slice(body).map_err(|why| {
            let message = format!("the body is not a method call: {why}");
            Refusal::new(ErrorCode::DeserializationError, message)
        })?;
        let name = body.method_name.unwrap_or_default();
        // As it stands in a topic, where some characters mean something.
        let legal =
            |byte: u8| byte.is_ascii_graphic() && !b"$()<>@,;:\\\"/[]?={}+#".contains(&byte);
        if name.is_empty() || name.len() > NAME_BYTES || !name.bytes().all(legal) {
            let message = format!(
                "methodName must have 1 to {NAME_BYTES} ASCII letters, digits or signs that mean \
                 nothing in a topic"
            );
            return Err(Refusal::invalid(message));
        }
        let respond = body.response_timeout_in_seconds.unwrap_or(DEFAULT_RESPONSE);
        if !RESPONSE_SECONDS.contains(&respond) {
            return Err(Refusal::invalid(
                "responseTimeoutInSeconds must be 5 to 300",
            ));
        }
        let connect = body.connect_timeout_in_seconds.unwrap_or(0);
        if connect > MAX_CONNECT_SECONDS {
            return Err(Refusal::invalid("connectTimeoutInSeconds must be 0 to 300"));
        }
        // What a service leaves out is null to a device.
        let payload = Bytes::from(body.payload.unwrap_or_default().to_string());
        if payload.len() > PAYLOAD_BYTES {
            let message = format!("the payload is larger than {PAYLOAD_BYTES} bytes");
            return Err(Refusal::new(ErrorCode::MessageTooLarge, message));
        }
        Ok(Self {
            name,
            payload,
            respond_within: Duration::from_secs(respond),
            connect_within: Duration::from_secs(connect),
        })
    }
}

impl Hub {
    /// Calls a method and waits for the answer.
    pub(super) async fn call_method(
        &self,
        client: &Client,
        call: &MethodCall,
    ) -> Result<MethodAnswer, Refusal> {
        let record = self.device(&client.device).await?;
        let party = record.party(client.module());
        if !party.is_some_and(|party| party.enabled) {
            return Err(Refusal::not_found(client));
        }
        let online_by = Instant::now() + call.connect_within;
        let mut sent = self.reach(client, call, online_by).await?;
        let answer_by = Instant::now() + call.respond_within;
        match timeout_at(answer_by, sent.answer()).await {
            Ok(Some(answer)) if answer.payload.len() > PAYLOAD_BYTES => {
                let message = format!("'{client}' answered more than {PAYLOAD_BYTES} bytes");
                Err(Refusal::new(ErrorCode::MessageTooLarge, message))
            }
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => {
                let message = format!("the connection of '{client}' ended before it answered");
                let code = ErrorCode::DeviceConnectionClosedRemotely;
                Err(Refusal::new(code, message))
            }
            Err(_) => {
                let message = format!("timed out waiting for the answer of '{client}'");
                Err(Refusal::new(ErrorCode::GatewayTimeout, message))
            }
        }
    }

    /// Sends the call once the client is there to take it.
    async fn reach(
        &self,
        client: &Client,
        call: &MethodCall,
        online_by: Instant,
    ) -> Result<Call, Refusal> {
        loop {
            let changed = self.sessions.callable();
            let mut changed = std::pin::pin!(changed);
            // Before the look, so that nobody who comes in between is missed.
            changed.as_mut().enable();
            let sent = self.sessions.call(client, &call.name, call.payload.clone());
            match sent {
                Ok(Some(sent)) => return Ok(sent),
                Err(Busy) => {
                    let message = format!("too many method calls wait for '{client}' already");
                    return Err(Refusal::new(ErrorCode::ThrottlingException, message));
                }
                Ok(None) if timeout_at(online_by, changed).await.is_ok() => {}
                Ok(None) => {
                    let message =
                        format!("'{client}' is not connected, or is subscribed to no methods");
                    return Err(Refusal::new(ErrorCode::DeviceNotOnline, message));
                }
            }
        }
    }
}
