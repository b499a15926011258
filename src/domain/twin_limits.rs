//! What a twin may hold, after Azure IoT Hub's page "Understand and use device twins".
//!
//! Checked on what a caller sends. The size of a section is checked on the result of a write, and
//! only where the write makes it larger: a section that is too large already can still shrink.

use serde_json::{Map, Value};

/// Most bytes of tags.
pub const TAGS_BYTES: usize = 8 * 1024;
/// Most bytes of desired, and of reported.
pub const PROPERTIES_BYTES: usize = 32 * 1024;
const KEY_BYTES: usize = 1024;
const STRING_BYTES: usize = 4096;
/// Objects and arrays inside one another, the section itself not counted.
const DEPTH: usize = 10;
const INTEGERS: std::ops::RangeInclusive<i64> = -(1 << 52)..=(1 << 52) - 1;

/// What breaks the rules, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidTwin(pub String);

/// Checks every key and value; `section` names the place in messages ("tags").
pub fn check(section: &str, values: &Map<String, Value>) -> Result<(), InvalidTwin> {
    check_object(section, values, 0)
}

fn check_object(path: &str, object: &Map<String, Value>, depth: usize) -> Result<(), InvalidTwin> {
    for (key, value) in object {
        check_key(path, key)?;
        check_value(&format!("{path}.{key}"), value, depth, true)?;
    }
    Ok(())
}

fn check_key(path: &str, key: &str) -> Result<(), InvalidTwin> {
    if key.is_empty() {
        return Err(InvalidTwin(format!("{path} has a key that is empty")));
    }
    if key.len() > KEY_BYTES {
        let start: String = key.chars().take(32).collect();
        let message = format!("the key '{start}…' in {path} is longer than {KEY_BYTES} bytes");
        return Err(InvalidTwin(message));
    }
    if key
        .chars()
        .any(|c| c.is_control() || matches!(c, '.' | '$' | '#' | ' '))
    {
        let message = format!(
            "the key {key:?} in {path} holds a control character, '.', '$', '#' or a space"
        );
        return Err(InvalidTwin(message));
    }
    Ok(())
}

fn check_value(
    path: &str,
    value: &Value,
    depth: usize,
    null_deletes: bool,
) -> Result<(), InvalidTwin> {
    match value {
        Value::Null if null_deletes => Ok(()),
        Value::Null => Err(InvalidTwin(format!("{path} is null inside an array"))),
        Value::Number(number) => match number.as_i64() {
            Some(integer) if INTEGERS.contains(&integer) => Ok(()),
            None if number.is_f64() => Ok(()),
            _ => Err(InvalidTwin(format!(
                "{path} is an integer outside {}…{}",
                INTEGERS.start(),
                INTEGERS.end()
            ))),
        },
        Value::String(text) if text.len() > STRING_BYTES => Err(InvalidTwin(format!(
            "{path} is a string longer than {STRING_BYTES} bytes"
        ))),
        Value::Bool(_) | Value::String(_) => Ok(()),
        Value::Array(_) | Value::Object(_) if depth == DEPTH => Err(InvalidTwin(format!(
            "{path} is nested deeper than {DEPTH} levels"
        ))),
        Value::Array(items) => items
            .iter()
            .try_for_each(|item| check_value(path, item, depth + 1, false)),
        Value::Object(object) if null_deletes => check_object(path, object, depth + 1),
        Value::Object(object) => object.iter().try_for_each(|(key, value)| {
            check_key(path, key)?;
            check_value(&format!("{path}.{key}"), value, depth + 1, false)
        }),
    }
}

/// Refuses a section that a write made larger than `limit`.
pub fn check_growth(
    section: &str,
    before: usize,
    after: &Map<String, Value>,
    limit: usize,
) -> Result<(), InvalidTwin> {
    let size = size(after);
    if size > limit && size > before {
        return Err(InvalidTwin(format!(
            "{section} would take {size} bytes, and the limit is {limit}"
        )));
    }
    Ok(())
}

/// The size that counts towards the limit of a section.
pub fn size(values: &Map<String, Value>) -> usize {
    values
        .iter()
        .map(|(key, value)| text_size(key) + value_size(value))
        .sum()
}

fn value_size(value: &Value) -> usize {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 4,
        Value::Number(_) => 8,
        Value::String(text) => text_size(text),
        Value::Array(items) => items.iter().map(value_size).sum(),
        Value::Object(object) => size(object),
    }
}

fn text_size(text: &str) -> usize {
    text.chars()
        .filter(|c| !c.is_control())
        .map(char::len_utf8)
        .sum()
}

/// Refuses integers too long for a machine word, which a JSON parser would silently round.
pub fn check_integers_fit(json: &[u8]) -> Result<(), InvalidTwin> {
    let (mut in_string, mut escaped) = (false, false);
    let mut digits = 0_usize;
    for (at, byte) in json.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'0'..=b'9' => digits += 1,
            b'.' | b'e' | b'E' if digits > 0 => digits = usize::MAX / 2,
            b'+' | b'-' if digits > 0 => {}
            _ => digits = 0,
        }
        let ends = !matches!(
            json.get(at + 1),
            Some(b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-')
        );
        if !in_string && ends && (17..usize::MAX / 2).contains(&digits) {
            return Err(InvalidTwin(format!(
                "an integer of {digits} digits is outside {}…{}",
                INTEGERS.start(),
                INTEGERS.end()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn nested(levels: usize, innermost: &Value) -> Value {
        (0..levels).fold(innermost.clone(), |inner, _| json!({ "a": inner }))
    }

    fn verdict(values: &Value) -> Result<(), String> {
        check("tags", values.as_object().unwrap()).map_err(|invalid| invalid.0)
    }

    #[test]
    fn what_a_twin_may_hold_passes() {
        for values in [
            json!({ "a": null, "b": true, "c": 1.5, "d": "x", "e": [1, ["y"], {}], "f": {} }),
            json!({ "low": -4_503_599_627_370_496_i64, "high": 4_503_599_627_370_495_i64 }),
            json!({ "large": 6.022e23, "text": "x".repeat(4096), "ключ": "значение" }),
            nested(11, &json!("a scalar in the tenth object")),
            json!({ "k".repeat(1024): 1 }),
        ] {
            assert_eq!(verdict(&values), Ok(()), "{values}");
        }
    }

    #[test]
    fn what_a_twin_must_not_hold_is_named() {
        for (values, complaint) in [
            (
                json!({ "a": { "b.c": 1 } }),
                "the key \"b.c\" in tags.a holds",
            ),
            (json!({ "a b": 1 }), "the key \"a b\" in tags"),
            (json!({ "$a": 1 }), "'$'"),
            (json!({ "a#": 1 }), "'#'"),
            (json!({ "a\u{85}": 1 }), "control character"),
            (json!({ "": 1 }), "empty"),
            (json!({ "k".repeat(1025): 1 }), "longer than 1024 bytes"),
            (json!({ "a": [1, null] }), "tags.a is null inside an array"),
            (
                json!({ "a": [{ "b": null }] }),
                "tags.a.b is null inside an array",
            ),
            (json!({ "a": 4_503_599_627_370_496_i64 }), "integer outside"),
            (json!({ "a": u64::MAX }), "integer outside"),
            (
                json!({ "a": "x".repeat(4097) }),
                "tags.a is a string longer than 4096 bytes",
            ),
            (nested(12, &json!(1)), "nested deeper than 10 levels"),
            (nested(11, &json!([])), "nested deeper than 10 levels"),
        ] {
            let message = verdict(&values).unwrap_err();
            assert!(message.contains(complaint), "{values} gave: {message}");
        }
    }

    #[test]
    fn sizes_are_counted_as_documented() {
        let values = json!({ "ab": "cde", "f": 1, "g": true, "h": { "i": [1, "\u{1}jk"] } });
        let expected = (2 + 3) + (1 + 8) + (1 + 4) + (1 + 1 + 8 + 2);
        assert_eq!(size(values.as_object().unwrap()), expected);
    }

    #[test]
    fn a_section_may_shrink_but_not_grow_above_its_limit() {
        let values = json!({ "a": "x".repeat(99) });
        let values = values.as_object().unwrap();
        assert!(check_growth("tags", 0, values, 100).is_ok());
        assert!(check_growth("tags", 0, values, 99).is_err());
        assert!(check_growth("tags", 101, values, 99).is_ok());
    }

    #[test]
    fn integers_that_would_be_rounded_are_refused() {
        for fine in [
            "1234567890123456",
            "1.2345678901234567890",
            "1e30",
            "12345678901234567890e-5",
            r#"{"a":"12345678901234567890","b\"12345678901234567890":1}"#,
        ] {
            assert!(check_integers_fit(fine.as_bytes()).is_ok(), "{fine}");
        }
        for wrong in [
            "123456789012345678901234",
            r#"{"a":[1,-99999999999999999999]}"#,
        ] {
            assert!(check_integers_fit(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
