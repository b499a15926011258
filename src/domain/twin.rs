//! A device's twin: tags, desired and reported properties.

use aws_lc_rs::digest::{Context, SHA256};
use serde_json::{Map, Value};

use crate::api::v1alpha1::InitialTwin;

/// A twin as a hub holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Twin {
    /// Version of tags and desired, without quotes; a device's reported patch does not move it.
    pub etag: String,
    /// Etag of the identity that the twin belongs to.
    pub device_etag: String,
    /// What the twin says, without versions and metadata.
    pub content: Content,
    /// `$version` of desired.
    pub desired_version: i64,
    /// `$version` of reported.
    pub reported_version: i64,
    /// `$metadata` of desired and reported, for hubs that carry them forward.
    pub metadata: Metadata,
}

/// What a twin says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Content {
    /// Tags: written and read by back ends only.
    pub tags: Map<String, Value>,
    /// Desired properties: written by back ends, read by the device.
    pub desired: Map<String, Value>,
    /// Reported properties: written by the device, read by back ends.
    pub reported: Map<String, Value>,
}

/// When each property last changed, as the hub keeps it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    /// Of desired.
    pub desired: Option<Value>,
    /// Of reported.
    pub reported: Option<Value>,
}

/// A twin in JSON that lacks what every twin has.
#[derive(Debug, thiserror::Error)]
#[error("the hub's answer is not a twin: {0} is missing")]
pub struct NotATwin(&'static str);

impl Twin {
    /// Reads the JSON of the IoT Hub service API ("Devices - Get Twin").
    pub fn from_json(body: &Map<String, Value>) -> Result<Self, NotATwin> {
        let text = |name: &'static str| {
            let value = body
                .get(name)
                .and_then(Value::as_str)
                .ok_or(NotATwin(name))?;
            Ok(value.trim_matches('"').to_owned())
        };
        let properties = body.get("properties").and_then(Value::as_object);
        let section = |name: &'static str| {
            properties
                .and_then(|sections| sections.get(name))
                .and_then(Value::as_object)
                .ok_or(NotATwin(name))
        };
        let (desired, reported) = (section("desired")?, section("reported")?);
        let version = |section: &Map<String, Value>| {
            section
                .get("$version")
                .and_then(Value::as_i64)
                .ok_or(NotATwin("$version"))
        };
        Ok(Self {
            etag: text("etag")?,
            device_etag: text("deviceEtag")?,
            desired_version: version(desired)?,
            reported_version: version(reported)?,
            metadata: Metadata {
                desired: desired.get("$metadata").cloned(),
                reported: reported.get("$metadata").cloned(),
            },
            content: Content {
                tags: body
                    .get("tags")
                    .and_then(Value::as_object)
                    .map(bare)
                    .unwrap_or_default(),
                desired: bare(desired),
                reported: bare(reported),
            },
        })
    }

    /// Whether nothing was written between the two reads.
    pub fn is_same_write(&self, later: &Self) -> bool {
        self.etag == later.etag
            && self.desired_version == later.desired_version
            && self.reported_version == later.reported_version
    }
}

impl Content {
    /// What a device starts with under an Enrollment's initial twin.
    pub fn initial(twin: Option<&InitialTwin>) -> Self {
        let Some(twin) = twin else {
            return Self::default();
        };
        let desired = twin
            .properties
            .as_ref()
            .and_then(|properties| properties.desired.clone());
        Self {
            tags: twin.tags.clone().unwrap_or_default(),
            desired: desired.unwrap_or_default(),
            reported: Map::new(),
        }
    }

    /// 128 bits in hex over the whole content. Equal content gives equal digests whatever the
    /// order of keys and the notation of numbers.
    pub fn digest(&self) -> String {
        let mut hash = Context::new(&SHA256);
        for section in [&self.tags, &self.desired, &self.reported] {
            feed_object(&mut hash, section);
        }
        super::hex(&hash.finish().as_ref()[..16])
    }
}

/// The section without the hub's own members.
fn bare(section: &Map<String, Value>) -> Map<String, Value> {
    section
        .iter()
        .filter(|(key, _)| !key.starts_with('$'))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn feed_object(hash: &mut Context, object: &Map<String, Value>) {
    let mut keys: Vec<_> = object.keys().collect();
    keys.sort_unstable();
    feed_head(hash, b'{', keys.len());
    for key in keys {
        feed_head(hash, b'k', key.len());
        hash.update(key.as_bytes());
        feed(hash, &object[key]);
    }
}

fn feed(hash: &mut Context, value: &Value) {
    match value {
        Value::Null => hash.update(b"n"),
        Value::Bool(true) => hash.update(b"t"),
        Value::Bool(false) => hash.update(b"f"),
        Value::Number(number) => {
            // By value: a hub may store 1.0 as 1. Integers are at most ±2^52, so f64 holds them.
            hash.update(b"#");
            hash.update(&number.as_f64().unwrap_or(f64::NAN).to_be_bytes());
        }
        Value::String(text) => {
            feed_head(hash, b's', text.len());
            hash.update(text.as_bytes());
        }
        Value::Array(items) => {
            feed_head(hash, b'[', items.len());
            for item in items {
                feed(hash, item);
            }
        }
        Value::Object(object) => feed_object(hash, object),
    }
}

/// Kind and length first, so that no two contents feed the same bytes.
fn feed_head(hash: &mut Context, kind: u8, length: usize) {
    hash.update(&[kind]);
    hash.update(&(length as u64).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn content(tags: &Value, desired: &Value, reported: &Value) -> Content {
        let map = |value: &Value| value.as_object().cloned().unwrap();
        Content {
            tags: map(tags),
            desired: map(desired),
            reported: map(reported),
        }
    }

    #[test]
    fn the_digest_does_not_depend_on_key_order_or_number_notation() {
        let one = content(
            &json!({"a": 1, "b": [1, {"c": null}]}),
            &json!({}),
            &json!({"x": 2.0}),
        );
        let two = content(
            &json!({"b": [1, {"c": null}], "a": 1.0}),
            &json!({}),
            &json!({"x": 2}),
        );
        assert_eq!(one.digest(), two.digest());
    }

    #[test]
    fn any_difference_changes_the_digest() {
        let base = content(&json!({"a": "1"}), &json!({}), &json!({}));
        for other in [
            content(&json!({"a": 1}), &json!({}), &json!({})),
            content(&json!({}), &json!({"a": "1"}), &json!({})),
            content(&json!({"a": ["1"]}), &json!({}), &json!({})),
            content(&json!({"a": "1", "b": {}}), &json!({}), &json!({})),
        ] {
            assert_ne!(base.digest(), other.digest(), "{other:?}");
        }
    }

    #[test]
    fn reading_a_twin_strips_what_the_hub_adds() {
        let body = json!({"etag": "\"AAAAAAAAAAE=\"", "deviceEtag": "MQ==", "tags": {"$etag": 1, "t": 1},
            "properties": {"desired": {"d": 1, "$version": 3, "$metadata": {}},
                           "reported": {"r": {"x": []}, "$version": 7}}});
        let twin = Twin::from_json(body.as_object().unwrap()).unwrap();
        assert_eq!((twin.desired_version, twin.reported_version), (3, 7));
        assert_eq!(twin.etag, "AAAAAAAAAAE=");
        assert_eq!(
            twin.content,
            content(&json!({"t": 1}), &json!({"d": 1}), &json!({"r": {"x": []}}))
        );
    }
}
