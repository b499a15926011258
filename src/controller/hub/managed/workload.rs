//! How a managed hub's pod is, from what the kubelet and the scheduler write.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, Service};

use super::objects::DATABASE_VOLUME;
use super::turns::Stage;
use crate::api::v1alpha1::Reason;
use crate::controller::status::Verdict;

/// How long the end of a hub that ran out of space is remembered: it starts again and serves reads.
const FULL_FOR: SignedDuration = SignedDuration::from_mins(10);
/// What the system says when a volume is full.
const FULL: [&str; 2] = ["No space left on device", "os error 28"];
/// Most of a hub's last words that a condition quotes.
const LAST_WORDS: usize = 600;

/// Whether the pod runs as the `StatefulSet` wants it, and is ready.
pub(super) fn judge(set: Option<&StatefulSet>, pods: &[&Pod], now: Timestamp) -> Verdict {
    if let Some(verdict) = pods.iter().find_map(|pod| ended_full(pod, now)) {
        return verdict;
    }
    let Some(set) = set else {
        return Verdict::no(Reason::WorkloadStarting, "the StatefulSet is not there yet");
    };
    if is_settled(set) {
        return Verdict::yes(Reason::Settled, "the hub's pod is ready");
    }
    if let Some(verdict) = pods.iter().find_map(|pod| trouble(pod)) {
        return verdict;
    }
    let name = set.metadata.name.as_deref().unwrap_or_default();
    let message = if let Some(message) = pods.iter().find_map(|pod| waits(pod)) {
        message
    } else if pods.is_empty() {
        format!("StatefulSet {name} has no pod yet; `kubectl describe statefulset {name}` says why")
    } else {
        format!("the pod of StatefulSet {name} is not ready yet")
    };
    Verdict::no(Reason::WorkloadStarting, message)
}

/// Where the hub stands among those that restart.
pub(super) fn stage(set: &StatefulSet, is_behind: bool) -> Stage {
    if is_settled(set) {
        if is_behind {
            Stage::Behind
        } else {
            Stage::Well
        }
    } else if is_rolling(set) {
        Stage::Rolling
    } else {
        Stage::Down
    }
}

/// Whether a person has to do something before the pod can start.
pub(super) fn is_stuck(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::ImageUnavailable
            | Reason::WorkloadFailing
            | Reason::VolumeFull
            | Reason::Unschedulable
            | Reason::PartRefused
            | Reason::NameTaken
            | Reason::CertificateInvalid
            | Reason::SecretMissing
            | Reason::SecretInvalid
            | Reason::AddressPending
    )
}

/// Whether the Service has the address that it asks for.
pub(super) fn address(service: Option<&Service>) -> Verdict {
    let Some(service) = service else {
        return Verdict::no(Reason::WorkloadStarting, "the Service is not there yet");
    };
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let spec = service.spec.as_ref();
    if spec.and_then(|spec| spec.type_.as_deref()) != Some("LoadBalancer") {
        let address = spec
            .and_then(|spec| spec.cluster_ip.as_deref())
            .unwrap_or_default();
        return Verdict::yes(Reason::Settled, format!("Service {name} is at {address}"));
    }
    let given = service
        .status
        .iter()
        .flat_map(|status| &status.load_balancer);
    let given = given.flat_map(|balancer| balancer.ingress.iter().flatten());
    let given: Vec<_> = given
        .filter_map(|one| one.hostname.as_deref().or(one.ip.as_deref()))
        .collect();
    if given.is_empty() {
        let message = format!(
            "no load balancer has given Service {name} an address; if the cluster has none, set \
             managed.service.type to ClusterIP or NodePort"
        );
        return Verdict::no(Reason::AddressPending, message);
    }
    Verdict::yes(
        Reason::Settled,
        format!("Service {name} is at {}", given.join(", ")),
    )
}

/// Whether what was wanted last runs and is ready.
fn is_settled(set: &StatefulSet) -> bool {
    let Some(status) = &set.status else {
        return false;
    };
    let wanted = set
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1);
    status.ready_replicas.unwrap_or(0) >= wanted && !is_rolling(set)
}

fn is_rolling(set: &StatefulSet) -> bool {
    let Some(status) = &set.status else {
        return false;
    };
    status.observed_generation < set.metadata.generation
        || (status.update_revision.is_some() && status.current_revision != status.update_revision)
}

/// What keeps a pod from becoming ready, if that is known.
fn trouble(pod: &Pod) -> Option<Verdict> {
    let status = pod.status.as_ref()?;
    let scheduled = status.conditions.iter().flatten();
    let scheduled = scheduled
        .into_iter()
        .find(|known| known.type_ == "PodScheduled");
    if let Some(refused) = scheduled.filter(|known| known.status == "False") {
        let why = refused
            .message
            .as_deref()
            .unwrap_or("the scheduler does not say why");
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let message = format!("no node takes pod {name}: {why}");
        return Some(Verdict::no(Reason::Unschedulable, message));
    }
    status
        .container_statuses
        .iter()
        .flatten()
        .find_map(container)
}

fn container(status: &ContainerStatus) -> Option<Verdict> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    let why = waiting.message.as_deref().unwrap_or_default();
    match reason {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "ImageInspectError"
        | "RegistryUnavailable"
        | "SignatureValidationFailed" => {
            let message = format!(
                "image {} cannot be had ({reason}): {why}; correct the operator's --hub-image, or \
                 what it needs to pull it",
                status.image
            );
            Some(Verdict::no(Reason::ImageUnavailable, message))
        }
        "CrashLoopBackOff"
        | "CreateContainerConfigError"
        | "CreateContainerError"
        | "RunContainerError"
        | "PostStartHookError" => {
            let words = last_words(status).unwrap_or_else(|| why.to_owned());
            let message = format!("the hub does not start ({reason}): {words}");
            Some(Verdict::no(Reason::WorkloadFailing, message))
        }
        // "ContainerCreating", "PodInitializing": under way.
        _ => None,
    }
}

/// Of a pod that runs and is not ready: the hub says in its log what it waits for.
fn waits(pod: &Pod) -> Option<String> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let mut states = statuses.iter().filter(|status| !status.ready);
    states.find(|status| {
        let state = status.state.as_ref();
        state.is_some_and(|state| state.running.is_some())
    })?;
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    let has_database = volumes.is_some_and(|volumes| {
        let mut names = volumes.iter().map(|volume| &volume.name);
        names.any(|name| name == DATABASE_VOLUME)
    });
    let hint = if has_database {
        ", as while its PostgreSQL is away"
    } else {
        ""
    };
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    Some(format!(
        "pod {name} runs and is not ready{hint}; `kubectl logs {name}` says what it waits for"
    ))
}

/// Of a pod whose hub ended for want of space a moment ago, though it may run again by now: one that
/// runs says itself when it has no room.
fn ended_full(pod: &Pod, now: Timestamp) -> Option<Verdict> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let is_recent = |ended: &Timestamp| now.duration_since(*ended) < FULL_FOR;
    let full = statuses.iter().any(|status| {
        let states = [&status.state, &status.last_state].into_iter().flatten();
        states
            .filter_map(|state| state.terminated.as_ref())
            .any(|ended| {
                let words = ended.message.as_deref().unwrap_or_default();
                let at = ended.finished_at.as_ref().map(|time| time.0);
                FULL.iter().any(|full| words.contains(full)) && at.as_ref().is_none_or(is_recent)
            })
    });
    let claim = format!("data-{}", pod.metadata.name.as_deref().unwrap_or_default());
    full.then(|| Verdict::no(Reason::VolumeFull, volume_full(&claim)))
}

/// What is wrong with a hub whose volume is full, and what helps.
pub(in crate::controller::hub) fn volume_full(claim: &str) -> String {
    format!(
        "the hub's volume is full, so it takes no change; expand PersistentVolumeClaim {claim} \
         (`kubectl patch pvc {claim} -p \
         '{{\"spec\":{{\"resources\":{{\"requests\":{{\"storage\":\"…\"}}}}}}}}'`)"
    )
}

/// What the hub said last, from its end.
fn last_words(status: &ContainerStatus) -> Option<String> {
    let ended = status.last_state.as_ref()?.terminated.as_ref()?;
    let words = ended
        .message
        .as_deref()
        .map(str::trim)
        .filter(|words| !words.is_empty())?;
    let start = words.len().saturating_sub(LAST_WORDS);
    let start = (start..words.len()).find(|at| words.is_char_boundary(*at))?;
    Some(words[start..].to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn now() -> Timestamp {
        "2026-11-26T12:00:00Z".parse().unwrap()
    }

    fn set(status: &Value) -> StatefulSet {
        serde_json::from_value(
            json!({ "metadata": { "name": "iothub-west", "generation": 2 },
            "spec": { "replicas": 1, "selector": {}, "template": {}, "serviceName": "s" },
            "status": status }),
        )
        .unwrap()
    }

    fn pod(status: &Value) -> Pod {
        let metadata = json!({ "name": "iothub-west-0" });
        serde_json::from_value(json!({ "metadata": metadata, "status": status })).unwrap()
    }

    fn ready() -> Value {
        json!({ "replicas": 1, "readyReplicas": 1, "observedGeneration": 2,
            "currentRevision": "a", "updateRevision": "a" })
    }

    fn waiting(reason: &str, last: &Value) -> Pod {
        pod(
            &json!({ "containerStatuses": [{ "name": "hub", "image": "i:1", "imageID": "",
            "ready": false, "restartCount": 1, "lastState": last,
            "state": { "waiting": { "reason": reason, "message": "because" } } }] }),
        )
    }

    fn ended(words: &str, at: &str) -> Value {
        json!({ "terminated": { "exitCode": 1, "message": words, "finishedAt": at } })
    }

    #[test]
    fn what_the_kubelet_writes_becomes_a_reason_that_people_can_act_on() {
        let starting = json!({ "replicas": 1, "observedGeneration": 2 });
        let unscheduled = pod(
            &json!({ "conditions": [{ "type": "PodScheduled", "status": "False",
            "message": "pod has unbound immediate PersistentVolumeClaims" }] }),
        );
        let failed = waiting(
            "CrashLoopBackOff",
            &ended("Error: port in use\n", "2026-11-26T11:59:00Z"),
        );
        for (pod, reason, says) in [
            (
                waiting("ContainerCreating", &json!({})),
                Reason::WorkloadStarting,
                "not ready yet",
            ),
            (
                waiting("ImagePullBackOff", &json!({})),
                Reason::ImageUnavailable,
                "image i:1 cannot",
            ),
            (
                waiting("InvalidImageName", &json!({})),
                Reason::ImageUnavailable,
                "because",
            ),
            (failed, Reason::WorkloadFailing, "Error: port in use"),
            (unscheduled, Reason::Unschedulable, "unbound immediate"),
        ] {
            let verdict = judge(Some(&set(&starting)), &[&pod], now());
            assert_eq!((verdict.holds, verdict.reason), (Some(false), reason));
            assert!(verdict.message.contains(says), "{}", verdict.message);
        }
        assert_eq!(judge(Some(&set(&ready())), &[], now()).holds, Some(true));
        assert_eq!(judge(None, &[], now()).reason, Reason::WorkloadStarting);
    }

    #[test]
    fn a_pod_that_runs_and_waits_is_told_with_where_it_says_for_what() {
        let starting = json!({ "replicas": 1, "observedGeneration": 2 });
        let waiting = json!({ "containerStatuses": [{ "name": "hub", "image": "i:1", "imageID": "",
            "ready": false, "restartCount": 0, "state": { "running": {} } }] });
        let mut pod = pod(&waiting);
        let judge = |pod: &Pod| judge(Some(&set(&starting)), &[pod], now());
        let seen = judge(&pod);
        assert_eq!(seen.reason, Reason::WorkloadStarting);
        assert!(seen.message.contains("`kubectl logs iothub-west-0`"));
        assert!(!seen.message.contains("PostgreSQL"), "{}", seen.message);
        let volumes = json!({ "containers": [], "volumes": [{ "name": "postgres" }] });
        pod.spec = Some(serde_json::from_value(volumes).unwrap());
        let seen = judge(&pod);
        assert!(
            seen.message.contains("PostgreSQL is away"),
            "{}",
            seen.message
        );
    }

    #[test]
    fn a_full_volume_shows_for_a_while_though_the_hub_runs_again() {
        let full = "write failed: No space left on device (os error 28)";
        let running = |last: &Value| {
            pod(
                &json!({ "containerStatuses": [{ "name": "hub", "image": "i", "imageID": "",
                "ready": true, "restartCount": 1, "lastState": last, "state": { "running": {} } }] }),
            )
        };
        let judge = |pod: &Pod| judge(Some(&set(&ready())), &[pod], now());
        let seen = judge(&running(&ended(full, "2026-11-26T11:55:00Z")));
        assert_eq!(seen.reason, Reason::VolumeFull);
        assert!(
            seen.message.contains("data-iothub-west-0"),
            "{}",
            seen.message
        );
        assert_eq!(
            judge(&running(&ended(full, "2026-11-26T11:49:00Z"))).holds,
            Some(true)
        );
        let other = ended("killed", "2026-11-26T11:59:00Z");
        assert_eq!(judge(&running(&other)).holds, Some(true));
    }

    #[test]
    fn a_set_that_changes_is_rolling_and_one_that_is_not_ready_is_down() {
        let with = |change: Value| {
            let mut status = ready();
            for (key, value) in change.as_object().unwrap() {
                status[key] = value.clone();
            }
            stage(&set(&status), false)
        };
        assert_eq!(with(json!({})), Stage::Well);
        assert_eq!(stage(&set(&ready()), true), Stage::Behind);
        assert_eq!(with(json!({ "updateRevision": "b" })), Stage::Rolling);
        assert_eq!(with(json!({ "observedGeneration": 1 })), Stage::Rolling);
        assert_eq!(with(json!({ "readyReplicas": 0 })), Stage::Down);
        let mut unseen = set(&ready());
        unseen.status = None;
        assert_eq!(stage(&unseen, true), Stage::Down);
    }

    #[test]
    fn a_load_balancer_that_does_not_come_is_told() {
        let service = |type_: &str, ingress: Value| -> Service {
            serde_json::from_value(json!({ "metadata": { "name": "iothub-west" },
                "spec": { "type": type_, "clusterIP": "10.0.0.7" },
                "status": { "loadBalancer": { "ingress": ingress } } }))
            .unwrap()
        };
        assert_eq!(
            address(Some(&service("ClusterIP", json!([])))).holds,
            Some(true)
        );
        let pending = address(Some(&service("LoadBalancer", json!([]))));
        assert_eq!(pending.reason, Reason::AddressPending);
        let given = address(Some(&service(
            "LoadBalancer",
            json!([{ "ip": "203.0.113.7" }]),
        )));
        assert!(given.message.contains("203.0.113.7"), "{}", given.message);
    }
}
