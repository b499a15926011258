//! Every rule that a `CustomResourceDefinition` states, read from its schema.

use std::fmt;

use serde_json::Value;

/// One step from an object to a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A named field.
    Field(String),
    /// Any item of a list.
    Item,
    /// Any value of a map with free keys.
    Entry,
}

/// Where in an object a rule applies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Path(pub(crate) Vec<Step>);

/// What a rule says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Constraint {
    Type(String),
    Required(String),
    Enum(Vec<String>),
    MinLength(usize),
    MaxLength(usize),
    Minimum(i64),
    Maximum(i64),
    MinItems(usize),
    MaxItems(usize),
    /// Items, or their keys, differ.
    Distinct,
    DateTime,
    Cel {
        rule: String,
        message: String,
    },
}

/// One thing that the API server checks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rule {
    pub(crate) path: Path,
    pub(crate) constraint: Constraint,
}

impl Rule {
    /// Whether the rule compares with the object as it was.
    pub(crate) fn is_transition(&self) -> bool {
        matches!(&self.constraint, Constraint::Cel { rule, .. } if rule.contains("oldSelf"))
    }
}

impl Path {
    pub(crate) fn then(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Field(name) if position == 0 => write!(f, "{name}")?,
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Item => write!(f, "[]")?,
                Step::Entry => write!(f, ".*")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Constraint::Cel { message, .. } = &self.constraint {
            return write!(f, "{} \"{message}\"", self.path);
        }
        write!(f, "{} {:?}", self.path, self.constraint)
    }
}

/// Every rule of a definition's one version.
pub(crate) fn of(definition: &Value) -> Vec<Rule> {
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let mut rules = Vec::new();
    // What is no object has no kind and never reaches the schema.
    walk(schema, &Path::default(), true, &mut rules);
    rules
}

/// Collects the rules of a value and its parts. `is_an_object`: another rule says so already.
fn walk(schema: &Value, path: &Path, is_an_object: bool, rules: &mut Vec<Rule>) {
    for (keyword, value) in schema.as_object().unwrap() {
        if keyword == "type" && (is_an_object || type_is_implied(schema)) {
            continue;
        }
        let constraints = constraints(keyword, value)
            .unwrap_or_else(|| panic!("{path}: no case knows {keyword}: {value}"));
        let rule = |constraint| Rule {
            path: path.clone(),
            constraint,
        };
        rules.extend(constraints.into_iter().map(rule));
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(
            property,
            &path.then(Step::Field(name.clone())),
            false,
            rules,
        );
    }
    if schema["additionalProperties"].is_object() {
        walk(
            &schema["additionalProperties"],
            &path.then(Step::Entry),
            false,
            rules,
        );
    }
    if schema["items"].is_object() && !is_conditions(path) {
        let have_keys = schema["x-kubernetes-list-type"] == "map";
        walk(&schema["items"], &path.then(Step::Item), have_keys, rules);
    }
}

/// The API server checks type and format in one, and what is no text is in no list of texts.
fn type_is_implied(schema: &Value) -> bool {
    schema["format"] == "date-time" || schema["enum"].is_array()
}

/// What one keyword demands; none if it is not known and so may be a rule.
fn constraints(keyword: &str, value: &Value) -> Option<Vec<Constraint>> {
    let size = || usize::try_from(value.as_u64()?).ok();
    // The limits of the schemas are whole numbers, which JSON may hold as floats.
    let number = || format!("{}", value.as_f64()?).parse().ok();
    let constraint = match keyword {
        "type" => Constraint::Type(text(value)),
        "required" => return Some(texts(value).into_iter().map(Constraint::Required).collect()),
        "enum" => Constraint::Enum(texts(value)),
        "minLength" => Constraint::MinLength(size()?),
        "maxLength" => Constraint::MaxLength(size()?),
        "minimum" => Constraint::Minimum(number()?),
        "maximum" => Constraint::Maximum(number()?),
        "minItems" => Constraint::MinItems(size()?),
        "maxItems" => Constraint::MaxItems(size()?),
        "format" if value == "date-time" => Constraint::DateTime,
        // Notes for client generators, which the API server does not check.
        "format" if value == "int32" || value == "int64" => return Some(vec![]),
        "x-kubernetes-list-type" if value == "atomic" => return Some(vec![]),
        "x-kubernetes-list-type" => Constraint::Distinct,
        "x-kubernetes-validations" => return Some(cel(value)),
        "description"
        | "title"
        | "default"
        | "properties"
        | "items"
        | "additionalProperties"
        | "x-kubernetes-list-map-keys"
        | "x-kubernetes-map-type"
        | "x-kubernetes-preserve-unknown-fields" => return Some(vec![]),
        _ => return None,
    };
    Some(vec![constraint])
}

fn cel(rules: &Value) -> Vec<Constraint> {
    let rules = rules.as_array().unwrap().iter();
    rules
        .map(|rule| Constraint::Cel {
            rule: text(&rule["rule"]),
            message: text(&rule["message"]),
        })
        .collect()
}

/// `metav1.Condition` is a type of Kubernetes; its rules are not ours to prove.
fn is_conditions(path: &Path) -> bool {
    path.to_string() == "status.conditions"
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(text).collect()
}
