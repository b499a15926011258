//! Hubs and Enrollments, as the operator found them.

use jiff::Timestamp;
use kube::ResourceExt as _;

use super::Check;
use crate::api::v1alpha1::{Enrollment, IoTHub};
use crate::plugin::finding::{Finding, Standing};

/// Whether each hub can be reached, and each Enrollment be used.
pub(super) fn look(hubs: &[IoTHub], enrollments: &[Enrollment], now: Timestamp) -> Vec<Check> {
    let mut checks = Vec::new();
    if hubs.is_empty() {
        checks.push(Check::warning(
            "hubs",
            "none in this namespace: devices have nowhere to live",
        ));
    }
    checks.extend(hubs.iter().map(|hub| {
        let what = format!("IoTHub {} ({})", hub.name_any(), hub.spec.host_name);
        judge(what, &Finding::of_hub(hub, now))
    }));
    if enrollments.is_empty() {
        checks.push(Check::warning(
            "Enrollments",
            "none in this namespace: no device may register",
        ));
    }
    // A namespace may have an Enrollment for each device: those that are well are one line.
    let findings = enrollments
        .iter()
        .map(|one| Finding::of_enrollment(one, now));
    let (well, others): (Vec<_>, Vec<_>) =
        findings.partition(|finding| finding.standing == Standing::Fine);
    if !well.is_empty() {
        checks.push(Check::passed(
            "Enrollments",
            format!("{} are Ready", well.len()),
        ));
    }
    checks.extend(
        others
            .iter()
            .map(|finding| judge(format!("Enrollment {}", finding.name), finding)),
    );
    checks
}

fn judge(what: String, finding: &Finding) -> Check {
    match finding.standing {
        Standing::Fine => Check::passed(what, &finding.cause),
        Standing::Disabled => Check::warning(what, &finding.cause),
        Standing::Working => Check::warning(what, format!("{}: {}", finding.reason, finding.cause)),
        Standing::Stuck => Check::failed(
            what,
            format!(
                "{}: {}; next: {}",
                finding.reason, finding.cause, finding.next
            ),
        ),
    }
}
