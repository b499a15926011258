//! One connection: what it is told, in which order, and the method calls that wait for it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};

use super::{LinkName, Sessions};
use crate::hub::identity::Authentication;
use crate::hub::record::Party;
use crate::hub::twin::DesiredChange;
use crate::wire::mqtt::{Handle, Qos};

/// Changes that may wait for an earlier one that is still on its way here.
const OUT_OF_ORDER: usize = 64;
/// Method calls that may wait for one client; together with messages fewer than a client may leave
/// unacknowledged.
const CALLS: usize = 16;

pub(super) struct Link {
    pub(super) number: u64,
    handle: Handle,
    generation_id: String,
    authentication: Authentication,
    /// At which QoS changes of desired properties are delivered.
    pub(super) desired: Option<Qos>,
    /// At which QoS method calls are delivered.
    pub(super) methods: Option<Qos>,
    pub(super) mail: Arc<Notify>,
    /// The version to be told next; `None` until it is known where to begin.
    next_version: Option<u64>,
    early: BTreeMap<u64, DesiredChange>,
    calls: HashMap<u64, oneshot::Sender<MethodAnswer>>,
}

/// What a client answers to a method call.
#[derive(Debug)]
pub(in crate::hub) struct MethodAnswer {
    pub(in crate::hub) status: i64,
    pub(in crate::hub) payload: Bytes,
}

/// Too many calls wait for this client already.
#[derive(Debug)]
pub(in crate::hub) struct Busy;

/// A method call under way; forgotten when dropped.
pub(in crate::hub) struct Call {
    sessions: Arc<Sessions>,
    link: LinkName,
    number: u64,
    answer: oneshot::Receiver<MethodAnswer>,
}

impl Call {
    pub(super) fn new(
        sessions: Arc<Sessions>,
        link: LinkName,
        number: u64,
        answer: oneshot::Receiver<MethodAnswer>,
    ) -> Self {
        Self {
            sessions,
            link,
            number,
            answer,
        }
    }

    /// The answer; `None` when the connection ended before there was one.
    pub(in crate::hub) async fn answer(&mut self) -> Option<MethodAnswer> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.sessions.forget_call(&self.link, self.number);
    }
}

impl Link {
    pub(super) fn new(number: u64, handle: Handle, party: &Party<'_>, mail: Arc<Notify>) -> Self {
        Self {
            number,
            handle,
            generation_id: party.generation_id.to_owned(),
            authentication: party.authentication.clone(),
            desired: None,
            methods: None,
            mail,
            next_version: None,
            early: BTreeMap::new(),
            calls: HashMap::new(),
        }
    }

    pub(super) fn close(&self) {
        self.handle.close();
    }

    /// Whether the client may still be connected as it proved to be.
    pub(super) fn is_allowed(&self, party: &Party<'_>) -> bool {
        party.enabled
            && party.generation_id == self.generation_id
            && *party.authentication == self.authentication
    }

    pub(super) fn begin_after(&mut self, version: u64) {
        self.next_version = Some(version + 1);
        self.tell_early();
    }

    /// Writers finish in any order; clients are told in the order of versions.
    pub(super) fn tell(&mut self, change: DesiredChange) {
        if self.next_version.is_none_or(|next| change.version >= next) {
            self.early.insert(change.version, change);
        }
        if self.early.len() > OUT_OF_ORDER {
            // The client asks for the whole when it connects again.
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

    /// Sends a call; `None` where the client takes none.
    pub(super) fn call(
        &mut self,
        number: u64,
        method: &str,
        payload: Bytes,
    ) -> Result<Option<oneshot::Receiver<MethodAnswer>>, Busy> {
        let Some(qos) = self.methods else {
            return Ok(None);
        };
        if self.calls.len() >= CALLS {
            return Err(Busy);
        }
        let topic = format!("$iothub/methods/POST/{method}/?$rid={number:x}");
        if self.handle.publish(topic, payload, qos, 0).is_err() {
            return Ok(None);
        }
        let (answer, answered) = oneshot::channel();
        self.calls.insert(number, answer);
        Ok(Some(answered))
    }

    /// Answers to calls that nobody waits for any more are dropped.
    pub(super) fn answer(&mut self, rid: &str, answer: MethodAnswer) {
        let number = u64::from_str_radix(rid, 16).ok();
        if let Some(waiting) = number.and_then(|number| self.calls.remove(&number)) {
            let _ = waiting.send(answer);
        }
    }

    pub(super) fn forget_call(&mut self, number: u64) {
        self.calls.remove(&number);
    }
}
