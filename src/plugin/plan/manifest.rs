//! A manifest, and the objects that there would be if it were applied.
//!
//! As `kubectl apply` does it: what the manifest says counts, what it said when it was last applied
//! and says no more goes, and what others added stays. The API server is asked to judge the result
//! without storing it; where a person may not write, its judgement is missing and the plan says so.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::api::v1alpha1::{
    ConditionType, DeviceRegistration, Enrollment, IoTHub, IoTHubStatus, Reason, ReprovisionTrigger,
};
use crate::cluster::apply::{ApplyError, bounded};
use crate::plugin::Failure;

/// Where `kubectl apply` keeps what it applied last.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const OURS: &str = "rehome.dev/v1alpha1";

/// Documents by namespace.
pub struct Manifest {
    documents: Vec<(String, Value)>,
    others: Vec<String>,
}

/// One object as it would be.
pub enum Change {
    /// A hub.
    Hub(Box<IoTHub>),
    /// An Enrollment.
    Enrollment(Box<Enrollment>),
    /// A trigger of the registration of that name.
    Trigger(String, ReprovisionTrigger),
}

/// What there would be.
#[derive(Default)]
pub struct Assumed {
    /// By namespace.
    pub changes: BTreeMap<String, Vec<Change>>,
    /// What changes, for people.
    pub described: Vec<String>,
    /// What is taken for granted.
    pub notes: Vec<String>,
}

impl Manifest {
    /// Reads a file, or standard input for `-`.
    pub fn read(file: &Path, namespace: &str) -> Result<Self, Failure> {
        let unreadable =
            |error| Failure::because(format!("manifest {} cannot be read", file.display()), error);
        let text = if file == Path::new("-") {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map(|_| text)
        } else {
            std::fs::read_to_string(file)
        };
        Self::parse(&text.map_err(unreadable)?, namespace)
    }

    /// Reads YAML or JSON; objects that name no namespace are in `namespace`.
    pub fn parse(text: &str, namespace: &str) -> Result<Self, Failure> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(text)
            .map_err(|error| Failure::because("the manifest is not YAML", error))?;
        let mut manifest = Self {
            documents: Vec::new(),
            others: Vec::new(),
        };
        for document in documents.into_iter().filter(|it| !it.is_null()) {
            match document["kind"].as_str() {
                Some("List") => {
                    let items = document["items"].as_array().cloned().unwrap_or_default();
                    items
                        .into_iter()
                        .try_for_each(|item| manifest.add(item, namespace))?;
                }
                _ => manifest.add(document, namespace)?,
            }
        }
        Ok(manifest)
    }

    fn add(&mut self, document: Value, namespace: &str) -> Result<(), Failure> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (kind, name) = (text(&document["kind"]), text(&document["metadata"]["name"]));
        if kind.is_empty() || name.is_empty() {
            return Err(Failure::new(
                "an object of the manifest has no kind or no metadata.name; kubectl apply would \
                 refuse it, too",
            ));
        }
        let version = document["apiVersion"].as_str().unwrap_or_default();
        if version != OURS {
            if version.starts_with("rehome.dev/") {
                return Err(Failure::new(format!(
                    "{kind} {name} is of {version}; this plugin knows {OURS}: use the plugin of \
                     your operator's version"
                )));
            }
            self.others.push(format!("{kind} {name}"));
            return Ok(());
        }
        let own = document["metadata"]["namespace"].as_str();
        let namespace = own.unwrap_or(namespace).to_owned();
        self.documents.push((namespace, document));
        Ok(())
    }

    /// The objects that there would be.
    pub async fn assume(self, client: &Client, now: Timestamp) -> Result<Assumed, Failure> {
        let mut assumed = Assumed::default();
        if !self.others.is_empty() {
            let others = self.others.join(", ");
            assumed.notes.push(format!("not looked at: {others}"));
        }
        for (namespace, document) in self.documents {
            let (change, existed) = assumed.one(client, &namespace, &document).await?;
            let change = match change {
                Change::Hub(hub) if !existed => {
                    let name = hub.name_any();
                    let note = format!("IoTHub {name} is new; it is assumed to become Ready");
                    assumed.notes.push(note);
                    Change::Hub(Box::new(ready(*hub, now)))
                }
                change @ (Change::Hub(_) | Change::Enrollment(_) | Change::Trigger(..)) => change,
            };
            assumed.changes.entry(namespace).or_default().push(change);
        }
        if assumed.changes.is_empty() {
            return Err(Failure::new("the manifest holds no object of rehome.dev"));
        }
        Ok(assumed)
    }
}

impl Assumed {
    /// One object as it would be, and whether it exists.
    async fn one(
        &mut self,
        client: &Client,
        namespace: &str,
        document: &Value,
    ) -> Result<(Change, bool), Failure> {
        let kind = document["kind"].as_str().unwrap_or_default().to_owned();
        let name = document["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let resource =
            ApiResource::from_gvk(&GroupVersionKind::gvk("rehome.dev", "v1alpha1", &kind));
        let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource);
        let found = bounded(api.get_opt(&name)).await.map_err(|error| {
            Failure::of_request("get", &resource.plural, Some(namespace), error)
        })?;
        let existed = found.is_some();
        let verb = if existed { "changed" } else { "new" };
        self.described
            .push(format!("{kind} {name} in namespace {namespace}: {verb}"));
        let wanted = match &found {
            Some(found) => merged(found, document)?,
            None => document.clone(),
        };
        let judged = self.judged(&api, &name, wanted, existed).await?;
        let change = match kind.as_str() {
            "IoTHub" => Change::Hub(Box::new(typed(judged, &kind)?)),
            "Enrollment" => Change::Enrollment(Box::new(typed(judged, &kind)?)),
            "DeviceRegistration" => {
                let registration: DeviceRegistration = typed(judged, &kind)?;
                let trigger = registration.spec.reprovision.ok_or_else(|| {
                    Failure::new(format!(
                        "DeviceRegistration {name} has no spec.reprovision; nothing else of it is \
                         for people to write"
                    ))
                })?;
                Change::Trigger(name, trigger)
            }
            _ => return Err(Failure::new(format!("rehome.dev has no kind {kind}"))),
        };
        Ok((change, existed))
    }

    /// The object as the API server would store it.
    async fn judged(
        &mut self,
        api: &Api<DynamicObject>,
        name: &str,
        mut wanted: Value,
        exists: bool,
    ) -> Result<Value, Failure> {
        if !exists {
            // Of a manifest without a status, uid or age, which a new object has none of.
            wanted["metadata"]["namespace"] = Value::Null;
        }
        let object: DynamicObject = typed(wanted.clone(), name)?;
        let dry_run = PostParams {
            dry_run: true,
            field_manager: Some("kubectl-rehome".to_owned()),
        };
        let answer = if exists {
            bounded(api.replace(name, &dry_run, &object)).await
        } else {
            bounded(api.create(&dry_run, &object)).await
        };
        let error = match answer {
            Ok(stored) => {
                return serde_json::to_value(stored)
                    .map_err(|error| Failure::because(format!("{name} cannot be read"), error));
            }
            Err(error) => error,
        };
        let Some(status) = refusal(&error) else {
            return Err(Failure::because(format!("{name} cannot be judged"), error));
        };
        if !status.is_forbidden() {
            let message = &status.message;
            return Err(Failure::new(format!(
                "kubectl apply would be refused: {message}"
            )));
        }
        self.notes.push(format!(
            "{name} was not judged by the API server, because you may not apply it: {}",
            status.message
        ));
        Ok(wanted)
    }
}

fn refusal(error: &ApplyError) -> Option<&kube::core::Status> {
    if let ApplyError::Api(error) = error
        && let kube::Error::Api(status) = error.as_ref()
    {
        Some(status)
    } else {
        None
    }
}

/// A new hub is assumed to become Ready. Its uid is nobody's.
fn ready(mut hub: IoTHub, now: Timestamp) -> IoTHub {
    hub.metadata.uid = Some(format!("planned {}", hub.name_any()));
    let condition = Condition {
        type_: ConditionType::Ready.as_str().to_owned(),
        status: "True".to_owned(),
        reason: Reason::Settled.as_str().to_owned(),
        message: "assumed".to_owned(),
        observed_generation: None,
        last_transition_time: Time(now),
    };
    hub.status = Some(IoTHubStatus {
        conditions: vec![condition],
        ..IoTHubStatus::default()
    });
    hub
}

fn typed<K: DeserializeOwned>(object: Value, what: &str) -> Result<K, Failure> {
    serde_json::from_value(object)
        .map_err(|error| Failure::because(format!("{what} of the manifest cannot be read"), error))
}

/// The object as `kubectl apply` would leave it.
fn merged(found: &DynamicObject, document: &Value) -> Result<Value, Failure> {
    let last: Value = match found.annotations().get(LAST_APPLIED) {
        Some(text) => serde_json::from_str(text).unwrap_or_default(),
        None => Value::Null,
    };
    let current = serde_json::to_value(found)
        .map_err(|error| Failure::because(format!("{} cannot be read", found.name_any()), error))?;
    Ok(three_way(&last, &current, document))
}

/// What is new counts; what was applied last and is not new goes; the rest stays.
fn three_way(last: &Value, current: &Value, new: &Value) -> Value {
    let (Value::Object(current), Value::Object(new)) = (current, new) else {
        return new.clone();
    };
    let nothing = Map::new();
    let last = last.as_object().unwrap_or(&nothing);
    let mut merged = current.clone();
    merged.retain(|key, _| new.contains_key(key) || !last.contains_key(key));
    for (key, value) in new {
        let was = last.get(key).unwrap_or(&Value::Null);
        let is = current.get(key).unwrap_or(&Value::Null);
        merged.insert(key.clone(), three_way(was, is, value));
    }
    merged.retain(|_, value| !value.is_null());
    json!(merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn applying_takes_away_what_it_gave_and_nothing_else() {
        let last = json!({ "spec": { "a": 1, "b": { "x": 1, "y": 2 }, "list": [1, 2] } });
        let current = json!({
            "spec": { "a": 1, "b": { "x": 1, "y": 2, "others": 3 }, "list": [1, 2], "theirs": true },
            "status": { "kept": true },
        });
        let new = json!({ "spec": { "b": { "x": 5 }, "list": [2] } });
        assert_eq!(
            three_way(&last, &current, &new),
            json!({
                "spec": { "b": { "x": 5, "others": 3 }, "list": [2], "theirs": true },
                "status": { "kept": true },
            })
        );
        // Never applied before: only what the manifest says changes.
        assert_eq!(
            three_way(&Value::Null, &json!({ "a": 1, "b": 2 }), &json!({ "b": 3 })),
            json!({ "a": 1, "b": 3 })
        );
    }

    #[test]
    fn a_manifest_is_sorted_into_ours_and_others() {
        let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: keys}\n---\n---\n\
            apiVersion: v1\nkind: List\nitems:\n\
            - {apiVersion: rehome.dev/v1alpha1, kind: IoTHub, metadata: {name: north, namespace: b}}\n\
            - {apiVersion: rehome.dev/v1alpha1, kind: Enrollment, metadata: {name: line-3}}\n";
        let manifest = Manifest::parse(text, "a").unwrap();
        assert_eq!(manifest.others, ["Secret keys"]);
        let namespaces: Vec<_> = manifest
            .documents
            .iter()
            .map(|(namespace, _)| namespace.as_str())
            .collect();
        assert_eq!(namespaces, ["b", "a"]);
        let newer = text.replace("rehome.dev/v1alpha1", "rehome.dev/v2");
        let failure = Manifest::parse(&newer, "a").err().unwrap();
        assert!(
            failure
                .whole()
                .contains("this plugin knows rehome.dev/v1alpha1"),
            "{}",
            failure.whole()
        );
        assert!(Manifest::parse("kind: IoTHub", "a").is_err());
    }
}
