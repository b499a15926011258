//! How many there are of what, at the moment that somebody asks for metrics.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::context::Context;
use crate::api::v1alpha1::{ConditionType, IoTHub, RegistrationCounts};

/// See [`Context::census`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Census {
    /// Registrations by state.
    pub registrations: RegistrationCounts,
    /// Those that something is still to be done for.
    pub unsettled: i64,
    /// Moves under way.
    pub open_moves: i64,
    /// How long the oldest of them has been.
    pub oldest_move: SignedDuration,
    /// Registrations of which something may be left at a hub.
    pub to_clean_up: i64,
    /// Objects in memory, by kind.
    pub objects: [(&'static str, i64); 4],
    /// Hubs, by the reason of their Ready condition.
    pub hubs: BTreeMap<String, i64>,
}

/// What is not at rest, of all registrations.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Unsettled {
    pub(super) all: i64,
    pub(super) moves: i64,
    pub(super) oldest_move: Option<Timestamp>,
    pub(super) to_clean_up: i64,
}

impl Context {
    /// Counts. What is at rest is counted already; only what is not is looked at.
    pub fn census(&self) -> Census {
        let unsettled = self.index.unsettled();
        let hubs = self.stores.hubs.state();
        let mut by_reason = BTreeMap::new();
        for hub in &hubs {
            *by_reason.entry(reason(hub)).or_default() += 1;
        }
        let age = |since| self.clock.now().duration_since(since);
        let count = |many: usize| i64::try_from(many).unwrap_or(i64::MAX);
        let registrations = self.index.totals();
        Census {
            registrations,
            unsettled: unsettled.all,
            open_moves: unsettled.moves,
            oldest_move: unsettled.oldest_move.map(age).unwrap_or_default(),
            to_clean_up: unsettled.to_clean_up,
            objects: [
                ("IoTHub", count(hubs.len())),
                ("Enrollment", count(self.stores.enrollments.len())),
                ("DeviceRegistration", count(self.stores.registrations.len())),
                ("Secret", count(self.stores.secrets.len())),
            ],
            hubs: by_reason,
        }
    }
}

fn reason(hub: &IoTHub) -> String {
    let conditions = hub.status.iter().flat_map(|status| &status.conditions);
    let mut ready = conditions.filter(|it| it.type_ == ConditionType::Ready.as_str());
    ready
        .next()
        .map_or_else(|| "Unknown".to_owned(), |it| it.reason.clone())
}
