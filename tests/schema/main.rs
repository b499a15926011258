//! Every rule of the three schemas has a manifest that only it refuses, tried on the API server.
//!
//! The rules are read from the generated definitions, so that a rule without a case fails.

#![cfg(test)]

mod rules;
mod violation;

use kube::Api;
use kube::api::{DynamicObject, PostParams};
use kube::core::{ApiResource, Status};
use rehome::api::crds;
use rehome_testing::{Cluster, Namespace, show};
use serde::Deserialize;
use serde_json::{Value, json};

use rules::{Constraint, Rule, Step};
use violation::{Place, Violation, at_the_limit, mechanical};

/// Valid objects with every field between those of one kind.
const BASES: &str = include_str!("bases.yaml");

/// What CEL rules refuse, by hand.
const CASES: &str = include_str!("cases.yaml");

/// The API server adds this where what is refused keeps it from trying CEL rules.
const NOT_ALL_CHECKED: &str =
    "some validation rules were not checked because the object was invalid";

/// Manifests for one CEL rule.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// Name of the valid object that is changed.
    base: String,
    /// Path of the rule, as in `spec.allocation.hubs`.
    at: String,
    /// The rule's message.
    message: String,
    /// Changes that are refused, each merged into the base at the path.
    refused: Vec<Value>,
    /// Changes that are accepted.
    #[serde(default)]
    accepted: Vec<Value>,
}

/// A valid object that exists on the API server.
struct Base {
    kind: String,
    object: Value,
    api: Api<DynamicObject>,
}

impl Base {
    /// Creates the object with its status.
    async fn create(object: Value, namespace: &Namespace, client: &kube::Client) -> Self {
        let kind = object["kind"].as_str().unwrap().to_owned();
        let resource = resource(&kind);
        let api = Api::namespaced_with(client.clone(), namespace.name(), &resource);
        let base = Self { kind, object, api };
        let post = PostParams::default();
        let created = base
            .api
            .create(&post, &base.dynamic(&base.object))
            .await
            .unwrap();
        let mut with_status = base.object.clone();
        with_status["metadata"] = serde_json::to_value(&created.metadata).unwrap();
        let with_status = base.dynamic(&with_status);
        let written = base
            .api
            .replace_status(base.name(), &post, &with_status)
            .await;
        let object = serde_json::to_value(written.unwrap()).unwrap();
        assert_eq!(
            object["spec"], base.object["spec"],
            "the API server drops what it does not know"
        );
        let unobserved = json!({ "observedGeneration": -1 });
        let status = base.object.get("status").unwrap_or(&unobserved);
        assert_eq!(&object["status"], status);
        Self { object, ..base }
    }

    fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap()
    }

    fn dynamic(&self, object: &Value) -> DynamicObject {
        serde_json::from_value(object.clone()).unwrap()
    }

    /// Tries the changed object without keeping it: rules on the status against the status
    /// subresource, rules that compare as an update, the others as a new object.
    async fn attempt(&self, rule: &Rule, object: &Value) -> Result<(), Box<Status>> {
        let dry_run = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let mut object = self.dynamic(object);
        let result = if rule.path.0.first() == Some(&Step::Field("status".into())) {
            self.api
                .replace_status(self.name(), &dry_run, &object)
                .await
        } else if rule.is_transition() {
            self.api.replace(self.name(), &dry_run, &object).await
        } else {
            object.metadata = kube::core::ObjectMeta::default();
            object.metadata.name = Some("tried".into());
            self.api.create(&dry_run, &object).await
        };
        match result {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) => Err(status),
            Err(other) => panic!("{}: {rule}: {other}", self.kind),
        }
    }

    async fn expect_accepted(&self, rule: &Rule, object: &Value, report: &mut Report) {
        match self.attempt(rule, object).await {
            Ok(()) => report.accepted += 1,
            Err(status) => report.problem(rule, &format!("refused: {}", status.message)),
        }
    }

    async fn expect_refused(&self, rule: &Rule, violation: &Violation, report: &mut Report) {
        let Violation {
            object,
            field,
            message,
        } = violation;
        let Err(status) = self.attempt(rule, object).await else {
            return report.problem(rule, &format!("accepted: {}", object["spec"]));
        };
        let causes = status
            .details
            .as_ref()
            .map_or(&[][..], |details| &details.causes);
        let seen: Vec<_> = causes
            .iter()
            .filter(|cause| !cause.message.contains(NOT_ALL_CHECKED))
            .collect();
        match &seen[..] {
            [cause] if cause.field == *field && cause.message.contains(message) => {
                report.refused += 1;
            }
            _ => report.problem(
                rule,
                &format!("expected only {field}: {message}; got {seen:#?}"),
            ),
        }
    }
}

/// What was tried.
#[derive(Default)]
struct Report {
    rules: usize,
    refused: usize,
    accepted: usize,
    problems: Vec<String>,
}

impl Report {
    fn problem(&mut self, rule: &Rule, what: &str) {
        self.problems.push(format!("{rule}: {what}"));
    }
}

fn resource(kind: &str) -> ApiResource {
    let definition = crds::definitions()
        .into_iter()
        .find(|crd| crd.spec.names.kind == kind);
    let names = definition.unwrap().spec.names;
    let kind = kube::core::GroupVersionKind::gvk("rehome.dev", "v1alpha1", &names.kind);
    ApiResource::from_gvk_with_plural(&kind, &names.plural)
}

#[tokio::test]
async fn every_rule_refuses_a_manifest_that_nothing_else_refuses() {
    let cluster = Cluster::private().await.unwrap();
    for file in crds::files().unwrap() {
        cluster.apply(&file.text).await.unwrap();
    }
    let namespace = cluster.namespace("schema").await.unwrap();
    let mut bases = Vec::new();
    for object in serde_saphyr::from_multiple::<Value>(BASES).unwrap() {
        bases.push(Base::create(object, &namespace, cluster.client()).await);
    }
    let mut cases: Vec<Case> = serde_saphyr::from_str(CASES).unwrap();
    let mut report = Report::default();
    for definition in crds::definitions() {
        let kind = definition.spec.names.kind.clone();
        for rule in rules::of(&json!(definition)) {
            report.rules += 1;
            if let Constraint::Cel { message, .. } = &rule.constraint {
                let cases = take(&mut cases, &kind, &rule, message, &bases);
                try_by_hand(&rule, &bases, &cases, &mut report).await;
            } else {
                try_mechanically(&kind, &rule, &bases, &mut report).await;
            }
        }
    }
    for case in cases {
        report.problems.push(format!(
            "no rule for the case {} \"{}\"",
            case.at, case.message
        ));
    }
    let Report {
        rules,
        refused,
        accepted,
        problems,
    } = report;
    assert!(
        problems.is_empty(),
        "{} problems\n{}",
        problems.len(),
        problems.join("\n")
    );
    show(format_args!(
        "{rules} rules: {refused} manifests refused, each by one; {accepted} accepted"
    ));
}

/// The cases of a CEL rule.
fn take(
    cases: &mut Vec<Case>,
    kind: &str,
    rule: &Rule,
    message: &str,
    bases: &[Base],
) -> Vec<Case> {
    let of_this_rule = |case: &mut Case| {
        let base = bases.iter().find(|base| base.name() == case.base);
        base.is_some_and(|base| base.kind == kind)
            && case.at == rule.path.to_string()
            && case.message == message
    };
    cases.extract_if(.., of_this_rule).collect()
}

async fn try_by_hand(rule: &Rule, bases: &[Base], cases: &[Case], report: &mut Report) {
    if cases.iter().all(|case| case.refused.is_empty()) {
        report.problem(rule, "no case");
    }
    for case in cases {
        let base = bases.iter().find(|base| base.name() == case.base).unwrap();
        let Some(place) = Place::find(&rule.path, &base.object) else {
            report.problem(rule, &format!("{} has no such field", case.base));
            continue;
        };
        for change in &case.refused {
            let violation = Violation {
                object: place.merge(&base.object, change),
                field: place.field.clone(),
                message: case.message.clone(),
            };
            base.expect_refused(rule, &violation, report).await;
        }
        for change in &case.accepted {
            base.expect_accepted(rule, &place.merge(&base.object, change), report)
                .await;
        }
    }
}

async fn try_mechanically(kind: &str, rule: &Rule, bases: &[Base], report: &mut Report) {
    let mut of_this_kind = bases.iter().filter(|base| base.kind == kind);
    let place = of_this_kind.find_map(|base| Some((base, Place::find(&rule.path, &base.object)?)));
    let Some((base, place)) = place else {
        return report.problem(rule, "no base has such a field");
    };
    let violation = mechanical(rule, &place, &base.object).unwrap();
    base.expect_refused(rule, &violation, report).await;
    if let Some(limit) = at_the_limit(rule, &place, &base.object) {
        base.expect_accepted(rule, &limit, report).await;
    }
}
