//! Whether a device meets a condition. What a device does not have is undefined: a comparison
//! with it is neither true nor false, and only devices for which the whole is true are found.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::parse::{Comparison, Condition, Operand};
use crate::hub::Hub;
use crate::hub::record::Record;
use crate::hub::view;

/// One device or module.
pub(super) struct Row<'a> {
    hub: &'a Hub,
    device: &'a str,
    module: Option<&'a str>,
    record: &'a Record,
    /// All that a service sees, made when first needed: most queries ask for less.
    twin: OnceCell<Value>,
}

impl<'a> Row<'a> {
    /// The row at `device` or `device/module`.
    pub(super) fn new(hub: &'a Hub, position: &'a str, record: &'a Record) -> Self {
        let (device, module) = match position.split_once('/') {
            Some((device, module)) => (device, Some(module)),
            None => (position, None),
        };
        Self {
            hub,
            device,
            module,
            record,
            twin: OnceCell::new(),
        }
    }

    pub(super) fn twin(&self) -> Value {
        match self.module {
            None => view::twin(self.hub, self.device, self.record),
            Some(module) => {
                view::module_twin(self.hub, self.device, module, self.record).unwrap_or_default()
            }
        }
    }

    pub(super) fn meets(&self, condition: Option<&Condition>) -> bool {
        condition.is_none_or(|condition| self.test(condition) == Some(true))
    }

    pub(super) fn value(&self, path: &[String]) -> Option<Cow<'_, Value>> {
        let identity = &self.record.identity;
        let twin = self.record.party(self.module)?.twin;
        let steps: Vec<&str> = path.iter().map(String::as_str).collect();
        match steps.as_slice() {
            ["deviceId"] => Some(Cow::Owned(self.device.into())),
            ["status"] => Some(Cow::Owned(view::status(identity).into())),
            ["tags", first, rest @ ..] => walk(&twin.tags, first, rest),
            ["properties", "desired", first, rest @ ..] if !first.starts_with('$') => {
                walk(&twin.desired.values, first, rest)
            }
            ["properties", "reported", first, rest @ ..] if !first.starts_with('$') => {
                walk(&twin.reported.values, first, rest)
            }
            [first, rest @ ..] => {
                let twin = self.twin.get_or_init(|| self.twin());
                walk(twin.as_object()?, first, rest)
            }
            [] => None,
        }
    }

    fn test(&self, condition: &Condition) -> Option<bool> {
        match condition {
            Condition::Or(left, right) => match (self.test(left), self.test(right)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
            Condition::And(left, right) => match (self.test(left), self.test(right)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Condition::Not(inner) => self.test(inner).map(|met| !met),
            Condition::IsDefined(path) => Some(self.value(path).is_some()),
            Condition::StartsWith(path, prefix) => self
                .value(path)?
                .as_str()
                .map(|text| text.starts_with(prefix)),
            Condition::Compare(left, comparison, right) => {
                compare(&*self.operand(left)?, *comparison, &*self.operand(right)?)
            }
            Condition::In {
                path,
                values,
                negated,
            } => {
                let found = self.value(path)?;
                Some(values.iter().any(|value| is_equal(&found, value)) != *negated)
            }
        }
    }

    fn operand<'b>(&'b self, operand: &'b Operand) -> Option<Cow<'b, Value>> {
        match operand {
            Operand::Literal(value) => Some(Cow::Borrowed(value)),
            Operand::Path(path) => self.value(path),
        }
    }
}

fn walk<'a>(root: &'a Map<String, Value>, first: &str, rest: &[&str]) -> Option<Cow<'a, Value>> {
    rest.iter()
        .try_fold(root.get(first)?, |value, step| value.get(step))
        .map(Cow::Borrowed)
}

fn compare(left: &Value, comparison: Comparison, right: &Value) -> Option<bool> {
    match comparison {
        Comparison::Equal => Some(is_equal(left, right)),
        Comparison::NotEqual => Some(!is_equal(left, right)),
        Comparison::Less => order(left, right).map(Ordering::is_lt),
        Comparison::Greater => order(left, right).map(Ordering::is_gt),
        Comparison::LessOrEqual => order(left, right).map(Ordering::is_le),
        Comparison::GreaterOrEqual => order(left, right).map(Ordering::is_ge),
    }
}

/// Numbers by value: 1 is 1.0.
fn is_equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(_), Value::Number(_)) => order(left, right) == Some(Ordering::Equal),
        _ => left == right,
    }
}

fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => match (left.as_i64(), right.as_i64()) {
            (Some(left), Some(right)) => Some(left.cmp(&right)),
            _ => left.as_f64()?.partial_cmp(&right.as_f64()?),
        },
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        _ => None,
    }
}
