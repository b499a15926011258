//! Answers that outlive a connection.
//!
//! A client that connects without a clean session, loses its connection and comes back neither
//! subscribes again nor repeats an acknowledged request: it waits. So what it asked and was not seen
//! to receive is kept a while and sent again. In memory, at this replica only: on another one the
//! device asks again after its own timeout, which is what it does today.
//!
//! The Java SDK connects like this too, but waits for nothing of before: it takes whatever comes first
//! for the answer to what it asks next. So a device that is back is left alone for a moment; if it asks
//! something new by then, or said goodbye before (DISCONNECT), it is not sent what is old.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use moka::sync::Cache;

use crate::wire::mqtt::{Handle, Qos};

/// How long an answer may wait for its device: longer than any SDK does.
const KEPT: Duration = Duration::from_secs(90);
/// Requests of one device that are remembered.
const LETTERS: usize = 8;

/// The mailboxes of all devices; the least used go first.
pub struct Mailboxes(Cache<String, Arc<Mailbox>>);

impl Mailboxes {
    /// Of at most so many devices.
    pub(super) fn new(most: u64) -> Self {
        Self(
            Cache::builder()
                .max_capacity(most)
                .time_to_idle(KEPT)
                .build(),
        )
    }

    /// The mailbox of a device that has one.
    pub(super) fn find(&self, device: &str) -> Option<Arc<Mailbox>> {
        self.0.get(device)
    }

    /// The mailbox of a device.
    pub(super) fn of(&self, device: &str) -> Arc<Mailbox> {
        self.0.get_with_by_ref(device, Arc::default)
    }
}

/// What one device asked lately.
#[derive(Default)]
pub(super) struct Mailbox(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// Where the device is now.
    connection: Option<(u64, Handle)>,
    /// Whether it waits there for what it asked on connections before.
    waits: bool,
    letters: VecDeque<Letter>,
    token: u64,
}

struct Letter {
    /// Where it was asked.
    connection: u64,
    rid: String,
    token: u64,
    /// Absent while the request is being served.
    answer: Option<Message>,
    received: bool,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) topic: String,
    pub(super) body: Bytes,
}

/// What a request is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// To be served, and finished with this token.
    New(u64),
    /// A repetition of one that is served or answered already.
    Repeated,
}

impl Mailbox {
    /// Notes a request. A repetition that the client marks as such is not served twice; its answer
    /// is sent again if there is one. Who asks something new waits for nothing of before.
    pub(super) fn begin(&self, connection: u64, rid: &str, duplicate: bool) -> Begin {
        let mut inner = self.inner();
        if duplicate && inner.letters.iter().any(|letter| letter.rid == rid) {
            for letter in inner.letters.iter_mut().filter(|letter| letter.rid == rid) {
                letter.received = false;
                letter.connection = connection;
            }
            inner.send(|letter| letter.rid == rid);
            return Begin::Repeated;
        }
        // Embedded clients use one request id for everything.
        inner
            .letters
            .retain(|letter| letter.connection == connection && letter.rid != rid);
        if inner.letters.len() >= LETTERS {
            inner.letters.pop_front();
        }
        inner.token += 1;
        let token = inner.token;
        inner.letters.push_back(Letter {
            connection,
            rid: rid.to_owned(),
            token,
            answer: None,
            received: false,
        });
        Begin::New(token)
    }

    /// The request is answered: now, if the device is there, or when it comes back.
    pub(super) fn finish(&self, token: u64, answer: Message) {
        let mut inner = self.inner();
        let mut letters = inner.letters.iter_mut();
        if let Some(letter) = letters.find(|letter| letter.token == token) {
            letter.answer = Some(answer);
        }
        inner.send(|letter| letter.token == token);
    }

    /// The device has received the answer of that token.
    pub(super) fn received(&self, token: u64) {
        let mut inner = self.inner();
        if let Some(letter) = inner
            .letters
            .iter_mut()
            .find(|letter| letter.token == token)
        {
            letter.received = true;
        }
    }

    /// The device is at this connection now.
    pub(super) fn attach(&self, connection: u64, handle: Handle) {
        let mut inner = self.inner();
        if !inner.is_at(connection) {
            inner.connection = Some((connection, handle));
            inner.waits = false;
        }
    }

    /// The device asks nothing new: what it has not received is sent.
    pub(super) fn deliver(&self, connection: u64) {
        let mut inner = self.inner();
        if inner.is_at(connection) {
            inner.waits = true;
            inner.send(|_| true);
        }
    }

    /// The device is no longer at this connection.
    pub(super) fn detach(&self, connection: u64, says_goodbye: bool) {
        let mut inner = self.inner();
        if inner.is_at(connection) {
            inner.connection = None;
            if says_goodbye {
                inner.letters.clear();
            }
        }
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn is_at(&self, connection: u64) -> bool {
        let current = self.connection.as_ref();
        current.is_some_and(|(current, _)| *current == connection)
    }

    fn send(&mut self, which: impl Fn(&Letter) -> bool) {
        let Some((here, handle)) = &self.connection else {
            return;
        };
        let is_due = |letter: &Letter| self.waits || letter.connection == *here;
        for letter in self
            .letters
            .iter()
            .filter(|letter| !letter.received && is_due(letter) && which(letter))
        {
            let Some(Message { topic, body }) = &letter.answer else {
                continue;
            };
            // A connection that is gone meanwhile detaches; the answer stays.
            let _ = handle.publish(topic.clone(), body.clone(), Qos::AtLeastOnce, letter.token);
        }
    }
}
