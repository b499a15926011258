//! What is done to a server that stands open to the Internet, counted and said without letting the
//! attacker write the log: one line for each kind of incident in ten seconds, and no word of a
//! client's in it but its address.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use crate::clock::Clock;

/// Shortest time between two log lines about one kind of incident.
const QUIET: Duration = Duration::from_secs(10);

/// Why a client was turned away before it proved who it is, or although it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Incident {
    /// All connections are taken.
    TooManyConnections,
    /// All connections, or handshakes, of one client are taken.
    TooManyOfClient,
    /// The TLS handshake did not end in time.
    SlowHandshake,
    /// The TLS handshake failed.
    FailedHandshake,
    /// What a trusted load balancer sent first is no PROXY protocol header of version 2.
    BadProxyHeader,
    /// A request, or the packet that opens a session, did not arrive in time.
    SlowRequest,
    /// What arrived is not the protocol that is spoken here, or exceeds its bounds.
    Malformed,
    /// One client failed to authenticate too often.
    TooManyFailures,
    /// One device asked too often.
    TooManyRequests,
    /// A group has as many registrations as it may.
    TooManyRegistrations,
}

/// Every kind, in the order of the counters.
pub const INCIDENTS: [Incident; 10] = [
    Incident::TooManyConnections,
    Incident::TooManyOfClient,
    Incident::SlowHandshake,
    Incident::FailedHandshake,
    Incident::BadProxyHeader,
    Incident::SlowRequest,
    Incident::Malformed,
    Incident::TooManyFailures,
    Incident::TooManyRequests,
    Incident::TooManyRegistrations,
];

impl Incident {
    /// The word in metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::TooManyConnections => "too_many_connections",
            Self::TooManyOfClient => "too_many_of_client",
            Self::SlowHandshake => "slow_handshake",
            Self::FailedHandshake => "failed_handshake",
            Self::BadProxyHeader => "bad_proxy_header",
            Self::SlowRequest => "slow_request",
            Self::Malformed => "malformed",
            Self::TooManyFailures => "too_many_failures",
            Self::TooManyRequests => "too_many_requests",
            Self::TooManyRegistrations => "too_many_registrations",
        }
    }

    /// What it means and what to do, for the log.
    const fn meaning(self) -> &'static str {
        match self {
            Self::TooManyConnections => {
                "connections are dropped: as many are open as may be; see --max-connections"
            }
            Self::TooManyOfClient => {
                "connections of one client are dropped: too many, or too fast; if it is a NAT or a load balancer, see \
                 --unlimited-network and --proxy-protocol-from"
            }
            Self::SlowHandshake => "TLS handshakes did not end in time and were dropped",
            Self::FailedHandshake => "TLS handshakes failed; clients may not trust the certificate",
            Self::BadProxyHeader => {
                "a load balancer that --proxy-protocol-from names sends no PROXY protocol version 2"
            }
            Self::SlowRequest => "requests did not arrive in time and were dropped",
            Self::Malformed => "clients do not speak the protocol, or exceed its bounds",
            Self::TooManyFailures => {
                "one client failed to authenticate too often and has to wait; if it is a NAT, see \
                 --unlimited-network"
            }
            Self::TooManyRequests => "one device asks too often and has to wait",
            Self::TooManyRegistrations => {
                "new devices are refused: their Enrollment has maxRegistrations; if they are not \
                 yours, its key is known to somebody else"
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct IncidentLabels {
    incident: &'static str,
}

/// The incidents of one process.
pub struct Incidents {
    clock: Arc<dyn Clock>,
    counters: Family<IncidentLabels, Counter>,
    said: [Mutex<Said>; INCIDENTS.len()],
}

/// When a line was written last, and what happened since without one.
#[derive(Default)]
struct Said {
    last: Option<Duration>,
    unsaid: u64,
}

impl Incidents {
    /// None so far.
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        let counters = Family::default();
        for incident in INCIDENTS.map(Incident::label) {
            // What appears only when it happens for the first time has no rate then.
            let _: Counter = counters.get_or_create_owned(&IncidentLabels { incident });
        }
        Arc::new(Self {
            clock,
            counters,
            said: Default::default(),
        })
    }

    /// Counts an incident and says so, if nothing was said of its kind for a while.
    pub fn note(&self, incident: Incident, address: IpAddr) {
        let label = incident.label();
        self.counters
            .get_or_create(&IncidentLabels { incident: label })
            .inc();
        if let Some(unsaid) = self.is_to_be_said(incident) {
            let meaning = incident.meaning();
            tracing::warn!(incident = label, %address, more = unsaid, "{meaning}");
        }
    }

    /// The counters, to be registered with the other metrics.
    pub fn counters(&self) -> Family<IncidentLabels, Counter> {
        self.counters.clone()
    }

    /// How many of a kind there were.
    pub fn count(&self, incident: Incident) -> u64 {
        let incident = incident.label();
        self.counters
            .get_or_create(&IncidentLabels { incident })
            .get()
    }

    fn is_to_be_said(&self, incident: Incident) -> Option<u64> {
        let place = INCIDENTS.iter().position(|known| *known == incident)?;
        let now = self.clock.monotonic();
        let said = self.said.get(place)?;
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        if said
            .last
            .is_some_and(|last| now.saturating_sub(last) < QUIET)
        {
            said.unsaid += 1;
            return None;
        }
        said.last = Some(now);
        Some(std::mem::take(&mut said.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Stopped;

    #[test]
    fn every_incident_is_counted_and_few_are_said() {
        let clock = Arc::new(Stopped::default());
        let incidents = Incidents::new(clock.clone());
        let address = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(incidents.is_to_be_said(Incident::Malformed), Some(0));
        for _ in 0..1000 {
            incidents.note(Incident::Malformed, address);
        }
        assert_eq!(incidents.count(Incident::Malformed), 1000);
        assert_eq!(incidents.is_to_be_said(Incident::SlowRequest), Some(0));
        assert_eq!(incidents.is_to_be_said(Incident::Malformed), None);
        clock.forward(QUIET);
        assert_eq!(incidents.is_to_be_said(Incident::Malformed), Some(1001));
        assert_eq!(incidents.is_to_be_said(Incident::Malformed), None);
    }

    #[test]
    fn every_kind_has_its_own_word_and_place() {
        let mut labels = std::collections::HashSet::new();
        for incident in INCIDENTS {
            assert!(labels.insert(incident.label()));
            assert!(!incident.meaning().is_empty());
        }
    }
}
