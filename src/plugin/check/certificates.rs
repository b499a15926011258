//! When certificates end: those of Enrollments, of hubs' authorities, and of the gateway.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use x509_parser::pem::Pem;

use super::{Check, Scope};
use crate::api::v1alpha1::{CertificateStatus, Enrollment, IoTHub};
use crate::cluster::apply::bounded;
use crate::domain::attestation::x509::X509;
use crate::plugin::Failure;
use crate::plugin::logs::OPERATOR;
use crate::plugin::screen::lasting;

/// Time to have a certificate renewed without haste.
const SOON: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Certificates of devices and of the authorities that issue them.
pub(super) fn of_enrollments(enrollments: &[Enrollment], now: Timestamp) -> Vec<Check> {
    let mut checks = Vec::new();
    for enrollment in enrollments {
        let Some(spec) = &enrollment.spec.attestation.x509 else {
            continue;
        };
        // Certificates that cannot be read are in the Enrollment's conditions.
        let read = X509::read(spec, &enrollment.uid().unwrap_or_default());
        let described = read.map(|it| it.describe()).unwrap_or_default();
        checks.extend(described.iter().filter_map(|one| {
            let what = format!(
                "Enrollment {}, certificate {}",
                enrollment.name_any(),
                one.name
            );
            Some(expiry(what, end_of(one)?, now))
        }));
    }
    // A namespace may have an Enrollment for each device: those that are well are one line.
    let well = checks
        .iter()
        .filter(|check| check.verdict == super::Verdict::Passed)
        .count();
    if well > 5 {
        checks.retain(|check| check.verdict != super::Verdict::Passed);
        checks.push(Check::passed(
            "certificates of Enrollments",
            format!("{well} end in more than 30 days"),
        ));
    }
    checks
}

fn end_of(certificate: &CertificateStatus) -> Option<Timestamp> {
    certificate.not_after.parse().ok()
}

/// Authorities that hubs' certificates must chain to.
pub(super) fn of_hubs(hubs: &[IoTHub], now: Timestamp) -> Vec<Check> {
    let mut checks = Vec::new();
    for hub in hubs {
        let connection = hub.spec.connection.as_ref();
        let Some(bundle) = connection.and_then(|connection| connection.ca_bundle.as_ref()) else {
            continue;
        };
        let what = format!("IoTHub {}, caBundle", hub.name_any());
        // Any of them may be the one that counts: the last to end decides.
        match ends(bundle.as_bytes()).into_iter().max() {
            Some(end) => checks.push(expiry(what, end, now)),
            None => checks.push(Check::failed(what, "holds no certificate that can be read")),
        }
    }
    checks
}

/// What devices are shown.
pub(super) async fn of_gateway(scope: &Scope<'_>) -> Vec<Check> {
    let what = "certificate of the gateway";
    match tls_secrets(scope).await {
        Err(failure) => vec![Check::skipped(what, failure.whole())],
        Ok(names) if names.is_empty() => vec![Check::skipped(
            what,
            format!(
                "no Deployment {OPERATOR} in namespace {}; give --operator-namespace",
                scope.operator
            ),
        )],
        Ok(names) => {
            let mut checks = Vec::new();
            for name in names {
                checks.push(of_secret(scope, &name).await);
            }
            checks
        }
    }
}

/// Secrets that the operator's Deployments mount as `tls`.
async fn tls_secrets(scope: &Scope<'_>) -> Result<Vec<String>, Failure> {
    let api: Api<Deployment> = Api::namespaced(scope.client.clone(), scope.operator);
    let ours = ListParams::default().labels(OPERATOR);
    let failed = |error| Failure::of_request("list", "deployments", Some(scope.operator), error);
    let found = bounded(api.list(&ours)).await.map_err(failed)?;
    let pods = found
        .items
        .into_iter()
        .filter_map(|one| one.spec?.template.spec);
    let volumes = pods.flat_map(|pod| pod.volumes.unwrap_or_default());
    let secrets = volumes
        .filter(|volume| volume.name == "tls")
        .filter_map(|volume| volume.secret);
    let mut names: Vec<String> = secrets.filter_map(|secret| secret.secret_name).collect();
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

async fn of_secret(scope: &Scope<'_>, name: &str) -> Check {
    let what = format!("certificate of the gateway (Secret {name})");
    let api: Api<Secret> = Api::namespaced(scope.client.clone(), scope.operator);
    let failed = |error| Failure::of_request("get", "secrets", Some(scope.operator), error);
    match bounded(api.get_opt(name)).await.map_err(failed) {
        Err(failure) => Check::skipped(what, failure.whole()),
        Ok(None) => Check::failed(what, "missing; the gateway cannot start without it"),
        Ok(Some(secret)) => {
            let certificate = secret.data.and_then(|mut data| data.remove("tls.crt"));
            // The first one is the gateway's; it is good as long as the whole chain is.
            match certificate.and_then(|chain| ends(&chain.0).into_iter().min()) {
                Some(end) => expiry(what, end, scope.clock.now()),
                None => Check::failed(what, "tls.crt holds no certificate that can be read"),
            }
        }
    }
}

/// When the certificates of a PEM file end.
fn ends(pem: &[u8]) -> Vec<Timestamp> {
    let blocks = Pem::iter_from_buffer(pem).filter_map(Result::ok);
    blocks
        .filter_map(|block| {
            let certificate = block.parse_x509().ok()?;
            Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
        })
        .collect()
}

fn expiry(what: String, end: Timestamp, now: Timestamp) -> Check {
    let left = end.duration_since(now);
    if !left.is_positive() {
        Check::failed(
            what,
            format!("ended {} ago, on {end}; renew it", lasting(-left)),
        )
    } else if left < SOON {
        Check::warning(
            what,
            format!("ends in {}, on {end}; renew it", lasting(left)),
        )
    } else {
        Check::passed(what, format!("ends on {end}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn an_end_is_told_before_it_comes() {
        let now = Timestamp::UNIX_EPOCH;
        let verdict = |hours| {
            let end = now + SignedDuration::from_hours(hours);
            expiry("it".to_owned(), end, now).verdict
        };
        assert_eq!(verdict(-1), Verdict::Failed);
        assert_eq!(verdict(0), Verdict::Failed);
        assert_eq!(verdict(1), Verdict::Warning);
        assert_eq!(verdict(30 * 24), Verdict::Passed);
    }

    #[test]
    fn the_end_of_each_certificate_of_a_file_is_read() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = |year| {
            let mut parameters = rcgen::CertificateParams::new(vec!["gateway".to_owned()]).unwrap();
            parameters.not_after = rcgen::date_time_ymd(year, 5, 4);
            parameters.self_signed(&key).unwrap().pem()
        };
        let file = certificate(2031) + &certificate(2027);
        let ends: Vec<_> = ends(file.as_bytes())
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(ends, ["2031-05-04T00:00:00Z", "2027-05-04T00:00:00Z"]);
        assert!(super::ends(b"no certificate").is_empty());
    }
}
