//! What Argo CD, Flux and kstatus make of the kinds of Rehome: by the health checks that are shipped, and
//! with their own engines.

#![cfg(test)]

use kube::ResourceExt as _;
use rehome::api::v1alpha1::Reason;
use rehome_testing::Cluster;
use rehome_testing::health::{Judgement, judge};
use serde_json::{Value, json};

const KINDS: [&str; 3] = ["IoTHub", "Enrollment", "DeviceRegistration"];

/// Type, status and reason.
type Condition = (&'static str, &'static str, Reason);

/// An object of which the operator has seen `observed` and found that.
fn object(kind: &str, observed: i64, conditions: &[Condition]) -> Value {
    let conditions = conditions.iter().map(|(type_, status, reason)| {
        json!({
            "type": type_, "status": status, "reason": reason.as_str(), "message": "why it is so",
            "lastTransitionTime": "2026-05-04T12:00:00Z",
        })
    });
    json!({
        "apiVersion": "rehome.dev/v1alpha1", "kind": kind,
        "metadata": { "name": "one", "namespace": "plant", "generation": 2 },
        "spec": {},
        "status": {
            "observedGeneration": observed, "conditions": conditions.collect::<Vec<_>>(),
        },
    })
}

/// Argo CD, Flux and kstatus.
fn verdict(judged: &Judgement) -> [&str; 3] {
    [&judged.argocd.status, &judged.flux, &judged.kstatus]
}

#[test]
fn every_kind_is_judged_by_its_conditions() {
    let ready = |status, reason| ("Ready", status, reason);
    let table: &[(&str, i64, &[Condition], [&str; 3])] = &[
        (
            "ready",
            2,
            &[ready("True", Reason::Settled)],
            ["Healthy", "Current", "Current"],
        ),
        ("new", -1, &[], ["Progressing", "InProgress", "InProgress"]),
        (
            "changed, and not seen yet",
            1,
            &[ready("True", Reason::Settled)],
            ["Progressing", "InProgress", "InProgress"],
        ),
        (
            "under way",
            2,
            &[
                ready("False", Reason::WorkloadStarting),
                ("Reconciling", "True", Reason::WorkloadStarting),
                ("Stalled", "False", Reason::Settled),
            ],
            ["Progressing", "InProgress", "InProgress"],
        ),
        (
            "ready, and being restarted",
            2,
            &[
                ready("True", Reason::Settled),
                ("Reconciling", "True", Reason::WaitingForTurn),
            ],
            ["Progressing", "InProgress", "InProgress"],
        ),
        (
            "stuck",
            2,
            &[
                ready("False", Reason::ImageUnavailable),
                ("Reconciling", "False", Reason::Settled),
                ("Stalled", "True", Reason::ImageUnavailable),
            ],
            ["Degraded", "Failed", "Failed"],
        ),
        // kstatus waits until somebody loses patience; the checks know better.
        (
            "to be mended by a person",
            2,
            &[ready("False", Reason::CertificateInvalid)],
            ["Degraded", "Failed", "InProgress"],
        ),
        (
            "without a hub that comes later",
            2,
            &[ready("False", Reason::HubNotFound)],
            ["Progressing", "InProgress", "InProgress"],
        ),
        (
            "not asked yet",
            2,
            &[ready("Unknown", Reason::HubUnreachable)],
            ["Progressing", "InProgress", "InProgress"],
        ),
    ];
    let objects: Vec<_> = table
        .iter()
        .flat_map(|(_, observed, conditions, _)| {
            KINDS.map(|kind| object(kind, *observed, conditions))
        })
        .collect();
    let judged = judge(&objects).unwrap();
    for ((name, .., expected), of_kinds) in table.iter().zip(judged.chunks(KINDS.len())) {
        for (kind, judged) in KINDS.iter().zip(of_kinds) {
            assert_eq!(verdict(judged), *expected, "{kind}, {name}");
        }
    }
}

/// No operator runs here, and kstatus calls an object fine that has no status.
#[tokio::test]
async fn what_was_just_applied_is_not_well_yet() {
    let cluster = Cluster::shared().await.unwrap();
    cluster.install_operator().await.unwrap();
    let namespace = cluster.namespace("health").await.unwrap();
    let applied = namespace.apply(HUB_AND_ENROLLMENT).await.unwrap();
    assert_eq!(applied.len(), 2);
    let objects: Vec<_> = applied.iter().map(|object| json!(object)).collect();
    for (judged, object) in judge(&objects).unwrap().iter().zip(&applied) {
        let name = object.name_any();
        assert_eq!(
            verdict(judged),
            ["Progressing", "InProgress", "InProgress"],
            "{name}"
        );
    }
    namespace.delete().await.unwrap();
}

const HUB_AND_ENROLLMENT: &str = "
{apiVersion: rehome.dev/v1alpha1, kind: IoTHub, metadata: {name: west},
 spec: {hostName: west.example.com, managed: {}}}
---
{apiVersion: rehome.dev/v1alpha1, kind: Enrollment, metadata: {name: line-3},
 spec: {group: {}, attestation: {symmetricKey: {secretRef: {name: line-3}}}}}
";

#[test]
fn argo_cd_shows_reason_and_message() {
    let invalid = object(
        "Enrollment",
        2,
        &[("Ready", "False", Reason::SecretInvalid)],
    );
    let judged = judge(&[invalid]).unwrap();
    assert_eq!(judged[0].argocd.message, "SecretInvalid: why it is so");
}

/// A reason that is renamed would be cured no more.
#[test]
fn what_another_object_cures_is_a_reason() {
    let waits = |reason: &Reason| object("Enrollment", 2, &[("Ready", "False", *reason)]);
    let judged = judge(&Reason::ALL.iter().map(waits).collect::<Vec<_>>()).unwrap();
    let cured = |judged: &Judgement| verdict(judged)[..2] == ["Progressing", "InProgress"];
    let all: Vec<_> = Reason::ALL
        .iter()
        .zip(&judged)
        .filter(|(_, judged)| cured(judged))
        .map(|(reason, _)| reason.as_str())
        .collect();
    assert_eq!(all, ["SecretMissing", "HubNotFound"]);
}
