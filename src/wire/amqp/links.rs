//! Links of one session: who sends what to whom, and how much of it.
//!
//! Names mean nothing here: a client may give both of its links one name. Handles of ours are places
//! in a short list.

use std::collections::VecDeque;

use super::Event;
use super::frames::{self, HEAD, Layer};
use super::message::Message;
use super::session::{
    ATTACH, DETACH, DISPOSITION, FLOW, SessionLimits, TRANSFER, Violation, error, violation, window,
};
use super::types::{Fields, Value};

const ACCEPTED: u64 = 0x24;
const REJECTED: u64 = 0x25;
/// More than the head of a frame and the fields of a TRANSFER of ours take.
const TRANSFER_HEAD: usize = HEAD + 64;
/// A client that wants everything settled by us at once.
const SETTLED: u64 = 1;

/// A client that wants to open a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attach {
    /// Whether the client sends by it; else it receives.
    pub sends: bool,
    /// Where from or where to, on our side.
    pub address: Option<String>,
    /// The properties of the link that are text.
    pub properties: Vec<(String, String)>,
}

impl Attach {
    /// A property of the link.
    pub fn property(&self, name: &str) -> Option<&str> {
        let mut found = self.properties.iter().filter(|(key, _)| key == name);
        found.next().map(|(_, value)| value.as_str())
    }
}

/// Which message it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    id: u32,
    slot: usize,
    settled: bool,
}

impl Delivery {
    /// The client does not want to know what becomes of it.
    pub fn is_settled(&self) -> bool {
        self.settled
    }
}

/// What becomes of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Accepted,
    Rejected {
        condition: &'static str,
        description: String,
        /// Numbers that go with it.
        info: Vec<(&'static str, i32)>,
    },
}

/// The client receives by no link, or does not take what it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client has no link that takes a message")]
pub struct NoLink;

#[derive(Debug)]
struct Link {
    /// The client's number of it.
    handle: u32,
    /// Whether the client sends by it.
    receives: bool,
    credit: u32,
    delivery_count: u32,
    /// Whether our messages need no acknowledgement.
    settled: bool,
}

/// An ATTACH that waits for its owner; as written, to be echoed.
#[derive(Debug)]
struct Attaching {
    link: Link,
    name: Vec<u8>,
    source: Vec<u8>,
    target: Vec<u8>,
}

/// A message of which some is here.
#[derive(Debug)]
struct Partial {
    delivery: Delivery,
    bytes: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Links {
    limits: SessionLimits,
    /// The client's largest frame.
    frame: u32,
    open: Vec<Option<Link>>,
    attaching: Option<Attaching>,
    partial: Option<Partial>,
    /// Messages that wait for credit, and the place of their link.
    queue: VecDeque<(usize, Vec<u8>)>,
    next_incoming: u32,
    next_outgoing: u32,
    next_delivery: u32,
    /// Transfers that the client takes.
    window: u32,
}

impl Links {
    pub(super) fn new(limits: SessionLimits) -> Self {
        Self {
            limits,
            frame: limits.frame,
            open: Vec::new(),
            attaching: None,
            partial: None,
            queue: VecDeque::new(),
            next_incoming: 0,
            next_outgoing: 0,
            next_delivery: 0,
            window: 0,
        }
    }

    /// Of a session that the client begins.
    pub(super) fn begin(limits: SessionLimits, before: &Self, fields: &Fields<'_>) -> Self {
        Self {
            frame: before.frame,
            next_incoming: fields.get(1).uint().unwrap_or_default(),
            window: fields.get(2).uint().unwrap_or_default(),
            ..Self::new(limits)
        }
    }

    pub(super) fn set_frame(&mut self, frame: u32) {
        self.frame = frame;
    }

    pub(super) fn is_deciding(&self) -> bool {
        self.attaching.is_some()
    }

    pub(super) fn frame(
        &mut self,
        out: &mut Vec<u8>,
        code: u64,
        fields: &Fields<'_>,
        payload: &[u8],
    ) -> Result<Option<Event>, Violation> {
        match code {
            ATTACH => self.attach(fields).map(Some),
            FLOW => self.flow(out, fields).map(|()| None),
            TRANSFER => self.transfer(fields, payload),
            DISPOSITION => {
                Self::disposition(out, fields);
                Ok(None)
            }
            DETACH => {
                self.detach(out, fields);
                Ok(None)
            }
            _ => violation("amqp:not-implemented", "an unknown performative"),
        }
    }

    fn attach(&mut self, fields: &Fields<'_>) -> Result<Event, Violation> {
        let handle = handle(fields, 1)?;
        if self.slot(handle).is_some() {
            return violation("amqp:session:handle-in-use", "a handle that is in use");
        }
        if self.open.iter().flatten().count() >= self.limits.links {
            return violation("amqp:resource-limit-exceeded", "too many links");
        }
        let sends = fields.get(2).bool() == Some(false);
        let terminus = fields.get(if sends { 6 } else { 5 });
        let address = terminus.first().and_then(Value::text);
        let attach = Attach {
            sends,
            address: address.map(str::to_owned),
            properties: fields.get(13).texts(),
        };
        self.attaching = Some(Attaching {
            link: Link {
                handle,
                receives: sends,
                credit: 0,
                delivery_count: fields.get(9).uint().filter(|_| sends).unwrap_or_default(),
                settled: fields.get(3).number() == Some(SETTLED),
            },
            name: fields.raw(0).to_vec(),
            source: fields.raw(5).to_vec(),
            target: fields.raw(6).to_vec(),
        });
        Ok(Event::Attach(attach))
    }

    pub(super) fn accept(&mut self, out: &mut Vec<u8>) {
        let Some(attaching) = self.attaching.take() else {
            return;
        };
        let slot = self.place();
        self.say_attach(out, slot, &attaching, true);
        let receives = attaching.link.receives;
        if let Some(place) = self.open.get_mut(slot) {
            *place = Some(attaching.link);
        }
        if receives {
            self.give_credit(out, slot);
        }
    }

    pub(super) fn refuse(&mut self, out: &mut Vec<u8>, error: Value<'_>) {
        let Some(attaching) = self.attaching.take() else {
            return;
        };
        let slot = self.place();
        // Without a terminus: the client knows that a DETACH follows.
        self.say_attach(out, slot, &attaching, false);
        let fields = vec![number(slot), Value::Bool(true), error];
        say(out, DETACH, fields, &[]);
    }

    fn say_attach(&self, out: &mut Vec<u8>, slot: usize, attaching: &Attaching, accept: bool) {
        let Attaching {
            link,
            name,
            source,
            target,
        } = attaching;
        let terminus = |raw| if accept { Value::Raw(raw) } else { Value::Null };
        let mut fields = vec![
            Value::Raw(name),
            number(slot),
            Value::Bool(link.receives),
            // Mixed, unless the client wants everything settled; the receiver settles first.
            Value::Ubyte(if link.settled { 1 } else { 2 }),
            Value::Ubyte(0),
            terminus(source),
            terminus(target),
            Value::Null,
            Value::Null,
        ];
        if link.receives {
            let most = u64::try_from(self.limits.message).unwrap_or(u64::MAX);
            fields.extend([Value::Null, Value::Ulong(most)]);
        } else {
            fields.push(Value::Uint(0));
        }
        say(out, ATTACH, fields, &[]);
    }

    /// A free place.
    fn place(&mut self) -> usize {
        if let Some(free) = self.open.iter().position(Option::is_none) {
            return free;
        }
        self.open.push(None);
        self.open.len() - 1
    }

    /// The place of a link of the client's.
    fn slot(&self, handle: u32) -> Option<usize> {
        let is_it = |link: &Option<Link>| link.as_ref().is_some_and(|link| link.handle == handle);
        self.open.iter().position(is_it)
    }

    fn link(&mut self, slot: usize) -> Option<&mut Link> {
        self.open.get_mut(slot)?.as_mut()
    }

    fn give_credit(&mut self, out: &mut Vec<u8>, slot: usize) {
        let credit = self.limits.credit;
        if let Some(link) = self.link(slot) {
            link.credit = credit;
        }
        self.say_flow(out, Some(slot), false);
    }

    fn say_flow(&self, out: &mut Vec<u8>, slot: Option<usize>, drained: bool) {
        let mut fields = vec![
            Value::Uint(self.next_incoming),
            Value::Uint(window()),
            Value::Uint(self.next_outgoing),
            Value::Uint(window()),
        ];
        let link = slot.and_then(|slot| Some((slot, self.open.get(slot)?.as_ref()?)));
        if let Some((slot, link)) = link {
            fields.extend([
                number(slot),
                Value::Uint(link.delivery_count),
                Value::Uint(link.credit),
                Value::Null,
                Value::Bool(drained),
            ]);
        }
        say(out, FLOW, fields, &[]);
    }

    fn flow(&mut self, out: &mut Vec<u8>, fields: &Fields<'_>) -> Result<(), Violation> {
        let next_incoming = fields.get(0).uint().unwrap_or_default();
        let window = fields.get(1).uint().unwrap_or_default();
        self.window = difference(next_incoming.wrapping_add(window), self.next_outgoing);
        let echo = fields.get(9).bool() == Some(true);
        if *fields.get(4) == Value::Null {
            self.pump(out);
            if echo {
                self.say_flow(out, None, false);
            }
            return Ok(());
        }
        let handle = handle(fields, 4)?;
        let slot = self.slot(handle);
        let Some(slot) = slot else {
            // It may not know yet that we refused the link.
            return Ok(());
        };
        let mut drained = false;
        if let Some(link) = self.link(slot).filter(|link| !link.receives) {
            let count = fields.get(5).uint().unwrap_or_default();
            let credit = fields.get(6).uint().unwrap_or_default();
            link.credit = difference(count.wrapping_add(credit), link.delivery_count);
            drained = fields.get(8).bool() == Some(true);
        }
        self.pump(out);
        if let Some(link) = self.link(slot).filter(|_| drained) {
            link.delivery_count = link.delivery_count.wrapping_add(link.credit);
            link.credit = 0;
        }
        if drained || echo {
            self.say_flow(out, Some(slot), drained);
        }
        Ok(())
    }

    fn transfer(
        &mut self,
        fields: &Fields<'_>,
        payload: &[u8],
    ) -> Result<Option<Event>, Violation> {
        self.next_incoming = self.next_incoming.wrapping_add(1);
        let slot = self.slot(handle(fields, 0)?);
        let Some(slot) = slot else {
            return violation(
                "amqp:session:unattached-handle",
                "a transfer without a link",
            );
        };
        let mut partial = match self.partial.take() {
            Some(partial) if partial.delivery.slot == slot => partial,
            Some(_) => return violation("amqp:not-allowed", "two messages at once"),
            None => self.delivery(slot, fields)?,
        };
        if partial.bytes.len() + payload.len() > self.limits.message {
            return violation(
                "amqp:link:message-size-exceeded",
                "a message that is too large",
            );
        }
        partial.delivery.settled |= fields.get(4).bool() == Some(true);
        let aborted = fields.get(9).bool() == Some(true);
        if aborted {
            return Ok(None);
        }
        partial.bytes.extend_from_slice(payload);
        if fields.get(5).bool() == Some(true) {
            self.partial = Some(partial);
            return Ok(None);
        }
        let message = Message::read(&partial.bytes)?;
        Ok(Some(Event::Message(partial.delivery, message)))
    }

    /// The first frame of a message.
    fn delivery(&mut self, slot: usize, fields: &Fields<'_>) -> Result<Partial, Violation> {
        let Some(id) = fields.get(1).uint() else {
            return violation("amqp:invalid-field", "a transfer without a delivery-id");
        };
        let Some(link) = self.link(slot).filter(|link| link.receives) else {
            return violation(
                "amqp:not-allowed",
                "a transfer against the link's direction",
            );
        };
        let Some(credit) = link.credit.checked_sub(1) else {
            return violation(
                "amqp:link:transfer-limit-exceeded",
                "more messages than credit",
            );
        };
        link.credit = credit;
        link.delivery_count = link.delivery_count.wrapping_add(1);
        Ok(Partial {
            delivery: Delivery {
                id,
                slot,
                settled: false,
            },
            bytes: Vec::new(),
        })
    }

    pub(super) fn settle(&mut self, out: &mut Vec<u8>, delivery: &Delivery, outcome: &Outcome) {
        if !delivery.settled {
            let state = match outcome {
                Outcome::Accepted => Value::Described(ACCEPTED, Box::new(Value::List(vec![]))),
                Outcome::Rejected {
                    condition,
                    description,
                    info,
                } => {
                    let info = info
                        .iter()
                        .flat_map(|(name, value)| [Value::Symbol(name), Value::Int(*value)]);
                    let error = error(condition, description, info.collect());
                    Value::Described(REJECTED, Box::new(Value::List(vec![error])))
                }
            };
            let fields = vec![
                Value::Bool(true),
                Value::Uint(delivery.id),
                Value::Uint(delivery.id),
                Value::Bool(true),
                state,
            ];
            say(out, DISPOSITION, fields, &[]);
        }
        let half = self.limits.credit / 2;
        if self
            .link(delivery.slot)
            .is_some_and(|link| link.receives && link.credit <= half)
        {
            self.give_credit(out, delivery.slot);
        }
    }

    pub(super) fn send(&mut self, out: &mut Vec<u8>, message: Vec<u8>) -> Result<(), NoLink> {
        let receiver = |link: &Option<Link>| link.as_ref().is_some_and(|link| !link.receives);
        let slot = self.open.iter().position(receiver).ok_or(NoLink)?;
        let most = usize::try_from(self.limits.credit).unwrap_or(usize::MAX);
        if self.queue.len() >= most {
            return Err(NoLink);
        }
        self.queue.push_back((slot, message));
        self.pump(out);
        Ok(())
    }

    /// Sends what waits, as far as the client takes it.
    fn pump(&mut self, out: &mut Vec<u8>) {
        while let Some((slot, message)) = self.queue.front() {
            let slot = *slot;
            let room = usize::try_from(self.frame).unwrap_or(usize::MAX) - TRANSFER_HEAD;
            let chunks: Vec<&[u8]> = message.chunks(room).collect();
            let count = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
            let link = self.open.get_mut(slot).and_then(Option::as_mut);
            let Some(link) = link else {
                // Its link is gone.
                self.queue.pop_front();
                continue;
            };
            if link.credit == 0 || self.window < count {
                return;
            }
            link.credit -= 1;
            link.delivery_count = link.delivery_count.wrapping_add(1);
            self.window -= count;
            self.next_outgoing = self.next_outgoing.wrapping_add(count);
            let id = self.next_delivery;
            self.next_delivery = id.wrapping_add(1);
            let tag = id.to_be_bytes();
            for (index, chunk) in chunks.iter().enumerate() {
                let fields = vec![
                    number(slot),
                    Value::Uint(id),
                    Value::Binary(&tag),
                    Value::Uint(0),
                    Value::Bool(link.settled),
                    Value::Bool(index + 1 < chunks.len()),
                ];
                say(out, TRANSFER, fields, chunk);
            }
            self.queue.pop_front();
        }
    }

    /// The client has a message of ours. We keep nothing of it; one that waits for our word gets it.
    fn disposition(out: &mut Vec<u8>, fields: &Fields<'_>) {
        let ours = fields.get(0).bool() == Some(true);
        if !ours || fields.get(3).bool() == Some(true) {
            return;
        }
        let first = fields.get(1).uint().unwrap_or_default();
        let answer = vec![
            Value::Bool(false),
            Value::Uint(first),
            Value::Uint(fields.get(2).uint().unwrap_or(first)),
            Value::Bool(true),
        ];
        say(out, DISPOSITION, answer, &[]);
    }

    fn detach(&mut self, out: &mut Vec<u8>, fields: &Fields<'_>) {
        let slot = fields.get(0).uint().and_then(|handle| self.slot(handle));
        let Some(slot) = slot else {
            // The answer to a DETACH of ours.
            return;
        };
        if let Some(place) = self.open.get_mut(slot) {
            *place = None;
        }
        self.queue.retain(|(of, _)| *of != slot);
        if self
            .partial
            .as_ref()
            .is_some_and(|it| it.delivery.slot == slot)
        {
            self.partial = None;
        }
        let closed = fields.get(1).bool() == Some(true);
        say(out, DETACH, vec![number(slot), Value::Bool(closed)], &[]);
    }
}

fn handle(fields: &Fields<'_>, index: usize) -> Result<u32, Violation> {
    let handle = fields.get(index).uint();
    handle.map_or_else(
        || violation("amqp:invalid-field", "a frame without a handle"),
        Ok,
    )
}

/// Places are few.
fn number(slot: usize) -> Value<'static> {
    Value::Uint(u32::try_from(slot).unwrap_or(u32::MAX))
}

/// How far a serial number is ahead of another; nothing when it is behind.
fn difference(ahead: u32, behind: u32) -> u32 {
    let difference = ahead.wrapping_sub(behind);
    if difference > i32::MAX.unsigned_abs() {
        return 0;
    }
    difference
}

fn say(out: &mut Vec<u8>, code: u64, fields: Vec<Value<'_>>, payload: &[u8]) {
    let performative = Value::Described(code, Box::new(Value::List(fields)));
    frames::write(out, Layer::Amqp, 0, &performative, payload);
}
