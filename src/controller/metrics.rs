//! What `/metrics` shows. Labels are reasons and classes, never names of devices or objects.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::api::v1alpha1::Reason;

/// The controller's counters.
pub struct Metrics {
    registry: Registry,
    decisions: Family<ReasonLabel, Counter>,
    errors: Family<ErrorLabels, Counter>,
    leftovers: Family<FateLabel, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
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

impl Metrics {
    /// All counters at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("rehome");
        let decisions = Family::default();
        registry.register("decisions", "Decisions by reason", decisions.clone());
        let errors = Family::default();
        registry.register("reconcile_errors", "Failed passes by class", errors.clone());
        let leftovers = Family::default();
        let help = "Disabled identities with our mark found at hubs and explained by no record";
        registry.register("leftovers", help, leftovers.clone());
        Self {
            registry,
            decisions,
            errors,
            leftovers,
        }
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

    /// All of it as `OpenMetrics` text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
