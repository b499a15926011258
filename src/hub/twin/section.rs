//! A section of a twin with a version: the desired or the reported properties.
//!
//! Every accepted write raises the version by one. The metadata mirrors the tree of objects: each
//! node says when it was last changed, and a deletion leaves its trace in the node above it.
//! Arrays are values: they are replaced whole and have one node.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::hub::time;

pub const VERSION: &str = "$version";
pub const METADATA: &str = "$metadata";
const LAST_UPDATED: &str = "$lastUpdated";
const LAST_UPDATED_VERSION: &str = "$lastUpdatedVersion";
/// Who wrote a value, where a configuration did: carried, never set here.
const LAST_UPDATED_BY: [&str; 2] = ["$lastUpdatedBy", "$lastUpdatedByDigest"];

/// Values with their version and metadata.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Section {
    pub version: u64,
    pub values: Map<String, Value>,
    metadata: Map<String, Value>,
}

/// What a write leaves on the nodes it touches. Reported nodes carry no version.
#[derive(Clone, Copy)]
pub struct Stamp {
    pub at: Timestamp,
    pub with_version: bool,
}

impl Section {
    /// A section that begins with these values. Nulls in them name nothing and are dropped.
    pub fn new(values: Map<String, Value>, version: u64, stamp: Stamp) -> Self {
        let mut section = Self {
            version,
            values: Map::new(),
            metadata: Map::new(),
        };
        merge(
            &mut section.values,
            &mut section.metadata,
            values,
            &stamp.node(version),
        );
        section
    }

    /// Merges a patch: objects recursively, null deletes, anything else replaces (RFC 7396).
    pub fn merge(&mut self, patch: Map<String, Value>, stamp: Stamp) {
        self.version += 1;
        merge(
            &mut self.values,
            &mut self.metadata,
            patch,
            &stamp.node(self.version),
        );
    }

    /// Replaces all values.
    pub fn replace(&mut self, values: Map<String, Value>, stamp: Stamp) {
        *self = Self::new(values, self.version + 1, stamp);
    }

    /// Takes over metadata from another hub, for the values that are here. Nodes that it does not
    /// describe, or describes in a form that is not metadata, keep their stamp.
    pub fn adopt_metadata(&mut self, foreign: &Map<String, Value>) {
        adopt(&self.values, &mut self.metadata, foreign);
    }

    /// The values with `$version`, as devices see them.
    pub fn for_device(&self) -> Value {
        let mut object = self.values.clone();
        object.insert(VERSION.into(), self.version.into());
        Value::Object(object)
    }

    /// The values with `$version` and `$metadata`, as services see them.
    pub fn for_service(&self) -> Value {
        let mut object = self.values.clone();
        object.insert(METADATA.into(), Value::Object(self.metadata.clone()));
        object.insert(VERSION.into(), self.version.into());
        Value::Object(object)
    }
}

impl Stamp {
    fn node(self, version: u64) -> Map<String, Value> {
        let mut node = Map::new();
        node.insert(LAST_UPDATED.into(), time::format(self.at).into());
        if self.with_version {
            node.insert(LAST_UPDATED_VERSION.into(), version.into());
        }
        node
    }
}

/// Marks `node` as changed, leaving what it says about its children.
fn touch(node: &mut Map<String, Value>, stamp: &Map<String, Value>) {
    for by in LAST_UPDATED_BY {
        node.remove(by);
    }
    node.extend(stamp.clone());
}

fn merge(
    values: &mut Map<String, Value>,
    metadata: &mut Map<String, Value>,
    patch: Map<String, Value>,
    stamp: &Map<String, Value>,
) {
    touch(metadata, stamp);
    for (key, change) in patch {
        match change {
            Value::Null => {
                values.remove(&key);
                metadata.remove(&key);
            }
            Value::Object(change) => {
                let value = object_at(values, &key);
                merge(value, object_at(metadata, &key), change, stamp);
            }
            scalar @ (Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
                values.insert(key.clone(), scalar);
                metadata.insert(key, Value::Object(stamp.clone()));
            }
        }
    }
}

/// The object under `key`, after replacing whatever else was there. A scalar's metadata is an
/// object without children, so values and metadata stay in step.
pub(super) fn object_at<'a>(
    parent: &'a mut Map<String, Value>,
    key: &str,
) -> &'a mut Map<String, Value> {
    let slot = parent.entry(key).or_insert(Value::Null);
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    #[expect(clippy::expect_used, reason = "made an object one line above")]
    slot.as_object_mut().expect("an object")
}

fn adopt(
    values: &Map<String, Value>,
    metadata: &mut Map<String, Value>,
    foreign: &Map<String, Value>,
) {
    if let Some(at) = foreign.get(LAST_UPDATED)
        && at
            .as_str()
            .is_some_and(|at| at.parse::<Timestamp>().is_ok())
    {
        metadata.insert(LAST_UPDATED.into(), at.clone());
    }
    if let Some(version) = foreign.get(LAST_UPDATED_VERSION)
        && version.is_u64()
        && metadata.contains_key(LAST_UPDATED_VERSION)
    {
        metadata.insert(LAST_UPDATED_VERSION.into(), version.clone());
    }
    for by in LAST_UPDATED_BY {
        if let Some(author) = foreign
            .get(by)
            .filter(|it| it.as_str().is_some_and(|it| it.len() <= 256))
        {
            metadata.insert(by.into(), author.clone());
        }
    }
    for (key, value) in values {
        if let (Some(Value::Object(node)), Some(Value::Object(foreign))) =
            (metadata.get_mut(key), foreign.get(key))
        {
            let none = Map::new();
            adopt(value.as_object().unwrap_or(&none), node, foreign);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn stamp(second: i64) -> Stamp {
        Stamp {
            at: Timestamp::from_second(second).unwrap(),
            with_version: true,
        }
    }

    fn object(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_patch_merges_deletes_and_replaces() {
        let mut section = Section::new(
            object(&json!({ "a": { "b": 1, "c": [1, 2] }, "d": 4 })),
            1,
            stamp(1),
        );
        section.merge(
            object(&json!({ "a": { "b": null, "c": [3] }, "d": { "e": {} }, "f": null })),
            stamp(2),
        );
        assert_eq!(
            Value::Object(section.values.clone()),
            json!({ "a": { "c": [3] }, "d": { "e": {} } })
        );
        assert_eq!(section.version, 2);
        section.merge(object(&json!({ "a": { "c": null } })), stamp(3));
        assert_eq!(section.values["a"], json!({}));
    }

    #[test]
    fn metadata_mirrors_the_tree_and_keeps_a_trace_of_deletions() {
        let mut section = Section::new(
            object(&json!({ "a": { "b": 1, "c": 2 }, "d": 4 })),
            1,
            stamp(1),
        );
        section.merge(object(&json!({ "a": { "b": null } })), stamp(2));
        let (first, second) = (
            "1970-01-01T00:00:01.0000000Z",
            "1970-01-01T00:00:02.0000000Z",
        );
        assert_eq!(
            section.for_service()["$metadata"],
            json!({
                "$lastUpdated": second, "$lastUpdatedVersion": 2,
                "a": {
                    "$lastUpdated": second, "$lastUpdatedVersion": 2,
                    "c": { "$lastUpdated": first, "$lastUpdatedVersion": 1 },
                },
                "d": { "$lastUpdated": first, "$lastUpdatedVersion": 1 },
            })
        );
    }

    #[test]
    fn reported_metadata_carries_no_version() {
        let reported = Stamp {
            with_version: false,
            ..stamp(1)
        };
        let section = Section::new(object(&json!({ "a": 1 })), 1, reported);
        let at = "1970-01-01T00:00:01.0000000Z";
        let expected = json!({ "$lastUpdated": at, "a": { "$lastUpdated": at } });
        assert_eq!(section.for_service()["$metadata"], expected);
    }

    #[test]
    fn metadata_of_another_hub_is_adopted_where_it_describes_a_value() {
        let mut origin = Section::new(object(&json!({ "a": { "b": 1 } })), 1, stamp(1));
        origin.merge(object(&json!({ "a": { "c": [1] }, "d": 4 })), stamp(2));
        let mut copy = Section::new(origin.values.clone(), origin.version, stamp(9));
        assert_ne!(copy, origin);
        copy.adopt_metadata(&origin.metadata);
        assert_eq!(copy, origin);

        let nonsense =
            json!({ "$lastUpdated": "soon", "$lastUpdatedVersion": -1, "x": {}, "d": 4 });
        copy.adopt_metadata(&object(&nonsense));
        assert_eq!(copy, origin);
    }

    /// JSON merge patch, written down a second time.
    fn rfc7396(target: &Value, patch: &Value) -> Value {
        let Value::Object(patch) = patch else {
            return patch.clone();
        };
        let mut target = target.as_object().cloned().unwrap_or_default();
        for (key, change) in patch {
            let old = target.remove(key).unwrap_or(Value::Null);
            if !change.is_null() {
                target.insert(key.clone(), rfc7396(&old, change));
            }
        }
        Value::Object(target)
    }

    /// Whether there is one metadata node for each value, and none besides.
    fn mirrors(values: &Map<String, Value>, metadata: &Map<String, Value>) -> bool {
        let children = metadata.keys().filter(|key| !key.starts_with('$')).count();
        metadata.contains_key(LAST_UPDATED)
            && children == values.len()
            && values.iter().all(|(key, value)| {
                let none = Map::new();
                let child = metadata.get(key).and_then(Value::as_object);
                child.is_some_and(|child| mirrors(value.as_object().unwrap_or(&none), child))
            })
    }

    fn values() -> impl Strategy<Value = Map<String, Value>> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-9_i64..9).prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[a-c]{0,3}".prop_map(Value::from),
            proptest::collection::vec(0..3_i64, 0..3).prop_map(Value::from),
        ];
        let tree = leaf.prop_recursive(4, 24, 4, |inner| {
            proptest::collection::btree_map("[a-d]", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect()))
        });
        proptest::collection::btree_map("[a-d]", tree, 0..4)
            .prop_map(|map| map.into_iter().collect())
    }

    proptest! {
        #[test]
        fn any_series_of_patches_follows_rfc_7396(first in values(), patches in proptest::collection::vec(values(), 0..6)) {
            let mut section = Section::new(first.clone(), 1, stamp(1));
            let mut expected = rfc7396(&json!({}), &Value::Object(first));
            for (at, patch) in patches.into_iter().enumerate() {
                expected = rfc7396(&expected, &Value::Object(patch.clone()));
                section.merge(patch, stamp(i64::try_from(at).unwrap() + 2));
                prop_assert_eq!(section.version, at as u64 + 2);
            }
            prop_assert_eq!(&Value::Object(section.values.clone()), &expected);
            prop_assert!(mirrors(&section.values, &section.metadata));
            let stored = serde_json::to_vec(&section).unwrap();
            prop_assert_eq!(serde_json::from_slice::<Section>(&stored).unwrap(), section);
        }
    }
}
