//! What the hub counts: requests to its service API, connected devices, telemetry. Labels are words
//! of ours, never anything that a client says.

use std::sync::Arc;

use axum::http::{Method, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::Hub;
use super::store::Standing;
use crate::clock::Clock;
use crate::wire::incidents::Incidents;

/// The counters of one hub.
pub(super) struct Metrics {
    requests: Family<RequestLabels, Counter>,
    /// Clients that were turned away.
    pub(super) incidents: Arc<Incidents>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    operation: &'static str,
    status: u16,
}

impl Metrics {
    /// All zero.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            requests: Family::default(),
            incidents: Incidents::new(clock),
        }
    }

    /// Counts one answered request; `route` is the path as the router knows it.
    pub(super) fn request(&self, method: &Method, route: Option<&str>, status: StatusCode) {
        let labels = RequestLabels {
            operation: operation(method, route.unwrap_or_default()),
            status: status.as_u16(),
        };
        self.requests.get_or_create(&labels).inc();
    }
}

/// Everything that is counted, as Prometheus reads it.
pub(super) fn text(hub: &Hub) -> String {
    let mut registry = Registry::with_prefix("rehome_hub");
    registry.register(
        "requests",
        "Requests to the service API by operation and HTTP status",
        hub.metrics.requests.clone(),
    );
    registry.register(
        "connected_devices",
        "Devices that are connected over MQTT",
        ConstGauge::new(i64::try_from(hub.sessions.connected()).unwrap_or(i64::MAX)),
    );
    registry.register(
        "telemetry_messages",
        "Messages taken from devices since the start",
        ConstCounter::new(hub.sessions.telemetry()),
    );
    registry.register(
        "incidents",
        "Clients that were turned away, by what they did",
        hub.metrics.incidents.counters(),
    );
    registry.register(
        "store_takes_writes",
        "Whether the store takes writes (1), or its volume is full or its database away (0)",
        ConstGauge::new(i64::from(hub.store.standing() == Standing::Well)),
    );
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = encode(&mut text, &registry);
    text
}

fn operation(method: &Method, route: &str) -> &'static str {
    match (method.as_str(), route) {
        ("GET", "/devices" | "/devices/") => "list_identities",
        ("POST", "/devices" | "/devices/") => "bulk",
        ("GET", "/devices/{id}") => "read_identity",
        ("PUT", "/devices/{id}") => "write_identity",
        ("POST", "/devices/{id}") => "query",
        ("DELETE", "/devices/{id}") => "delete_identity",
        ("GET", "/devices/{id}/modules") => "list_modules",
        ("GET", "/devices/{id}/modules/{module}") => "read_module",
        ("PUT", "/devices/{id}/modules/{module}") => "write_module",
        ("DELETE", "/devices/{id}/modules/{module}") => "delete_module",
        ("DELETE", "/devices/{id}/commands") => "purge_commands",
        ("POST", "/messages/devicebound" | "/messages/deviceBound") => "send_message",
        ("GET", "/messages/events" | "/devices/{id}/messages/events") => "read_telemetry",
        ("POST", "/devices/{id}/messages/events") => "send_telemetry",
        ("GET", "/twins/{id}") => "read_twin",
        ("PATCH", "/twins/{id}") => "patch_twin",
        ("PUT", "/twins/{id}") => "replace_twin",
        (_, route) if route.to_ascii_lowercase().contains("/messages/devicebound") => {
            "fetch_messages"
        }
        ("GET", "/twins/{id}/modules/{module}") => "read_module_twin",
        ("PATCH", "/twins/{id}/modules/{module}") => "patch_module_twin",
        ("PUT", "/twins/{id}/modules/{module}") => "replace_module_twin",
        ("POST", "/twins/{id}/methods" | "/twins/{id}/modules/{module}/methods") => "call_method",
        ("GET", route) if route.starts_with("/statistics/") => "statistics",
        _ => "other",
    }
}
