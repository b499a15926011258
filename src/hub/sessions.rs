//! Which devices are connected, and what the hub remembers of devices without storing it.
//!
//! A link is told of every change of desired properties in the order of their versions, and closed
//! as soon as its device may no longer connect as it did. Whoever opens a link reads the device
//! again afterwards: a change is either seen by that read or tells the link.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;

use super::identity::{Authentication, Identity};
use super::record::Record;
use super::twin::DesiredChange;
use crate::domain::ids::DeviceId;
use crate::wire::mqtt::{Handle, Qos};

/// Changes that may wait for an earlier one that is still on its way here.
const OUT_OF_ORDER: usize = 64;
/// How much of a device's last message is kept.
const SAMPLE_BYTES: usize = 1024;

/// The sessions of one hub.
#[derive(Default)]
pub(super) struct Sessions(Mutex<State>);

#[derive(Default)]
struct State {
    devices: HashMap<Arc<str>, Entry>,
    /// Names links; never used twice.
    last_link: u64,
    connected: u64,
    telemetry: u64,
}

#[derive(Default)]
struct Entry {
    presence: Presence,
    link: Option<Link>,
}

/// What a service can see of a device's connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Presence {
    pub(super) connected: bool,
    pub(super) changed: Option<Timestamp>,
    pub(super) last_activity: Option<Timestamp>,
    pub(super) telemetry: u64,
    /// The beginning of the last message.
    pub(super) sample: Bytes,
}

struct Link {
    number: u64,
    handle: Handle,
    generation_id: String,
    authentication: Authentication,
    /// At which QoS changes of desired properties are delivered.
    desired: Option<Qos>,
    /// The version to be told next; `None` until it is known where to begin.
    next_version: Option<u64>,
    early: BTreeMap<u64, DesiredChange>,
}

/// One connection's place among the sessions.
#[derive(Clone, Debug)]
pub(super) struct LinkName {
    device: Arc<str>,
    number: u64,
}

impl Sessions {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change below is whole before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a connection that has proven who it is, and closes the device's earlier one.
    pub(super) fn open(
        &self,
        id: &DeviceId,
        identity: &Identity,
        handle: Handle,
        now: Timestamp,
    ) -> LinkName {
        let mut state = self.state();
        state.last_link += 1;
        let number = state.last_link;
        let device: Arc<str> = id.as_str().into();
        let entry = state.devices.entry(Arc::clone(&device)).or_default();
        let link = Link {
            number,
            handle,
            generation_id: identity.generation_id.clone(),
            authentication: identity.authentication.clone(),
            desired: None,
            next_version: None,
            early: BTreeMap::new(),
        };
        entry.presence.connected = true;
        entry.presence.changed = Some(now);
        entry.presence.last_activity = Some(now);
        match entry.link.replace(link) {
            Some(earlier) => earlier.handle.close(),
            None => state.connected += 1,
        }
        LinkName { device, number }
    }

    /// Says which version of the desired properties the device is known to have had at least.
    pub(super) fn begin_after(&self, name: &LinkName, version: u64) {
        self.with_link(name, |link| {
            link.next_version = Some(version + 1);
            link.tell_early();
        });
    }

    pub(super) fn subscribe_desired(&self, name: &LinkName, qos: Option<Qos>) {
        self.with_link(name, |link| link.desired = qos);
    }

    /// Removes a connection that has ended.
    pub(super) fn close(&self, name: &LinkName, now: Timestamp) {
        let mut state = self.state();
        let Some(entry) = state.devices.get_mut(&name.device) else {
            return;
        };
        if entry
            .link
            .as_ref()
            .is_some_and(|link| link.number == name.number)
        {
            entry.link = None;
            entry.presence.connected = false;
            entry.presence.changed = Some(now);
            state.connected -= 1;
        }
    }

    /// Tells the device's connection what a write did.
    pub(super) fn written(&self, id: &str, after: Option<&Record>, desired: Option<DesiredChange>) {
        let mut state = self.state();
        let Some(entry) = state.devices.get_mut(id) else {
            return;
        };
        if let Some(link) = &mut entry.link {
            if !after.is_some_and(|record| link.is_allowed(&record.identity)) {
                link.handle.close();
            } else if let Some(change) = desired {
                link.tell(change);
            }
        }
        if after.is_none() {
            let was_connected = entry.link.is_some();
            state.devices.remove(id);
            state.connected -= u64::from(was_connected);
        }
    }

    /// Notes that the device was heard, and a message where it sent one.
    pub(super) fn heard(&self, name: &LinkName, message: Option<&Bytes>, now: Timestamp) {
        let mut state = self.state();
        state.telemetry += u64::from(message.is_some());
        if let Some(entry) = state.devices.get_mut(&name.device) {
            entry.presence.last_activity = Some(now);
            if let Some(message) = message {
                entry.presence.telemetry += 1;
                // Copied, so that a large message does not stay in memory for its beginning.
                let sample = &message[..message.len().min(SAMPLE_BYTES)];
                entry.presence.sample = Bytes::copy_from_slice(sample);
            }
        }
    }

    pub(super) fn presence(&self, id: &str) -> Presence {
        self.state()
            .devices
            .get(id)
            .map(|entry| entry.presence.clone())
            .unwrap_or_default()
    }

    pub(super) fn connected(&self) -> u64 {
        self.state().connected
    }

    /// Messages taken from all devices since the hub started.
    pub(super) fn telemetry(&self) -> u64 {
        self.state().telemetry
    }

    /// Closes every connection.
    pub(super) fn close_all(&self) {
        for link in self
            .state()
            .devices
            .values()
            .filter_map(|entry| entry.link.as_ref())
        {
            link.handle.close();
        }
    }

    fn with_link(&self, name: &LinkName, act: impl FnOnce(&mut Link)) {
        let mut state = self.state();
        let link = state
            .devices
            .get_mut(&name.device)
            .and_then(|entry| entry.link.as_mut());
        if let Some(link) = link.filter(|link| link.number == name.number) {
            act(link);
        }
    }
}

impl Link {
    /// Whether the device may still be connected as it proved to be.
    fn is_allowed(&self, identity: &Identity) -> bool {
        identity.enabled
            && identity.generation_id == self.generation_id
            && identity.authentication == self.authentication
    }

    /// Writers finish in any order; devices are told in the order of versions.
    fn tell(&mut self, change: DesiredChange) {
        if self.next_version.is_none_or(|next| change.version >= next) {
            self.early.insert(change.version, change);
        }
        if self.early.len() > OUT_OF_ORDER {
            // The device asks for the whole when it connects again.
            self.handle.close();
            self.early.clear();
        }
        self.tell_early();
    }

    fn tell_early(&mut self) {
        let Some(next) = &mut self.next_version else {
            return;
        };
        while let Some(first) = self.early.first_entry().filter(|first| first.key() <= next) {
            let change = first.remove();
            if change.version < *next {
                continue;
            }
            *next += 1;
            if let Some(qos) = self.desired {
                let topic = format!(
                    "$iothub/twin/PATCH/properties/desired/?$version={}",
                    change.version
                );
                let payload = Bytes::from(change.for_device().to_string());
                // A connection that is gone or too slow has closed by itself.
                let _ = self.handle.publish(topic, payload, qos, 0);
            }
        }
    }
}
