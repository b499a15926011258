//! The API server: its version and clock, the kinds that it serves, and what a person may do there.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::PostParams;
use kube::client::Body;
use kube::{Api, ResourceExt as _};
use serde_json::Value;

use super::{Check, Scope};
use crate::api::crds;
use crate::cluster::apply::{ApplyError, bounded};
use crate::plugin::Failure;

/// The oldest Kubernetes that the chart installs on: native sidecars are stable from there on.
const OLDEST: (u32, u32) = (1, 33);
/// Difference of the clocks that is worth a word: certificates and tokens have narrow edges.
const SKEW: SignedDuration = SignedDuration::from_secs(30);
/// From here on, tokens are refused.
const TOO_MUCH: SignedDuration = SignedDuration::from_mins(5);

/// Whether it answers, how old it is, and what it takes for the time.
pub(super) async fn look(scope: &Scope<'_>) -> Vec<Check> {
    let version = match scope.client.apiserver_version().await {
        Ok(version) => judge_version(&version.major, &version.minor, &version.git_version),
        Err(error) => {
            let found = Failure::because("the API server does not answer", error).whole();
            return vec![Check::failed("Kubernetes", found)];
        }
    };
    vec![version, clock(scope).await]
}

fn judge_version(major: &str, minor: &str, whole: &str) -> Check {
    // Some distributions write 33+.
    let number = |text: &str| text.trim_end_matches('+').parse::<u32>().ok();
    let what = "Kubernetes";
    match number(major).zip(number(minor)) {
        Some(version) if version >= OLDEST => Check::passed(what, whole),
        Some(_) => Check::failed(
            what,
            format!("{whole}: Rehome needs 1.33 or newer; upgrade the cluster"),
        ),
        None => Check::warning(
            what,
            format!("{whole}: not a version that can be compared with 1.33"),
        ),
    }
}

async fn clock(scope: &Scope<'_>) -> Check {
    let what = "clock";
    let Ok(request) = http::Request::get("/version").body(Body::empty()) else {
        return Check::skipped(what, "the request cannot be built");
    };
    let sent = scope.clock.monotonic();
    let response = scope.client.send(request).await;
    let took = scope.clock.monotonic().saturating_sub(sent);
    let date = response.ok().and_then(|response| {
        let date = response.headers().get(http::header::DATE)?;
        jiff::fmt::rfc2822::parse(date.to_str().ok()?).ok()
    });
    match date {
        Some(date) => judge_clock(date.timestamp(), scope.clock.now(), took),
        None => Check::skipped(what, "the API server does not tell the time"),
    }
}

/// The header is true to a second, and as old as the answer's way.
fn judge_clock(theirs: Timestamp, ours: Timestamp, took: Duration) -> Check {
    let slack = SignedDuration::from_secs(1) + took.try_into().unwrap_or(SignedDuration::ZERO);
    let skew = ours.duration_since(theirs).abs() - slack;
    let what = "clock";
    let seconds = ours.duration_since(theirs).as_secs();
    if skew > TOO_MUCH {
        Check::failed(
            what,
            format!(
                "this machine is {seconds} s ahead of the API server: tokens of that clock are refused; \
             set both clocks by NTP"
            ),
        )
    } else if skew > SKEW {
        Check::warning(
            what,
            format!("this machine is {seconds} s ahead of the API server; set both clocks by NTP"),
        )
    } else {
        Check::passed(what, "within 30 s of the API server's")
    }
}

/// Whether the kinds are served, as this version knows them.
pub(super) async fn kinds(scope: &Scope<'_>) -> Vec<Check> {
    let definitions: Api<CustomResourceDefinition> = Api::all(scope.client.clone());
    let mut checks = Vec::new();
    for wanted in crds::definitions() {
        let name = wanted.name_any();
        let what = format!("CRD {name}");
        checks.push(match bounded(definitions.get_opt(&name)).await {
            Ok(None) => Check::failed(
                what,
                "missing; install the chart, or kubectl apply -f crds/",
            ),
            Ok(Some(found)) => compare(what, &wanted, &found),
            Err(ApplyError::Api(error)) if is_forbidden(&error) => {
                served(scope, what, &wanted).await
            }
            Err(error) => Check::skipped(what, Failure::because("cannot be read", error).whole()),
        });
    }
    checks
}

/// Everybody may ask which kinds are served, if not how they are defined.
async fn served(scope: &Scope<'_>, what: String, wanted: &CustomResourceDefinition) -> Check {
    let names = &wanted.spec.names;
    match scope
        .client
        .list_api_group_resources("rehome.dev/v1alpha1")
        .await
    {
        Ok(served) if served.resources.iter().any(|one| one.name == names.plural) => Check::passed(
            what,
            "served; you may not read CRDs, so whether it is this version's was not looked at",
        ),
        Ok(_) => Check::failed(what, "not served; install the chart"),
        Err(kube::Error::Api(status)) if status.is_not_found() => {
            Check::failed(what, "rehome.dev/v1alpha1 is not served; install the chart")
        }
        Err(error) => Check::skipped(what, Failure::because("cannot be asked for", error).whole()),
    }
}

fn compare(
    what: String,
    wanted: &CustomResourceDefinition,
    found: &CustomResourceDefinition,
) -> Check {
    let json = |crd: &CustomResourceDefinition| serde_json::to_value(&crd.spec).unwrap_or_default();
    match first_difference(&json(wanted), &json(found), String::new()) {
        None => Check::passed(
            what,
            concat!("as version ", env!("CARGO_PKG_VERSION"), " defines it"),
        ),
        Some(place) => Check::failed(
            what,
            format!(
                "not as version {} defines it (spec{place}): upgrade the CRDs (kubectl apply \
                 --server-side -f crds/), or use the plugin of your operator's version",
                env!("CARGO_PKG_VERSION")
            ),
        ),
    }
}

/// Where something wanted is missing or different; what the API server adds does not count.
fn first_difference(wanted: &Value, found: &Value, place: String) -> Option<String> {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => wanted.iter().find_map(|(key, wanted)| {
            let found = found.get(key).unwrap_or(&Value::Null);
            first_difference(wanted, found, format!("{place}.{key}"))
        }),
        (Value::Array(wanted), Value::Array(found)) if wanted.len() == found.len() => {
            let pairs = wanted.iter().zip(found).enumerate();
            pairs.into_iter().find_map(|(at, (wanted, found))| {
                first_difference(wanted, found, format!("{place}[{at}]"))
            })
        }
        _ => (wanted != found).then_some(place),
    }
}

/// What a person needs rights for: verb, group, resource, and which commands use it.
const USES: [(&str, &str, &str, &str); 6] = [
    ("list", "rehome.dev", "iothubs", "status, explain, plan"),
    ("list", "rehome.dev", "enrollments", "status, explain, plan"),
    ("list", "rehome.dev", "deviceregistrations", "status, plan"),
    ("patch", "rehome.dev", "deviceregistrations", "reprovision"),
    ("list", "", "events", "the history of explain"),
    ("get", "", "secrets", "device-key, and the Secrets of check"),
];

/// What whoever asks may do.
pub(super) async fn rights(scope: &Scope<'_>) -> Vec<Check> {
    let mut checks = Vec::new();
    for (verb, group, resource, used_by) in USES {
        checks.push(right(scope, scope.namespace, verb, group, resource, used_by).await);
    }
    checks.push(right(scope, scope.operator, "get", "", "pods/log", "logs").await);
    checks
}

async fn right(
    scope: &Scope<'_>,
    namespace: &str,
    verb: &str,
    group: &str,
    resource: &str,
    used_by: &str,
) -> Check {
    let what = format!("you may {verb} {resource} in {namespace}");
    let (resource, subresource) = match resource.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
        None => (resource, None),
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                namespace: Some(namespace.to_owned()),
                verb: Some(verb.to_owned()),
                group: Some(group.to_owned()),
                resource: Some(resource.to_owned()),
                subresource,
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(scope.client.clone());
    match bounded(reviews.create(&PostParams::default(), &review)).await {
        Ok(answer) if answer.status.as_ref().is_some_and(|status| status.allowed) => {
            Check::passed(what, format!("for {used_by}"))
        }
        // Whoever only looks is not to have them all.
        Ok(_) => Check::warning(
            what,
            format!("no: not for you are {used_by}; ask for the role view or edit"),
        ),
        Err(error) => Check::skipped(what, Failure::because("cannot be asked", error).whole()),
    }
}

pub(super) fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_forbidden())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Verdict;
    use super::*;

    #[test]
    fn versions_are_numbers_not_texts() {
        let verdict = |major, minor| judge_version(major, minor, "v").verdict;
        assert_eq!(verdict("1", "33"), Verdict::Passed);
        assert_eq!(verdict("1", "34+"), Verdict::Passed);
        assert_eq!(verdict("1", "4"), Verdict::Failed);
        assert_eq!(verdict("1", "32"), Verdict::Failed);
        assert_eq!(verdict("one", "33"), Verdict::Warning);
    }

    #[test]
    fn a_clock_counts_beyond_what_the_header_cannot_tell() {
        let then = Timestamp::UNIX_EPOCH;
        let verdict = |seconds, took| {
            let ours = then + SignedDuration::from_secs(seconds);
            judge_clock(then, ours, Duration::from_secs(took)).verdict
        };
        assert_eq!(verdict(31, 0), Verdict::Passed);
        assert_eq!(verdict(32, 0), Verdict::Warning);
        assert_eq!(verdict(32, 5), Verdict::Passed);
        assert_eq!(verdict(-32, 0), Verdict::Warning);
        assert_eq!(verdict(302, 0), Verdict::Failed);
    }

    #[test]
    fn what_the_api_server_adds_is_no_difference() {
        let wanted = json!({ "names": { "kind": "X" }, "versions": [{ "schema": { "a": 1 } }] });
        let mut found = json!({
            "names": { "kind": "X", "listKind": "XList" }, "conversion": {},
            "versions": [{ "schema": { "a": 1 } }],
        });
        assert_eq!(first_difference(&wanted, &found, String::new()), None);
        found["versions"][0]["schema"]["a"] = json!(2);
        let place = first_difference(&wanted, &found, String::new());
        assert_eq!(place.as_deref(), Some(".versions[0].schema.a"));
        found["versions"] = json!([]);
        assert!(first_difference(&wanted, &found, String::new()).is_some());
    }
}
