//! Whether an object is as it should be, so that nothing is written that is so already.
//!
//! What the API server and others add is left alone: every field that we want must be there with
//! our value. A field that we want no more is noticed by the stamp, a digest of all that we want.

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::Value;

use crate::domain::hex;

/// Annotation with the digest.
const STAMP: &str = "rehome.dev/desired";

/// Puts the digest of all that is wanted on the object.
pub(super) fn stamp(object: &mut Value) {
    let hash = digest(&SHA256, object.to_string().as_bytes());
    object["metadata"]["annotations"][STAMP] = hex(&hash.as_ref()[..8]).into();
}

/// Whether `there` has all that is `wanted`.
pub(super) fn holds(there: &Value, wanted: &Value) -> bool {
    holds_in(there, wanted, false)
}

/// `amounts`: texts here are quantities, which the API server writes in its own way.
fn holds_in(there: &Value, wanted: &Value, amounts: bool) -> bool {
    match (there, wanted) {
        (Value::Object(there), Value::Object(wanted)) => wanted.iter().all(|(key, wanted)| {
            let amounts = amounts || key == "requests" || key == "limits";
            let there = there.get(key);
            // What is empty may be left out.
            there.map_or(is_empty(wanted), |there| holds_in(there, wanted, amounts))
        }),
        (Value::Array(there), Value::Array(wanted)) => list_holds(there, wanted),
        (Value::String(there), Value::String(wanted)) if amounts => {
            there == wanted || amount(there).is_some_and(|known| amount(wanted) == Some(known))
        }
        (there, wanted) => there == wanted,
    }
}

/// Items with names may have others beside them: that is how server-side apply merges them.
fn list_holds(there: &[Value], wanted: &[Value]) -> bool {
    let named = |items: &[Value]| items.iter().all(|item| item["name"].is_string());
    if !wanted.is_empty() && named(wanted) && named(there) {
        return wanted.iter().all(|wanted| {
            let mut there = there.iter();
            let found = there.find(|there| there["name"] == wanted["name"]);
            found.is_some_and(|there| holds_in(there, wanted, false))
        });
    }
    there.len() == wanted.len()
        && there
            .iter()
            .zip(wanted)
            .all(|(there, wanted)| holds_in(there, wanted, false))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Null => true,
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// A quantity in thousandths: `500m`, `0.5`, `1Gi`, `1e3`.
fn amount(text: &str) -> Option<u128> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let thousandths: String = fraction.chars().chain("000".chars()).take(3).collect();
    let whole: u128 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let number = whole
        .checked_mul(1000)?
        .checked_add(thousandths.parse().ok()?)?;
    let power = |base: u128, exponent: u32| base.checked_pow(exponent);
    let factor = match suffix {
        "" => 1,
        "m" => return Some(number / 1000),
        "k" => 1000,
        "M" => power(1000, 2)?,
        "G" => power(1000, 3)?,
        "T" => power(1000, 4)?,
        "Ki" => 1024,
        "Mi" => power(1024, 2)?,
        "Gi" => power(1024, 3)?,
        "Ti" => power(1024, 4)?,
        other => power(10, other.strip_prefix(['e', 'E'])?.parse().ok()?)?,
    };
    number.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_others_add_is_no_drift_and_what_they_change_is() {
        let wanted = json!({"spec": {"replicas": 1, "args": ["a", "b"],
            "containers": [{"name": "hub", "image": "one"}], "none": {}}});
        let with = |pointer: &str, value: Value| {
            let mut there = json!({"spec": {"replicas": 1, "args": ["a", "b"], "more": true,
                "containers": [{"name": "mesh"}, {"name": "hub", "image": "one", "tty": false}]},
                "status": {}});
            if !pointer.is_empty() {
                *there.pointer_mut(pointer).unwrap() = value;
            }
            there
        };
        assert!(holds(&with("", json!(0)), &wanted));
        for (pointer, value) in [
            ("/spec/replicas", json!(0)),
            ("/spec/args", json!(["a"])),
            ("/spec/args", json!(["a", "b", "c"])),
            ("/spec/args/1", json!("c")),
            ("/spec/containers/1/image", json!("two")),
            ("/spec/containers", json!([])),
            ("/spec", json!({})),
        ] {
            assert!(!holds(&with(pointer, value), &wanted), "{pointer}");
        }
    }

    #[test]
    fn amounts_are_equal_however_they_are_written() {
        let same = |one: &str, other: &str| {
            holds(
                &json!({"limits": {"cpu": one}}),
                &json!({"limits": {"cpu": other}}),
            )
        };
        for (one, other) in [
            ("500m", "0.5"),
            ("1", "1000m"),
            ("1Gi", "1024Mi"),
            ("2k", "2000"),
            ("1e3", "1k"),
        ] {
            assert!(same(one, other), "{one} {other}");
        }
        for (one, other) in [("500m", "0.6"), ("1Gi", "1G"), ("1", "1x"), ("x", "y")] {
            assert!(!same(one, other), "{one} {other}");
        }
        assert!(
            !holds(&json!({"tag": "1"}), &json!({"tag": "1.0"})),
            "no amount"
        );
    }

    #[test]
    fn a_field_that_is_wanted_no_more_changes_the_stamp() {
        let stamped = |mut object: Value| {
            stamp(&mut object);
            object
        };
        let before = stamped(json!({"metadata": {"annotations": {"a": "b"}}}));
        let after = stamped(json!({"metadata": {"annotations": {}}}));
        assert!(holds(&before, &before));
        assert!(!holds(&before, &after));
    }
}
