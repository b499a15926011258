//! `/devices/{id}/messages/devicebound`: a device fetches its messages over HTTPS and settles each.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::header::{CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::admission::DeviceCaller;
use super::messages::{APPLICATION, SYSTEM};
use crate::hub::Hub;
use crate::hub::error::{ErrorCode, Refusal};
use crate::hub::messages::Message;
use crate::hub::time;

/// 200 with a message and the lock under which it is the device's, or 204.
pub(super) async fn fetch(
    State(hub): State<Arc<Hub>>,
    DeviceCaller(client): DeviceCaller,
) -> Result<Response, Refusal> {
    let record = hub.device(&client.device).await?;
    let now = hub.now();
    let alive = || record.messages.iter().filter(|it| it.is_alive(now));
    let queue: Vec<u64> = alive().map(|message| message.sequence).collect();
    let token = hub.random_hex();
    let device = client.device.as_str();
    let taken = hub
        .locks
        .take(device, &queue, &token, hub.clock.monotonic());
    let Some((sequence, deliveries)) = taken else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let message = alive().find(|message| message.sequence == sequence);
    let message = message.ok_or_else(|| Refusal::not_found(&client))?;
    let headers = headers(message, &token, deliveries);
    Ok((headers, message.content.body.clone()).into_response())
}

/// The message is done with; `?reject` says that the device could not use it, and ends it too.
pub(super) async fn settle(
    State(hub): State<Arc<Hub>>,
    DeviceCaller(client): DeviceCaller,
    Path(names): Path<HashMap<String, String>>,
) -> Result<StatusCode, Refusal> {
    let sequence = release(&hub, client.device.as_str(), &names)?;
    let record = hub.device(&client.device).await?;
    let generation_id = &record.identity.generation_id;
    hub.complete_message(&client, generation_id, sequence)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The message can be fetched again.
pub(super) async fn abandon(
    State(hub): State<Arc<Hub>>,
    DeviceCaller(client): DeviceCaller,
    Path(names): Path<HashMap<String, String>>,
) -> Result<StatusCode, Refusal> {
    release(&hub, client.device.as_str(), &names)?;
    Ok(StatusCode::NO_CONTENT)
}

fn release(hub: &Hub, device: &str, names: &HashMap<String, String>) -> Result<u64, Refusal> {
    let token = names.get("token").map_or("", String::as_str);
    let token = token.trim_matches('"');
    let released = hub.locks.release(device, token, hub.clock.monotonic());
    released.ok_or_else(|| {
        let message = "the message is not locked under this token, or no longer; fetch it again";
        Refusal::new(ErrorCode::DeviceMessageLockLost, message)
    })
}

fn headers(message: &Message, token: &str, deliveries: u32) -> HeaderMap {
    let own = [
        (ETAG, format!("\"{token}\"")),
        (
            HeaderName::from_static("iothub-sequencenumber"),
            message.sequence.to_string(),
        ),
        (
            HeaderName::from_static("iothub-enqueuedtime"),
            time::format(message.enqueued),
        ),
        (
            HeaderName::from_static("iothub-expiry"),
            time::format(message.expires),
        ),
        (
            HeaderName::from_static("iothub-deliverycount"),
            deliveries.to_string(),
        ),
    ];
    let mut headers = HeaderMap::new();
    let content = HeaderValue::from_static("application/octet-stream");
    headers.insert(CONTENT_TYPE, content);
    let properties = message
        .content
        .properties
        .iter()
        .filter_map(|(name, value)| {
            let known = SYSTEM.iter().find(|(_, short)| short == name);
            let name = match known {
                Some((header, _)) => HeaderName::from_static(header),
                None if name == "$.to" => HeaderName::from_static("iothub-to"),
                None => HeaderName::try_from(format!("{APPLICATION}{name}")).ok()?,
            };
            Some((name, value.clone()))
        });
    for (name, value) in own.into_iter().chain(properties) {
        // Properties came in headers, so they fit into headers.
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            headers.insert(name, value);
        }
    }
    headers
}
