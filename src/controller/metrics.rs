//! What `/metrics` shows. Labels are reasons, states and classes, never names of devices or objects.

use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::census::Census;
use crate::api::v1alpha1::{DeviceRegistration, DeviceRegistrationStatus, Reason};
use crate::api::v1alpha1::{RegistrationState, TransferPhase};
use crate::registry::{Call, CallObserver};

/// Of one call to a hub, in seconds: a hub beside us to one that is throttled.
const CALL_SECONDS: [f64; 9] = [0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];
/// Of a registration or a move: from some calls to one that waits for a hub overnight.
const WAIT_SECONDS: [f64; 11] = [
    0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 600.0, 3600.0, 36_000.0,
];

/// The controller's counters.
pub struct Metrics {
    registry: Registry,
    decisions: Family<ReasonLabel, Counter>,
    errors: Family<ErrorLabels, Counter>,
    leftovers: Family<FateLabel, Counter>,
    answers: Family<StateLabel, Histogram>,
    moves: Family<OutcomeLabel, Histogram>,
    calls: Family<CallLabels, Counter>,
    call_seconds: Family<CallLabel, Histogram>,
    registrations: Family<StateLabel, Gauge>,
    would_move: Gauge,
    restless: Gauge,
    open_moves: Gauge,
    oldest_move: Gauge,
    cleanups: Gauge,
    objects: Family<KindLabel, Gauge>,
    hubs: Family<ShownLabel, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// As the hubs' conditions say, which only the controller writes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ShownLabel {
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    controller: &'static str,
    class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FateLabel {
    fate: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    call: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabel {
    call: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

impl Metrics {
    /// All counters at zero.
    pub fn new() -> Self {
        let metrics = Self {
            registry: Registry::default(),
            decisions: Family::default(),
            errors: Family::default(),
            leftovers: Family::default(),
            answers: Family::new_with_constructor(|| Histogram::new(WAIT_SECONDS)),
            moves: Family::new_with_constructor(|| Histogram::new(WAIT_SECONDS)),
            calls: Family::default(),
            call_seconds: Family::new_with_constructor(|| Histogram::new(CALL_SECONDS)),
            registrations: Family::default(),
            would_move: Gauge::default(),
            restless: Gauge::default(),
            open_moves: Gauge::default(),
            oldest_move: Gauge::default(),
            cleanups: Gauge::default(),
            objects: Family::default(),
            hubs: Family::default(),
        };
        metrics.begin_at_zero();
        let registry = metrics.registered();
        Self {
            registry,
            ..metrics
        }
    }

    /// What appears only when it happens for the first time has no rate then.
    fn begin_at_zero(&self) {
        for controller in ["hub", "enrollment", "registration", "gateway-access"] {
            for class in ["conflict", "gone", "transient", "throttled", "invalid"] {
                drop(
                    self.errors
                        .get_or_create(&ErrorLabels { controller, class }),
                );
            }
        }
        for fate in ["removed", "unknown"] {
            drop(self.leftovers.get_or_create(&FateLabel { fate }));
        }
        for state in ["assigned", "failed", "disabled"] {
            drop(self.answers.get_or_create(&StateLabel { state }));
        }
        for outcome in ["moved", "reset", "given-up"] {
            drop(self.moves.get_or_create(&OutcomeLabel { outcome }));
        }
    }

    fn registered(&self) -> Registry {
        let mut registry = Registry::with_prefix("rehome");
        let r = &mut registry;
        r.register("decisions", "Decisions by reason", self.decisions.clone());
        r.register(
            "reconcile_errors",
            "Failed passes by class",
            self.errors.clone(),
        );
        let help = "Disabled identities with our mark found at hubs and explained by no record";
        r.register("leftovers", help, self.leftovers.clone());
        let help = "From a device's request to its answer, by the state that answers it";
        r.register_with_unit(
            "registration_duration",
            help,
            Unit::Seconds,
            self.answers.clone(),
        );
        let help = "From the record of a move to its end, by how it ended";
        r.register_with_unit("move_duration", help, Unit::Seconds, self.moves.clone());
        r.register("hub_calls", "Calls to hubs by result", self.calls.clone());
        let help = "Of calls to hubs, waiting for their turn included";
        r.register_with_unit(
            "hub_call_duration",
            help,
            Unit::Seconds,
            self.call_seconds.clone(),
        );
        r.register(
            "registrations",
            "Registrations by state",
            self.registrations.clone(),
        );
        let help = "Registrations that get another hub when their device comes next";
        r.register("registrations_to_move", help, self.would_move.clone());
        let help = "Registrations that something is still to be done for";
        r.register("registrations_unsettled", help, self.restless.clone());
        r.register("moves_open", "Moves under way", self.open_moves.clone());
        let help = "Age of the move that has been under way longest; 0 without one";
        r.register_with_unit("oldest_move", help, Unit::Seconds, self.oldest_move.clone());
        let help = "Registrations of which something may be left at a hub";
        r.register("registrations_to_clean_up", help, self.cleanups.clone());
        r.register(
            "cached_objects",
            "Objects in memory by kind",
            self.objects.clone(),
        );
        r.register(
            "hubs",
            "IoTHubs by the reason of their Ready condition",
            self.hubs.clone(),
        );
        registry
    }

    /// Counts a decision.
    pub fn decided(&self, reason: Reason) {
        let reason = reason.as_str();
        self.decisions.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Counts a failed pass.
    pub fn failed(&self, controller: &'static str, class: &'static str) {
        let labels = ErrorLabels { controller, class };
        self.errors.get_or_create(&labels).inc();
    }

    /// Counts a leftover at a hub: `removed` or `unknown`.
    pub fn leftover(&self, fate: &'static str) {
        self.leftovers.get_or_create(&FateLabel { fate }).inc();
    }

    /// Counts what the step from the object's status to the next one ends: a device's request, a move.
    pub fn stepped(
        &self,
        from: &DeviceRegistration,
        to: &DeviceRegistrationStatus,
        now: Timestamp,
    ) {
        let before = from.status.as_ref();
        if let Some(requested) = answered(from, to) {
            let state = label(to.state);
            let seconds = seconds_between(requested, now);
            self.answers
                .get_or_create(&StateLabel { state })
                .observe(seconds);
        }
        let open = before.and_then(|before| before.transfer.as_ref());
        if let (Some(transfer), None) = (open, &to.transfer) {
            let outcome = match transfer.phase {
                TransferPhase::Aborting => "given-up",
                TransferPhase::Open | TransferPhase::Committed
                    if transfer.from.hub.uid == transfer.to.hub.uid =>
                {
                    "reset"
                }
                TransferPhase::Open | TransferPhase::Committed => "moved",
            };
            let seconds = seconds_between(transfer.started_at.0, now);
            self.moves
                .get_or_create(&OutcomeLabel { outcome })
                .observe(seconds);
        }
    }

    /// All of it as `OpenMetrics` text, with what there is now.
    pub fn text(&self, census: &Census) -> String {
        self.show(census);
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    fn show(&self, census: &Census) {
        let counts = census.registrations;
        for (state, count) in [
            ("assigning", counts.assigning),
            ("assigned", counts.assigned),
            ("failed", counts.failed),
            ("disabled", counts.disabled),
        ] {
            self.registrations
                .get_or_create(&StateLabel { state })
                .set(count);
        }
        self.would_move.set(counts.would_move);
        self.restless.set(census.unsettled);
        self.open_moves.set(census.open_moves);
        self.oldest_move.set(census.oldest_move.as_secs());
        self.cleanups.set(census.to_clean_up);
        for (kind, count) in census.objects {
            self.objects.get_or_create(&KindLabel { kind }).set(count);
        }
        // A reason that no hub has any more must not stay.
        self.hubs.clear();
        for (reason, count) in &census.hubs {
            let reason = reason.clone();
            self.hubs.get_or_create(&ShownLabel { reason }).set(*count);
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl CallObserver for Metrics {
    fn called(&self, call: Call, result: &'static str, took: Duration) {
        let call = call.as_str();
        self.calls.get_or_create(&CallLabels { call, result }).inc();
        self.call_seconds
            .get_or_create(&CallLabel { call })
            .observe(took.as_secs_f64());
    }
}

/// When the device asked, if this step answers its request.
fn answered(from: &DeviceRegistration, to: &DeviceRegistrationStatus) -> Option<Timestamp> {
    let request = from.spec.request.as_ref()?;
    let is_final = |status: &DeviceRegistrationStatus| {
        status.operation_id.as_ref() == Some(&request.operation_id)
            && status
                .state
                .is_some_and(|state| state != RegistrationState::Assigning)
    };
    let before = from.status.as_ref();
    // A trigger's move ends with the operation that was answered long ago.
    let triggered = before
        .and_then(|before| before.transfer.as_ref())
        .is_some_and(|transfer| transfer.trigger.is_some());
    (is_final(to) && !before.is_some_and(is_final) && !triggered).then_some(request.requested_at.0)
}

fn label(state: Option<RegistrationState>) -> &'static str {
    match state {
        None | Some(RegistrationState::Assigning) => "assigning",
        Some(RegistrationState::Assigned) => "assigned",
        Some(RegistrationState::Failed) => "failed",
        Some(RegistrationState::Disabled) => "disabled",
    }
}

/// Clocks of two machines may differ: never negative.
fn seconds_between(begin: Timestamp, end: Timestamp) -> f64 {
    end.duration_since(begin).as_secs_f64().max(0.0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: &str = "2026-11-23T06:20:40Z";

    /// A registration whose device asked seven seconds ago, with this status.
    fn registration(status: &Value) -> DeviceRegistration {
        serde_json::from_value(json!({
            "apiVersion": "rehome.dev/v1alpha1", "kind": "DeviceRegistration",
            "metadata": {"name": "press"},
            "spec": {"registrationId": "press", "request": {"operationId": "5.new",
                "apiVersion": "2021-06-01", "enrollment": {"name": "line", "uid": "enr"},
                "credential": "c", "reason": "r", "requestedAt": "2026-11-23T06:20:33.000000Z"}},
            "status": status,
        }))
        .unwrap()
    }

    /// A move between these hubs that began ten seconds ago.
    fn moving(phase: &str, to: &str, trigger: Option<&str>) -> Value {
        let hub = |name: &str| json!({"name": name, "uid": name, "hostName": name});
        json!({"state": "Assigning", "operationId": "5.new", "transfer": {
            "id": "t", "phase": phase, "data": "Migrate", "policy": "p", "trigger": trigger,
            "from": {"hub": hub("west"), "generationId": "g", "original": {"enabled": true}},
            "to": {"hub": hub(to)}, "placementHash": "h",
            "startedAt": "2026-11-23T06:20:30.000000Z"}})
    }

    /// What the step to `state` counts: lines of the metrics that are not zero.
    fn counted(from: &Value, state: &str) -> Vec<String> {
        let to = json!({"state": state, "operationId": "5.new"});
        let (metrics, now) = (Metrics::new(), NOW.parse().unwrap());
        metrics.stepped(
            &registration(from),
            &serde_json::from_value(to).unwrap(),
            now,
        );
        let text = metrics.text(&Census::default());
        let ends = |line: &&str| line.contains("_sum{") && !line.ends_with(" 0.0");
        text.lines().filter(ends).map(str::to_owned).collect()
    }

    #[test]
    fn a_step_counts_the_request_that_it_answers_and_the_move_that_it_ends() {
        let answer = |state: &str| {
            format!("rehome_registration_duration_seconds_sum{{state=\"{state}\"}} 7.0")
        };
        let end = |outcome: &str| {
            format!("rehome_move_duration_seconds_sum{{outcome=\"{outcome}\"}} 10.0")
        };
        let first = json!({"state": "Assigning"});
        assert_eq!(counted(&first, "Assigned"), [answer("assigned")]);
        assert_eq!(counted(&first, "Failed"), [answer("failed")]);
        assert!(counted(&first, "Assigning").is_empty());
        let answered = json!({"state": "Assigned", "operationId": "5.new"});
        assert!(counted(&answered, "Assigned").is_empty());

        let committed = moving("Committed", "east", None);
        assert_eq!(
            counted(&committed, "Assigned"),
            [answer("assigned"), end("moved")]
        );
        let in_place = moving("Open", "west", None);
        assert_eq!(
            counted(&in_place, "Assigned"),
            [answer("assigned"), end("reset")]
        );
        let aborting = moving("Aborting", "east", None);
        assert_eq!(
            counted(&aborting, "Assigned"),
            [answer("assigned"), end("given-up")]
        );
        // Its request was answered long ago.
        let triggered = moving("Committed", "east", Some("2026-11"));
        assert_eq!(counted(&triggered, "Assigned"), [end("moved")]);
    }
}
