//! Which devices and modules are connected, and what the hub remembers of them without storing it.
//!
//! A link is told of every change of desired properties in the order of their versions, and closed
//! as soon as its owner may no longer connect as it did. Whoever opens a link reads the device
//! again afterwards: a change is either seen by that read or tells the link.

mod link;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::client::Client;
use super::record::{Party, Record};
use super::twin::DesiredChange;
use crate::wire::mqtt::{Handle, Qos};
use link::Link;
pub(super) use link::{Busy, Call, MethodAnswer};

/// How much of a device's last message is kept.
const SAMPLE_BYTES: usize = 1024;

/// The sessions of one hub.
#[derive(Default)]
pub(super) struct Sessions {
    state: Mutex<State>,
    /// Told when somebody can be called who could not before.
    callable: Notify,
}

#[derive(Default)]
struct State {
    devices: HashMap<Arc<str>, Device>,
    /// Names links and method calls; never used twice.
    last_number: u64,
    connected: u64,
    telemetry: u64,
}

#[derive(Default)]
struct Device {
    own: Entry,
    modules: BTreeMap<Arc<str>, Entry>,
}

#[derive(Default)]
struct Entry {
    presence: Presence,
    link: Option<Link>,
}

/// What a service can see of a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Presence {
    pub(super) connected: bool,
    pub(super) changed: Option<Timestamp>,
    pub(super) last_activity: Option<Timestamp>,
    pub(super) telemetry: u64,
    /// The beginning of the last message.
    pub(super) sample: Bytes,
}

/// What a write means for connections.
#[derive(Debug)]
pub(super) enum Notice {
    /// Desired properties changed, of the device or of a module.
    Desired {
        module: Option<String>,
        change: DesiredChange,
    },
    /// There are messages for the device.
    Messages,
}

/// One connection's place among the sessions.
#[derive(Clone, Debug)]
pub(super) struct LinkName {
    device: Arc<str>,
    module: Option<Arc<str>>,
    number: u64,
}

impl Sessions {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change below is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a connection that has proven who it is, and closes its owner's earlier one. `mail` is
    /// told of messages.
    pub(super) fn open(
        &self,
        client: &Client,
        party: &Party<'_>,
        handle: Handle,
        mail: Arc<Notify>,
        now: Timestamp,
    ) -> LinkName {
        let mut state = self.state();
        state.last_number += 1;
        let name = LinkName {
            device: client.device.as_str().into(),
            module: client.module().map(Arc::from),
            number: state.last_number,
        };
        let device = state.devices.entry(Arc::clone(&name.device)).or_default();
        let entry = match &name.module {
            None => &mut device.own,
            Some(module) => device.modules.entry(Arc::clone(module)).or_default(),
        };
        entry.presence.connected = true;
        entry.presence.changed = Some(now);
        entry.presence.last_activity = Some(now);
        let link = Link::new(name.number, handle, party, mail);
        let earlier = entry.link.replace(link);
        let is_first = earlier.is_none();
        if let Some(earlier) = earlier {
            earlier.close();
        }
        state.connected += u64::from(is_first && name.module.is_none());
        name
    }

    /// Says which version of the desired properties the client is known to have had at least.
    pub(super) fn begin_after(&self, name: &LinkName, version: u64) {
        self.with_link(name, |link| link.begin_after(version));
    }

    pub(super) fn subscribe_desired(&self, name: &LinkName, qos: Option<Qos>) {
        self.with_link(name, |link| link.desired = qos);
    }

    pub(super) fn subscribe_methods(&self, name: &LinkName, qos: Option<Qos>) {
        self.with_link(name, |link| link.methods = qos);
        if qos.is_some() {
            self.callable.notify_waiters();
        }
    }

    /// Removes a connection that has ended.
    pub(super) fn close(&self, name: &LinkName, now: Timestamp) {
        let mut state = self.state();
        let Some(entry) = state.entry(&name.device, name.module.as_deref()) else {
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
            state.connected -= u64::from(name.module.is_none());
        }
    }

    /// Tells the connections of a device and its modules what a write did.
    pub(super) fn written(&self, id: &str, after: Option<&Record>, notice: Option<Notice>) {
        let mut state = self.state();
        let Some(device) = state.devices.get_mut(id) else {
            return;
        };
        device.own.check(after.and_then(|after| after.party(None)));
        device.modules.retain(|module, entry| {
            let party = after.and_then(|after| after.party(Some(module)));
            entry.check(party);
            party.is_some()
        });
        if after.is_none() {
            let was_connected = device.own.link.is_some();
            state.devices.remove(id);
            state.connected -= u64::from(was_connected);
            return;
        }
        match notice {
            Some(Notice::Desired { module, change }) => {
                let entry = state.entry(id, module.as_deref());
                if let Some(link) = entry.and_then(|entry| entry.link.as_mut()) {
                    link.tell(change);
                }
            }
            Some(Notice::Messages) => {
                if let Some(link) = &device.own.link {
                    link.mail.notify_one();
                }
            }
            None => {}
        }
    }

    /// Notes that the client was heard, and a message where it sent one.
    pub(super) fn heard(&self, name: &LinkName, message: Option<&Bytes>, now: Timestamp) {
        let mut state = self.state();
        if let Some(entry) = state.entry(&name.device, name.module.as_deref()) {
            entry.presence.last_activity = Some(now);
        }
        if let Some(message) = message {
            state.count(&name.device, name.module.as_deref(), message);
        }
    }

    /// Counts a message that came without a connection of its own.
    pub(super) fn took(&self, client: &Client, message: &Bytes) {
        let mut state = self.state();
        let device = client.device.as_str();
        if !state.devices.contains_key(device) {
            state.devices.insert(device.into(), Device::default());
        }
        if let (Some(module), Some(found)) = (client.module(), state.devices.get_mut(device))
            && !found.modules.contains_key(module)
        {
            found.modules.insert(module.into(), Entry::default());
        }
        state.count(device, client.module(), message);
    }

    pub(super) fn presence(&self, id: &str, module: Option<&str>) -> Presence {
        self.state()
            .entry(id, module)
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
        for device in self.state().devices.values() {
            for entry in std::iter::once(&device.own).chain(device.modules.values()) {
                if let Some(link) = &entry.link {
                    link.close();
                }
            }
        }
    }

    /// Sends a method call, if the client is connected and takes them.
    pub(super) fn call(
        self: &Arc<Self>,
        client: &Client,
        method: &str,
        payload: Bytes,
    ) -> Result<Option<Call>, Busy> {
        let mut state = self.state();
        state.last_number += 1;
        let number = state.last_number;
        let Some(link) = state
            .entry(client.device.as_str(), client.module())
            .and_then(|entry| entry.link.as_mut())
        else {
            return Ok(None);
        };
        let Some(answer) = link.call(number, method, payload)? else {
            return Ok(None);
        };
        let link = LinkName {
            device: client.device.as_str().into(),
            module: client.module().map(Arc::from),
            number: link.number,
        };
        Ok(Some(Call::new(Arc::clone(self), link, number, answer)))
    }

    /// Resolves when somebody can be called who could not before it was made.
    pub(super) fn callable(&self) -> Notified<'_> {
        self.callable.notified()
    }

    /// Hands a client's answer to whoever called the method.
    pub(super) fn answer(&self, name: &LinkName, rid: &str, answer: MethodAnswer) {
        self.with_link(name, |link| link.answer(rid, answer));
    }

    fn forget_call(&self, name: &LinkName, number: u64) {
        self.with_link(name, |link| link.forget_call(number));
    }

    fn with_link(&self, name: &LinkName, act: impl FnOnce(&mut Link)) {
        let mut state = self.state();
        let link = state
            .entry(&name.device, name.module.as_deref())
            .and_then(|entry| entry.link.as_mut());
        if let Some(link) = link.filter(|link| link.number == name.number) {
            act(link);
        }
    }
}

impl State {
    fn entry(&mut self, device: &str, module: Option<&str>) -> Option<&mut Entry> {
        let device = self.devices.get_mut(device)?;
        match module {
            None => Some(&mut device.own),
            Some(module) => device.modules.get_mut(module),
        }
    }

    fn count(&mut self, device: &str, module: Option<&str>, message: &Bytes) {
        self.telemetry += 1;
        if let Some(entry) = self.entry(device, module) {
            entry.presence.telemetry += 1;
            // Copied, so that a large message does not stay in memory for its beginning.
            let sample = &message[..message.len().min(SAMPLE_BYTES)];
            entry.presence.sample = Bytes::copy_from_slice(sample);
        }
    }
}

impl Entry {
    /// Closes a link whose owner may no longer be connected as it proved to be.
    fn check(&self, party: Option<Party<'_>>) {
        if let Some(link) = &self.link
            && !party.is_some_and(|party| link.is_allowed(&party))
        {
            link.close();
        }
    }
}
