//! How a valid object comes to break one rule, and what the API server says then.
//!
//! Rules of the schema language are broken mechanically; CEL rules have cases written by hand.

use serde_json::{Value, json};

use crate::rules::{Constraint, Path, Rule, Step};

/// An object that breaks one rule.
pub(crate) struct Violation {
    pub(crate) object: Value,
    /// The field that the refusal names, and what its message says.
    pub(crate) field: String,
    pub(crate) message: String,
}

/// A rule at its place in one object.
pub(crate) struct Place {
    /// JSON pointer to the value that the rule is about.
    pointer: String,
    /// The value's name in the API server's messages.
    pub(crate) field: String,
}

impl Place {
    /// Where the path leads to in `object`: into the first item of a list, the first entry of a map.
    /// None if it leads nowhere.
    pub(crate) fn find(path: &Path, object: &Value) -> Option<Self> {
        let (mut pointer, mut field) = (String::new(), String::new());
        for step in &path.0 {
            let name = match step {
                Step::Field(name) => name,
                Step::Item => "0",
                Step::Entry => object.pointer(&pointer)?.as_object()?.keys().next()?,
            };
            field = match step {
                Step::Item => format!("{field}[0]"),
                Step::Field(_) | Step::Entry if field.is_empty() => name.to_owned(),
                Step::Field(_) | Step::Entry => format!("{field}.{name}"),
            };
            pointer = format!("{pointer}/{name}");
        }
        object
            .pointer(&pointer)
            .is_some()
            .then_some(Self { pointer, field })
    }

    /// `object` with `change` merged into it at this place (RFC 7396: null deletes, what is no
    /// object replaces).
    pub(crate) fn merge(&self, object: &Value, change: &Value) -> Value {
        let mut object = object.clone();
        merge(object.pointer_mut(&self.pointer).unwrap(), change);
        object
    }

    fn value<'a>(&self, object: &'a Value) -> &'a Value {
        object.pointer(&self.pointer).unwrap()
    }
}

fn merge(target: &mut Value, change: &Value) {
    let Value::Object(change) = change else {
        *target = change.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let target = target.as_object_mut().unwrap();
    for (name, value) in change {
        if value.is_null() {
            target.remove(name);
        } else {
            merge(target.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

/// `valid` changed so that it breaks `rule`, for a rule of the schema language.
pub(crate) fn mechanical(rule: &Rule, place: &Place, valid: &Value) -> Option<Violation> {
    let value = place.value(valid);
    let field = &place.field;
    let at_place = |change: Value, message: String| Violation {
        object: place.merge(valid, &change),
        field: field.clone(),
        message,
    };
    Some(match &rule.constraint {
        Constraint::Cel { .. } => return None,
        Constraint::Type(name) => {
            let (wrong, is) = if name == "string" {
                (json!(7), "integer")
            } else {
                (json!("x"), "string")
            };
            at_place(wrong, format!("in body must be of type {name}: \"{is}\""))
        }
        Constraint::Required(name) => Violation {
            object: place.merge(valid, &json!({ name: null })),
            field: if field.is_empty() {
                name.clone()
            } else {
                format!("{field}.{name}")
            },
            message: "Required value".into(),
        },
        Constraint::Enum(names) => {
            let names = names
                .iter()
                .map(|name| format!("\"{name}\""))
                .collect::<Vec<_>>();
            let supported = format!("supported values: {}", names.join(", "));
            at_place(json!("Nonsense"), supported)
        }
        Constraint::MinLength(least) => at_place(
            sized(value, least - 1),
            format!("in body should be at least {least} chars long"),
        ),
        Constraint::MaxLength(most) => at_place(
            sized(value, most + 1),
            format!("Too long: may not be more than {most} bytes"),
        ),
        Constraint::Minimum(least) => at_place(
            json!(least - 1),
            format!("in body should be greater than or equal to {least}"),
        ),
        Constraint::Maximum(most) => at_place(
            json!(most + 1),
            format!("in body should be less than or equal to {most}"),
        ),
        Constraint::MinItems(least) => at_place(
            sized(value, least - 1),
            format!("in body should have at least {least} items"),
        ),
        Constraint::MaxItems(most) => at_place(
            sized(value, most + 1),
            format!("Too many: {}: must have at most {most} items", most + 1),
        ),
        Constraint::DateTime => at_place(
            json!("yesterday"),
            "in body must be of type date-time: \"yesterday\"".into(),
        ),
        Constraint::Distinct => {
            let items = value.as_array().unwrap();
            let twice = items
                .iter()
                .chain(items.first())
                .cloned()
                .collect::<Value>();
            Violation {
                object: place.merge(valid, &twice),
                field: format!("{field}[{}]", items.len()),
                message: "Duplicate value".into(),
            }
        }
    })
}

/// The object that goes to the limit of a rule and keeps it, for rules that have one.
pub(crate) fn at_the_limit(rule: &Rule, place: &Place, valid: &Value) -> Option<Value> {
    let limit = match &rule.constraint {
        Constraint::MinLength(size)
        | Constraint::MaxLength(size)
        | Constraint::MinItems(size)
        | Constraint::MaxItems(size) => sized(place.value(valid), *size),
        Constraint::Minimum(number) | Constraint::Maximum(number) => json!(number),
        Constraint::Type(_)
        | Constraint::Required(_)
        | Constraint::Enum(_)
        | Constraint::Distinct
        | Constraint::DateTime
        | Constraint::Cel { .. } => return None,
    };
    Some(place.merge(valid, &limit))
}

/// A text cut or drawn out to `size` by repeating it, a URL by repeating its host, a certificate
/// within its body, or a list of `size` different texts.
fn sized(value: &Value, size: usize) -> Value {
    if let Value::Array(items) = value {
        let first = items[0].as_str().unwrap();
        return (0..size).map(|number| format!("{first}{number}")).collect();
    }
    let text = value
        .as_str()
        .unwrap_or_else(|| panic!("{value} has no size"));
    if let Some((body, end)) = text.split_once("-----END") {
        let end = format!("-----END{end}");
        let body_size = size.saturating_sub(end.len());
        let body: String = body
            .chars()
            .chain(std::iter::repeat('A'))
            .take(body_size)
            .collect();
        return format!("{body}{end}").into();
    }
    let repeated = text.rsplit('/').next().unwrap_or_default();
    text.chars()
        .chain(repeated.chars().cycle())
        .take(size)
        .collect::<String>()
        .into()
}
