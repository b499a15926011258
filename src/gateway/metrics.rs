//! What the gateway counts. Labels are words of ours, never anything a device says.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::clock::Clock;
use crate::wire::incidents::Incidents;

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    protocol: &'static str,
    operation: &'static str,
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
        let mut registry = Registry::with_prefix("rehome_gateway");
        registry.register(
            "requests",
            "Requests of devices by protocol, operation and outcome",
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
        Self {
            registry,
            requests,
            writes,
            connections,
            durations,
            incidents,
        }
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
        outcome: &'static str,
        seconds: f64,
    ) {
        let labels = RequestLabels {
            protocol,
            operation,
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
