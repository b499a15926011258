//! Messages to devices: a bounded queue that is stored with the device, and what may be done with
//! it (Azure's page "Understand cloud-to-device messaging from an IoT hub").
//!
//! A message waits until the device acknowledges it, or until it expires; it goes with its device.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::client::Client;
use super::error::{ErrorCode, Refusal};
use super::operations::of_generation;
use super::record::Record;
use super::sessions::Notice;
use super::{Decision, Hub, Moment};
use crate::domain::ids::DeviceId;

/// Messages that may wait for one device.
pub(super) const QUEUE: usize = 50;
/// Largest message: body and properties together.
pub(super) const MESSAGE_BYTES: usize = 64 * 1024;
const DEFAULT_LIFE: Duration = Duration::from_hours(1);
const LONGEST_LIFE: Duration = Duration::from_hours(48);

/// A message that waits for its device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Rises along the queue and is never used twice within a hub's life.
    pub sequence: u64,
    pub enqueued: Timestamp,
    pub expires: Timestamp,
    pub content: Content,
}

/// What a message says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Content {
    /// As they stand in a topic's property bag, system properties first.
    pub properties: Vec<(String, String)>,
    #[serde(serialize_with = "write_body", deserialize_with = "read_body")]
    pub body: Bytes,
}

fn write_body<S: Serializer>(body: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&BASE64_STANDARD.encode(body))
}

fn read_body<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let text = String::deserialize(deserializer)?;
    let body = BASE64_STANDARD.decode(text);
    body.map(Bytes::from).map_err(serde::de::Error::custom)
}

/// What a property bag leaves as it is.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

impl Message {
    /// Where an MQTT client of that device receives it.
    pub(super) fn topic(&self, device: &DeviceId) -> String {
        let encode = |text| utf8_percent_encode(text, UNRESERVED).to_string();
        let bag: Vec<String> = self
            .content
            .properties
            .iter()
            .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
            .collect();
        format!("devices/{device}/messages/devicebound/{}", bag.join("&"))
    }

    pub(super) fn is_alive(&self, now: Timestamp) -> bool {
        now < self.expires
    }
}

impl Content {
    fn size(&self) -> usize {
        let properties = self.properties.iter();
        self.body.len()
            + properties
                .map(|(name, value)| name.len() + value.len())
                .sum::<usize>()
    }
}

impl Hub {
    /// Puts a message into the device's queue. It expires after an hour unless it says when; never
    /// later than after two days.
    pub async fn send_message(
        &self,
        id: &DeviceId,
        content: Content,
        expires: Option<Timestamp>,
    ) -> Result<(), Refusal> {
        if content.size() > MESSAGE_BYTES {
            let message = format!("a message to a device has at most {MESSAGE_BYTES} bytes");
            return Err(Refusal::new(ErrorCode::MessageTooLarge, message));
        }
        self.change(id, |before, Moment { now, serial }| {
            let mut record = before
                .filter(|before| before.identity.enabled || before.identity.is_fenced())
                .cloned()
                .ok_or_else(|| Refusal::not_found(id))?;
            record.refuse_if_fenced(id.as_str())?;
            let latest = later(now, LONGEST_LIFE);
            let expires = expires.map_or(later(now, DEFAULT_LIFE), |named| named.min(latest));
            if expires <= now {
                return Err(Refusal::invalid("the message has expired already"));
            }
            record.messages.retain(|waiting| waiting.is_alive(now));
            if record.messages.len() >= QUEUE {
                let message = format!("{QUEUE} messages wait for device '{id}' already");
                let code = ErrorCode::DeviceMaximumQueueDepthExceeded;
                return Err(Refusal::new(code, message));
            }
            record.messages.push_back(Message {
                sequence: serial,
                enqueued: now,
                expires,
                content: content.clone(),
            });
            record.written = now;
            Ok(Decision {
                record: Some(record),
                notice: Some(Notice::Messages),
                answer: (),
            })
        })
        .await
    }

    /// Removes a message that a device of this generation has acknowledged, and what expired.
    pub(super) async fn complete_message(
        &self,
        device: &Client,
        generation_id: &str,
        sequence: u64,
    ) -> Result<(), Refusal> {
        self.change(&device.device, |before, Moment { now, .. }| {
            let mut record = of_generation(device, before, generation_id)?.clone();
            let remains = |waiting: &Message| waiting.sequence != sequence && waiting.is_alive(now);
            record.messages.retain(remains);
            record.written = now;
            Ok(Decision::quiet(record, ()))
        })
        .await
    }

    /// Empties the device's queue and says how many messages it held.
    pub async fn purge_messages(&self, id: &DeviceId) -> Result<usize, Refusal> {
        self.change(id, |before, Moment { now, .. }| {
            let mut record: Record = before.cloned().ok_or_else(|| Refusal::not_found(id))?;
            let purged = record.messages.len();
            record.messages.clear();
            record.written = now;
            Ok(Decision::quiet(record, purged))
        })
        .await
    }
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    now.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_carries_the_properties_encoded() {
        let content = Content {
            properties: vec![
                ("$.mid".into(), "1".into()),
                ("a b".into(), "ü/&=+".into()),
                ("empty".into(), String::new()),
            ],
            body: Bytes::from_static(b"x"),
        };
        let message = Message {
            sequence: 1,
            enqueued: Timestamp::UNIX_EPOCH,
            expires: Timestamp::MAX,
            content,
        };
        assert_eq!(
            message.topic(&"press-7".parse().unwrap()),
            "devices/press-7/messages/devicebound/%24.mid=1&a%20b=%C3%BC%2F%26%3D%2B&empty="
        );
        let stored = serde_json::to_string(&message).unwrap();
        assert_eq!(serde_json::from_str::<Message>(&stored).unwrap(), message);
    }
}
