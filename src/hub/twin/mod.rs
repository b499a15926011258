//! Device twins: tags, desired and reported properties, and what a write does to them.
//!
//! Pure: a write goes in, the new twin or a refusal comes out. Whether the device may be written
//! to at all (the fence, preconditions) is decided by the caller.

pub use crate::domain::twin_limits as limits;
mod section;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use section::{METADATA, Section, Stamp, VERSION};

use super::error::{ErrorCode, Refusal};

/// The twin of one device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Twin {
    /// What its etag is made of; moves with tags and desired properties only, as on IoT Hub.
    pub serial: u64,
    /// Counts writes to tags and desired properties; 2 on a fresh twin, as on IoT Hub.
    pub version: u64,
    pub tags: Map<String, Value>,
    pub desired: Section,
    pub reported: Section,
}

/// What a request says about a section: its values, and what it carries over from another hub.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Content {
    pub values: Map<String, Value>,
    pub version: Option<u64>,
    pub metadata: Map<String, Value>,
}

/// The parts of a twin that a request names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TwinWrite {
    pub tags: Option<Map<String, Value>>,
    pub desired: Option<Content>,
    pub reported: Option<Content>,
}

/// A change of desired properties, to tell a connected device.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredChange {
    pub version: u64,
    /// The patch as applied, or all desired properties where they were replaced.
    pub values: Map<String, Value>,
}

impl TwinWrite {
    /// Reads `{"tags": …, "properties": {"desired": …, "reported": …}}` and checks every key and
    /// value. Anything else in the body is ignored, so that a twin read can be sent back.
    pub fn from_body(body: &Map<String, Value>) -> Result<Self, Refusal> {
        let tags = object(body, "tags")?;
        if let Some(tags) = tags {
            limits::check("tags", tags)?;
        }
        let properties = object(body, "properties")?;
        let section = |name| -> Result<Option<Content>, Refusal> {
            let values = properties
                .map(|all| object(all, name))
                .transpose()?
                .flatten();
            values.map(|values| Content::read(name, values)).transpose()
        };
        Ok(Self {
            tags: tags.cloned(),
            desired: section("desired")?,
            reported: section("reported")?,
        })
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Content {
    fn read(name: &str, values: &Map<String, Value>) -> Result<Self, Refusal> {
        let mut values = values.clone();
        let version = values.remove(VERSION).and_then(|version| version.as_u64());
        let metadata = match values.remove(METADATA) {
            Some(Value::Object(metadata)) => metadata,
            _ => Map::new(),
        };
        limits::check(&format!("properties.{name}"), &values)?;
        Ok(Self {
            values,
            version: version.filter(|version| *version > 0),
            metadata,
        })
    }
}

fn object<'a>(
    body: &'a Map<String, Value>,
    name: &str,
) -> Result<Option<&'a Map<String, Value>>, Refusal> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(_) => Err(Refusal::invalid(format!("'{name}' must be a JSON object"))),
    }
}

/// Tags merge like properties but have neither version nor metadata.
fn merge_tags(tags: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (key, change) in patch {
        match change {
            Value::Null => {
                tags.remove(&key);
            }
            Value::Object(change) => merge_tags(section::object_at(tags, &key), change),
            scalar @ (Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
                tags.insert(key, scalar);
            }
        }
    }
}

fn stamp(at: Timestamp) -> Stamp {
    Stamp {
        at,
        with_version: true,
    }
}

fn reported_stamp(at: Timestamp) -> Stamp {
    Stamp {
        at,
        with_version: false,
    }
}

impl Twin {
    /// The twin of a device just created. Versions and metadata carried over are kept.
    pub fn new(write: TwinWrite, serial: u64, now: Timestamp) -> Result<Self, Refusal> {
        let begin = |content: Option<Content>, stamp| {
            let content = content.unwrap_or_default();
            let mut section = Section::new(content.values, content.version.unwrap_or(1), stamp);
            section.adopt_metadata(&content.metadata);
            section
        };
        let mut tags = Map::new();
        merge_tags(&mut tags, write.tags.unwrap_or_default());
        let twin = Self {
            serial,
            version: 2,
            tags,
            desired: begin(write.desired, stamp(now)),
            reported: begin(write.reported, reported_stamp(now)),
        };
        twin.check_growth(None)?;
        Ok(twin)
    }

    /// Merges tags and desired properties. Reported properties in the write are ignored: they are
    /// the device's.
    pub fn patch(
        &mut self,
        write: TwinWrite,
        serial: u64,
        now: Timestamp,
    ) -> Result<Option<DesiredChange>, Refusal> {
        let before = self.clone();
        self.serial = serial;
        self.version += 1;
        merge_tags(&mut self.tags, write.tags.unwrap_or_default());
        let patch = write
            .desired
            .map(|desired| desired.values)
            .filter(|patch| !patch.is_empty());
        let change = patch.map(|patch| {
            self.desired.merge(patch.clone(), stamp(now));
            DesiredChange {
                version: self.desired.version,
                values: patch,
            }
        });
        self.check_growth(Some(&before))?;
        Ok(change)
    }

    /// Replaces tags and desired properties; what the write does not name is gone.
    pub fn replace(
        &mut self,
        write: TwinWrite,
        serial: u64,
        now: Timestamp,
    ) -> Result<DesiredChange, Refusal> {
        let before = self.clone();
        self.serial = serial;
        self.version += 1;
        self.tags.clear();
        merge_tags(&mut self.tags, write.tags.unwrap_or_default());
        self.desired
            .replace(write.desired.unwrap_or_default().values, stamp(now));
        self.check_growth(Some(&before))?;
        Ok(DesiredChange {
            version: self.desired.version,
            values: self.desired.values.clone(),
        })
    }

    /// Merges what the device reports. Neither the etag nor the version of the twin moves.
    pub fn report(&mut self, body: &Map<String, Value>, now: Timestamp) -> Result<u64, Refusal> {
        let patch = Content::read("reported", body)?;
        let before = limits::size(&self.reported.values);
        self.reported.merge(patch.values, reported_stamp(now));
        let limit = limits::PROPERTIES_BYTES;
        limits::check_growth("properties.reported", before, &self.reported.values, limit)?;
        Ok(self.reported.version)
    }

    fn check_growth(&self, before: Option<&Self>) -> Result<(), Refusal> {
        let before = |section: fn(&Self) -> &Map<String, Value>| {
            before.map_or(0, |before| limits::size(section(before)))
        };
        let properties = limits::PROPERTIES_BYTES;
        limits::check_growth(
            "tags",
            before(|it| &it.tags),
            &self.tags,
            limits::TAGS_BYTES,
        )?;
        let desired = &self.desired.values;
        limits::check_growth(
            "properties.desired",
            before(|it| &it.desired.values),
            desired,
            properties,
        )?;
        let reported = &self.reported.values;
        limits::check_growth(
            "properties.reported",
            before(|it| &it.reported.values),
            reported,
            properties,
        )?;
        Ok(())
    }
}

impl DesiredChange {
    /// The body that a device receives.
    pub fn for_device(&self) -> Value {
        let mut object = self.values.clone();
        object.insert(VERSION.into(), self.version.into());
        Value::Object(object)
    }
}

/// Reads a JSON object without rounding any number.
pub fn parse_object(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    limits::check_integers_fit(body)?;
    serde_json::from_slice(body).map_err(|why| {
        Refusal::new(
            ErrorCode::DeserializationError,
            format!("the body is not a JSON object: {why}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn write(body: &Value) -> TwinWrite {
        TwinWrite::from_body(body.as_object().unwrap()).unwrap()
    }

    fn fresh(body: &Value) -> Twin {
        Twin::new(write(body), 1, Timestamp::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn a_fresh_twin_has_the_versions_of_iot_hub() {
        let twin = fresh(&json!({}));
        assert_eq!(
            (twin.version, twin.desired.version, twin.reported.version),
            (2, 1, 1)
        );
    }

    #[test]
    fn tags_move_the_etag_and_leave_the_desired_version() {
        let mut twin = fresh(&json!({ "tags": { "a": { "b": 1 } } }));
        let body =
            json!({ "tags": { "a": { "b": null, "c": 2 } }, "properties": { "desired": {} } });
        assert_eq!(twin.patch(write(&body), 9, Timestamp::UNIX_EPOCH), Ok(None));
        assert_eq!((twin.serial, twin.version, twin.desired.version), (9, 3, 1));
        assert_eq!(Value::Object(twin.tags), json!({ "a": { "c": 2 } }));
    }

    #[test]
    fn a_patch_of_desired_properties_tells_what_it_did_and_leaves_reported_alone() {
        let mut twin =
            fresh(&json!({ "properties": { "desired": { "a": 1 }, "reported": { "r": 1 } } }));
        let sent = json!({ "properties": { "desired": { "a": null, "b": 2, "$version": 77, "$metadata": {} }, "reported": { "r": 2 } } });
        let change = twin
            .patch(write(&sent), 9, Timestamp::UNIX_EPOCH)
            .unwrap()
            .unwrap();
        assert_eq!(
            change.for_device(),
            json!({ "a": null, "b": 2, "$version": 2 })
        );
        assert_eq!(twin.desired.for_device(), json!({ "b": 2, "$version": 2 }));
        assert_eq!(twin.reported.for_device(), json!({ "r": 1, "$version": 1 }));
    }

    #[test]
    fn a_replacement_removes_what_it_does_not_name() {
        let mut twin =
            fresh(&json!({ "tags": { "t": 1 }, "properties": { "desired": { "a": 1, "b": 2 } } }));
        let body = json!({ "properties": { "desired": { "a": 3, "n": null } } });
        let change = twin
            .replace(write(&body), 9, Timestamp::UNIX_EPOCH)
            .unwrap();
        assert_eq!(change.for_device(), json!({ "a": 3, "$version": 2 }));
        assert!(twin.tags.is_empty());
    }

    #[test]
    fn a_report_moves_only_the_reported_version() {
        let mut twin = fresh(&json!({}));
        let before = twin.clone();
        let body = json!({ "a": 1.0, "$version": 5 });
        assert_eq!(
            twin.report(body.as_object().unwrap(), Timestamp::UNIX_EPOCH),
            Ok(2)
        );
        assert_eq!(
            twin.reported.for_device().to_string(),
            r#"{"$version":2,"a":1.0}"#
        );
        assert_eq!((twin.serial, twin.version), (before.serial, before.version));
    }

    #[test]
    fn a_section_too_large_is_refused_by_name() {
        let large: Map<String, Value> = (0..9)
            .map(|n| (n.to_string(), "x".repeat(4000).into()))
            .collect();
        for (body, name) in [
            (json!({ "tags": large }), "tags would take"),
            (
                json!({ "properties": { "desired": large } }),
                "properties.desired would take",
            ),
            (
                json!({ "properties": { "reported": large } }),
                "properties.reported would take",
            ),
        ] {
            let refusal = Twin::new(write(&body), 1, Timestamp::UNIX_EPOCH).unwrap_err();
            assert!(refusal.message.starts_with(name), "{refusal}");
        }
        let refusal = fresh(&json!({}))
            .report(&large, Timestamp::UNIX_EPOCH)
            .unwrap_err();
        assert!(
            refusal
                .message
                .starts_with("properties.reported would take"),
            "{refusal}"
        );
    }

    #[test]
    fn sections_that_are_not_objects_are_refused() {
        for body in [
            json!({ "tags": 1 }),
            json!({ "properties": [] }),
            json!({ "properties": { "desired": "x" } }),
        ] {
            assert!(
                TwinWrite::from_body(body.as_object().unwrap()).is_err(),
                "{body}"
            );
        }
    }
}
