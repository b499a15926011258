//! What a pass over a hub found out, and what stands in its conditions for it.

use kube::ResourceExt as _;

use super::managed::{Hosted, Names, volume_full};
use crate::api::v1alpha1::{ConditionType, IoTHub, Reason, is_true};
use crate::controller::context::Context;
use crate::controller::hub_clients::NoClient;
use crate::controller::status::Verdict;
use crate::registry::{Cause, HubError, HubFacts};

/// What a pass found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Findings {
    pub(super) reachable: Verdict,
    pub(super) credentials: Verdict,
    pub(super) ready: Verdict,
    /// `None` leaves what an earlier probe said.
    pub(super) guarantees: Option<Vec<String>>,
}

/// Whether the hub of this host is another `IoTHub`.
pub(super) fn host_taken(hub: &IoTHub, ctx: &Context) -> Option<Findings> {
    let claimants = ctx.directory.claimants_of_host(&hub.spec.host_name);
    let first = claimants.first()?;
    if hub.uid().as_ref() == Some(&first.uid) {
        return None;
    }
    let whose = if hub.namespace().as_ref() == Some(&first.name.0) {
        format!("IoTHub {}", first.name.1)
    } else {
        // The other tenant's names are none of this one's business.
        "an IoTHub of another namespace".to_owned()
    };
    let message = format!(
        "{whose} is older and has the host {}; one hub must not have two names, so use that one, \
         or delete it first",
        hub.spec.host_name
    );
    let unknown = Verdict::unknown(Reason::HostTaken, "not looked at");
    Some(Findings {
        reachable: unknown.clone(),
        credentials: unknown,
        ready: Verdict::no(Reason::HostTaken, message),
        guarantees: None,
    })
}

pub(super) fn without_client(NoClient { reason, message }: NoClient) -> Findings {
    Findings {
        reachable: Verdict::unknown(reason, "not tried without credentials"),
        credentials: Verdict::no(reason, message.clone()),
        ready: Verdict::no(reason, message),
        guarantees: None,
    }
}

/// Of a hub that answers: devices can be placed on it, unless it has no room for them.
pub(super) fn answered(hub: &IoTHub, facts: &HubFacts) -> Findings {
    let ready = if facts.is_store_full {
        Verdict::no(Reason::VolumeFull, no_room(hub))
    } else {
        Verdict::yes(Reason::Settled, "devices can be placed here")
    };
    Findings {
        reachable: Verdict::yes(Reason::Settled, "the hub answers"),
        credentials: Verdict::yes(Reason::Settled, "the hub accepts the credentials"),
        ready,
        guarantees: Some(facts.guarantees.clone()),
    }
}

fn no_room(hub: &IoTHub) -> String {
    let managed = hub.spec.managed.as_ref();
    if managed.is_some_and(|managed| managed.database_secret().is_none()) {
        return volume_full(&Names::of(hub).claim());
    }
    "the disk of the hub's store is full, so it takes no change; give that disk, or the one of its \
     database, more room"
        .to_owned()
}

pub(super) fn failed(error: &HubError) -> Findings {
    let message = error.to_string();
    let unknown = |reason| Verdict::unknown(reason, "the hub did not get as far");
    let (reason, reachable, credentials) = match &error.cause {
        Cause::Unreachable(_) | Cause::FateUnknown(_) => {
            let reason = Reason::HubUnreachable;
            (
                reason,
                Verdict::no(reason, message.clone()),
                unknown(reason),
            )
        }
        Cause::Unauthorized(_) => {
            let reason = Reason::HubUnauthorized;
            let reachable = Verdict::yes(Reason::Settled, "the hub answers");
            (reason, reachable, Verdict::no(reason, message.clone()))
        }
        Cause::Throttled { .. } => {
            let reason = Reason::HubThrottled;
            let reachable = Verdict::yes(Reason::Settled, "the hub answers");
            (reason, reachable, unknown(reason))
        }
        Cause::PreconditionFailed | Cause::NotFound | Cause::Fenced | Cause::Refused { .. } => {
            let reason = Reason::HubRefused;
            let reachable = Verdict::yes(Reason::Settled, "the hub answers");
            (reason, reachable, unknown(reason))
        }
    };
    Findings {
        reachable,
        credentials,
        ready: Verdict::no(reason, message),
        guarantees: None,
    }
}

/// Of a managed hub that has not served yet, and cannot before its parts are there.
pub(super) fn not_up(trouble: &Verdict) -> Findings {
    let unknown = Verdict::unknown(trouble.reason, "not tried before the hub's parts are ready");
    Findings {
        reachable: unknown.clone(),
        credentials: unknown,
        ready: trouble.clone(),
        guarantees: None,
    }
}

/// Says why a managed hub is not ready by the part that is the cause, and that it is not where a
/// part says so though the hub answers: one whose volume is full answers reads.
pub(super) fn explain(hub: &IoTHub, hosted: &Hosted, findings: &mut Option<Findings>) {
    let Some(trouble) = hosted.trouble() else {
        return;
    };
    let outweighs = matches!(trouble.reason, Reason::VolumeFull | Reason::AddressPending);
    if findings.is_none() && outweighs && is_ready(hub) {
        *findings = Some(as_known(hub));
    }
    if let Some(findings) = findings
        && (outweighs || findings.ready.holds != Some(true))
    {
        findings.ready = trouble.clone();
    }
}

/// What the conditions say now.
fn as_known(hub: &IoTHub) -> Findings {
    Findings {
        reachable: known(hub, ConditionType::Reachable),
        credentials: known(hub, ConditionType::CredentialsValid),
        ready: known(hub, ConditionType::Ready),
        guarantees: None,
    }
}

/// Whether a failure may pass by itself, so that one of it tells nothing.
pub(super) fn is_passing(findings: &Findings) -> bool {
    findings.ready.holds != Some(true)
        && matches!(
            findings.ready.reason,
            Reason::HubUnreachable | Reason::HubThrottled
        )
}

pub(super) fn is_ready(hub: &IoTHub) -> bool {
    let status = hub.status.as_ref();
    status.is_some_and(|status| is_true(&status.conditions, ConditionType::Ready))
}

/// What keeps a hub that is being deleted. The hub goes on serving until nothing refers to it.
pub(super) fn in_use(hub: &IoTHub, ctx: &Context, findings: &mut Option<Findings>) {
    let (count, example) = ctx.index.referring(hub);
    let example = example
        .map(|name| format!(", for example {name}"))
        .unwrap_or_default();
    let message = format!(
        "{count} registrations refer to this hub{example}; it goes when they have moved to another \
         hub or are deleted"
    );
    let verdict = Verdict::no(Reason::InUse, message);
    let findings = findings.get_or_insert_with(|| as_known(hub));
    findings.ready = verdict;
}

/// A condition as it stands.
pub(super) fn known(hub: &IoTHub, type_: ConditionType) -> Verdict {
    let conditions = hub.status.iter().flat_map(|status| &status.conditions);
    let condition = conditions
        .into_iter()
        .find(|known| known.type_ == type_.as_str());
    let reason = condition.and_then(|condition| {
        Reason::ALL
            .iter()
            .copied()
            .find(|reason| reason.as_str() == condition.reason)
    });
    match condition.zip(reason) {
        Some((condition, reason)) => Verdict {
            holds: match condition.status.as_str() {
                "True" => Some(true),
                "False" => Some(false),
                _ => None,
            },
            reason,
            message: condition.message.clone(),
        },
        None => Verdict::unknown(Reason::HubUnreachable, "not looked at yet"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::v1alpha1::GROUP;

    fn hub(spec: &Value) -> IoTHub {
        serde_json::from_value(json!({
            "apiVersion": format!("{GROUP}/v1alpha1"), "kind": "IoTHub",
            "metadata": { "name": "west", "namespace": "plant" },
            "spec": spec,
        }))
        .unwrap()
    }

    #[test]
    fn a_hub_without_room_answers_and_takes_no_devices() {
        let database = json!({ "postgres": { "secretRef": { "name": "db" } } });
        let connection = json!({ "connectionStringSecretRef": { "name": "west" } });
        let host = "west.example.com";
        let facts = |is_store_full| HubFacts {
            guarantees: vec!["fence".into()],
            device_count: 7,
            max_device_count: None,
            is_store_full,
        };
        for (spec, says) in [
            (
                json!({ "hostName": host, "managed": {} }),
                "PersistentVolumeClaim data-iothub-west-0",
            ),
            (
                json!({ "hostName": host, "managed": { "storage": database } }),
                "the one of its database",
            ),
            (
                json!({ "hostName": host, "connection": connection }),
                "give that disk",
            ),
        ] {
            let hub = hub(&spec);
            assert_eq!(answered(&hub, &facts(false)).ready.holds, Some(true));
            let Findings {
                reachable, ready, ..
            } = answered(&hub, &facts(true));
            assert_eq!(reachable.holds, Some(true));
            assert_eq!(
                (ready.holds, ready.reason),
                (Some(false), Reason::VolumeFull)
            );
            assert!(ready.message.contains(says), "{}", ready.message);
        }
    }
}
