//! The Secrets that hubs and Enrollments refer to: there, labelled, and not used for both. Their
//! content is not read.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Secret;
use kube::core::PartialObjectMeta;
use kube::{Api, ResourceExt as _};

use super::server::is_forbidden;
use super::{Check, Scope};
use crate::api::v1alpha1::{ATTESTATION_LABEL, Enrollment, IoTHub};
use crate::cluster::apply::{ApplyError, bounded};
use crate::plugin::Failure;

/// Looks at each Secret once, however many refer to it.
pub(super) async fn look(
    scope: &Scope<'_>,
    hubs: &[IoTHub],
    enrollments: &[Enrollment],
) -> Vec<Check> {
    let of_hubs: BTreeSet<&str> = hubs
        .iter()
        .filter_map(|hub| hub.spec.connection.as_ref())
        .map(|connection| connection.connection_string_secret_ref.name.as_str())
        .collect();
    // With one Enrollment that refers to it.
    let of_enrollments: BTreeMap<&str, String> = enrollments
        .iter()
        .filter_map(|one| Some((one.spec.attestation.secret()?, one.name_any())))
        .collect();
    let api: Api<Secret> = Api::namespaced(scope.client.clone(), scope.namespace);
    let names: BTreeSet<&str> = of_hubs
        .iter()
        .copied()
        .chain(of_enrollments.keys().copied())
        .collect();
    let mut checks = Vec::new();
    for name in names {
        let what = format!("Secret {name}");
        let enrollment = of_enrollments.get(name);
        checks.push(match bounded(api.get_metadata_opt(name)).await {
            Err(ApplyError::Api(error)) if is_forbidden(&error) => {
                let found =
                    "you may not read Secrets; the conditions above tell what the operator found";
                checks.push(Check::skipped("Secrets", found));
                return checks;
            }
            Err(error) => Check::skipped(what, Failure::because("cannot be read", error).whole()),
            Ok(None) => Check::failed(what, missing(enrollment)),
            Ok(Some(found)) => judge(what, &found, of_hubs.contains(name), enrollment),
        });
    }
    checks
}

fn missing(enrollment: Option<&String>) -> String {
    match enrollment {
        Some(enrollment) => {
            format!("missing, though Enrollment {enrollment} refers to it; create it")
        }
        None => "missing, though an IoTHub refers to it; create it".to_owned(),
    }
}

fn judge(
    what: String,
    found: &PartialObjectMeta<Secret>,
    of_hub: bool,
    enrollment: Option<&String>,
) -> Check {
    let label = found.labels().get(ATTESTATION_LABEL);
    let labelled = label.is_some_and(|value| value == "true");
    match enrollment {
        Some(enrollment) if of_hub => Check::failed(
            what,
            format!(
                "holds a hub's credentials and serves Enrollment {enrollment}, too; use two Secrets"
            ),
        ),
        Some(_) if !labelled => Check::failed(
            what,
            format!(
                "not labelled; kubectl label secret {} {ATTESTATION_LABEL}=true -n {}",
                found.name_any(),
                found.namespace().unwrap_or_default()
            ),
        ),
        Some(_) => Check::passed(what, "there, and labelled for attestation"),
        None if labelled => Check::warning(
            what,
            "holds a hub's credentials and is labelled for attestation; take the label away",
        ),
        None => Check::passed(what, "there"),
    }
}
