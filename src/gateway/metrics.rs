//! What the gateway counts. Labels are words of ours, never anything a device says.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::mirror::Mirror;
use super::watch::Health;
use crate::clock::Clock;
use crate::wire::incidents::Incidents;

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    protocol: &'static str,
    operation: &'static str,
    /// What the device proved itself with: `token`, `certificate`, `tpm` or `nothing`.
    proof: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    verb: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProtocolLabels {
    protocol: &'static str,
}

/// The counters of one process.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    writes: Family<WriteLabels, Counter>,
    connections: Family<ProtocolLabels, Gauge>,
    durations: Family<ProtocolLabels, Histogram>,
    cached: Gauge,
    ready: Gauge,
    silence: Gauge<f64, AtomicU64>,
    incidents: Arc<Incidents>,
}

impl Metrics {
    /// All zero.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let incidents = Incidents::new(clock);
        let requests = Family::default();
        let writes = Family::default();
        let connections = Family::default();
        let durations = Family::<ProtocolLabels, Histogram>::new_with_constructor(|| {
            Histogram::new([0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0])
        });
        let (cached, ready, silence) = (Gauge::default(), Gauge::default(), Gauge::default());
        let mut registry = Registry::with_prefix("rehome_gateway");
        registry.register(
            "requests",
            "Requests of devices by protocol, operation, proof and outcome",
            requests.clone(),
        );
        registry.register(
            "registration_writes",
            "Calls that write or read registrations at the API server",
            writes.clone(),
        );
        registry.register(
            "connections",
            "Open connections of devices",
            connections.clone(),
        );
        registry.register(
            "request_duration_seconds",
            "Time from a request to its answer",
            durations.clone(),
        );
        registry.register(
            "incidents",
            "Clients that were turned away, by what they did",
            incidents.counters(),
        );
        registry.register(
            "cached_registrations",
            "Registrations in memory",
            cached.clone(),
        );
        registry.register(
            "ready",
            "1 while what is known of the cluster is complete and fresh",
            ready.clone(),
        );
        registry.register_with_unit(
            "watch_silence",
            "Since the watch that heard nothing for longest heard anything",
            Unit::Seconds,
            silence.clone(),
        );
        Self {
            registry,
            requests,
            writes,
            connections,
            durations,
            cached,
            ready,
            silence,
            incidents,
        }
    }

    /// Takes up how things stand now, to be read next.
    pub(super) fn show(&self, health: &Health, mirror: &Mirror) {
        self.cached
            .set(i64::try_from(mirror.len()).unwrap_or(i64::MAX));
        self.ready.set(i64::from(health.check().is_ok()));
        self.silence.set(health.silence().as_secs_f64());
    }

    /// Where it is counted and said that clients were turned away.
    pub fn incidents(&self) -> &Arc<Incidents> {
        &self.incidents
    }

    /// Counts one answered request.
    pub fn request(
        &self,
        protocol: &'static str,
        operation: &'static str,
        proof: &'static str,
        outcome: &'static str,
        seconds: f64,
    ) {
        let labels = RequestLabels {
            protocol,
            operation,
            proof,
            outcome,
        };
        self.requests.get_or_create(&labels).inc();
        self.durations
            .get_or_create(&ProtocolLabels { protocol })
            .observe(seconds);
    }

    /// Counts one call to the API server.
    pub fn api_call(&self, verb: &'static str, result: &'static str) {
        self.writes
            .get_or_create(&WriteLabels { verb, result })
            .inc();
    }

    /// Counts a connection for as long as the returned value lives.
    pub fn connection(&self, protocol: &'static str) -> Connected {
        let gauge = self
            .connections
            .get_or_create(&ProtocolLabels { protocol })
            .clone();
        gauge.inc();
        Connected(gauge)
    }

    /// Everything, as Prometheus reads it.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// See [`Metrics::connection`].
pub struct Connected(Gauge);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.dec();
    }
}
