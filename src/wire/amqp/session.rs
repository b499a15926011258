//! One connection: protocol headers, SASL, OPEN, BEGIN and their ends. What links do is in
//! [`super::links`].

use std::io::ErrorKind;
use std::time::Duration;

use super::frames::{self, EMPTY, Frame, HEAD, Layer};
use super::links::{Attach, Delivery, Links};
use super::message::Message;
use super::types::{Fields, Malformed, Reader, Value};

const SASL_MECHANISMS: u64 = 0x40;
const SASL_INIT: u64 = 0x41;
const SASL_CHALLENGE: u64 = 0x42;
const SASL_RESPONSE: u64 = 0x43;
const SASL_OUTCOME: u64 = 0x44;
const OPEN: u64 = 0x10;
const BEGIN: u64 = 0x11;
pub(super) const ATTACH: u64 = 0x12;
pub(super) const FLOW: u64 = 0x13;
pub(super) const TRANSFER: u64 = 0x14;
pub(super) const DISPOSITION: u64 = 0x15;
pub(super) const DETACH: u64 = 0x16;
const END: u64 = 0x17;
const CLOSE: u64 = 0x18;
const ERROR: u64 = 0x1d;

/// The least that a peer has to take in one frame.
const LEAST_FRAME: u32 = 512;
/// Transfers that each side may send unasked: more than credit ever allows.
const WINDOW: u32 = 2048;
/// After so much silence we might hang up, as the service says it; the owner does so earlier.
const IDLE_MILLISECONDS: u32 = 240_000;
/// Highest channel and handle, as the service says it. One session is served whatever its channel.
const CHANNEL_MAX: u16 = 8191;
const HANDLE_MAX: u32 = 255;

/// Bounds of one connection.
#[derive(Debug, Clone, Copy)]
pub struct SessionLimits {
    /// Bytes of one frame, once the connection is open.
    pub frame: u32,
    /// Bytes of one frame before that.
    pub early_frame: u32,
    /// Bytes of one message.
    pub message: usize,
    /// Open links.
    pub links: usize,
    /// Messages that a client may send before the first is answered; also how many replies wait
    /// for a client that gives no credit.
    pub credit: u32,
}

/// What a client did. Each is to be answered before [`Session::feed`] goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The client wants to authenticate: [`Session::challenge`] or [`Session::outcome`].
    SaslInit(SaslInit),
    /// Its answer to a challenge: [`Session::challenge`] or [`Session::outcome`].
    SaslResponse(Vec<u8>),
    /// It opens a link: [`Session::accept`] or [`Session::refuse`].
    Attach(Attach),
    /// It sent a message: [`Session::settle`], [`Session::send`].
    Message(Delivery, Message),
}

/// How a client wants to authenticate.
#[derive(Clone, PartialEq, Eq)]
pub struct SaslInit {
    pub mechanism: String,
    /// Holds secrets.
    pub response: Vec<u8>,
    pub hostname: Option<String>,
}

impl std::fmt::Debug for SaslInit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SaslInit")
            .field("mechanism", &self.mechanism)
            .finish_non_exhaustive()
    }
}

/// How an authentication ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaslCode {
    Ok = 0,
    /// The client is not who it says it is, or said it in a way that is not understood.
    Auth = 1,
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The client said so.
    Closed,
    /// We said so.
    ClosedHere,
    /// The client hung up.
    EndOfStream,
    /// The first bytes are not those of AMQP 1.0.
    NotAmqp,
    /// The client did not authenticate.
    Unauthenticated,
    /// The client broke a rule of the protocol, or one of our limits.
    Violation(&'static str),
    /// It did not come as far as opening a link in time.
    OpenTimeout,
    /// It does not read what it is sent.
    TooSlow,
    /// The stream failed.
    Stream(ErrorKind),
}

/// What a client did wrong, as it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) condition: &'static str,
    pub(super) text: &'static str,
}

impl From<Malformed> for Violation {
    fn from(_: Malformed) -> Self {
        Self {
            condition: "amqp:decode-error",
            text: "a frame is malformed or too large",
        }
    }
}

pub(super) fn violation<T>(condition: &'static str, text: &'static str) -> Result<T, Violation> {
    Err(Violation { condition, text })
}

/// What the client has to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Header,
    SaslInit,
    /// The owner is asked.
    SaslDeciding,
    SaslResponse,
    HeaderAfterSasl,
    Open,
    Begin,
    Running,
    Over,
}

/// See the module text.
#[derive(Debug)]
pub struct Session {
    limits: SessionLimits,
    mechanisms: &'static [&'static str],
    container: String,
    stage: Stage,
    /// The client's session.
    channel: u16,
    links: Links,
    /// A link was opened.
    established: bool,
    /// How long the client waits for a sign of life.
    patience: Option<Duration>,
    frames: u64,
    out: Vec<u8>,
}

impl Session {
    /// A connection of which nothing was read. `container` is what the client is told we are called.
    pub fn new(
        limits: SessionLimits,
        mechanisms: &'static [&'static str],
        container: String,
    ) -> Self {
        Self {
            limits,
            mechanisms,
            container,
            stage: Stage::Header,
            channel: 0,
            links: Links::new(limits),
            established: false,
            patience: None,
            frames: 0,
            out: Vec::new(),
        }
    }

    /// Reads what the client sent, up to the next event. Returns how many bytes were used: the rest
    /// is to be offered again, with more behind it.
    ///
    /// # Errors
    /// The connection is over; what [`Session::take_outgoing`] holds is the last word.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(usize, Option<Event>), End> {
        let mut used = 0;
        while !self.is_deciding() {
            let rest = bytes.get(used..).unwrap_or_default();
            if matches!(self.stage, Stage::Header | Stage::HeaderAfterSasl) {
                let Some((header, _)) = rest.split_first_chunk::<HEAD>() else {
                    break;
                };
                self.header(*header)?;
                used += HEAD;
                continue;
            }
            let longest = if self.is_open() {
                self.limits.frame
            } else {
                self.limits.early_frame
            };
            let longest = usize::try_from(longest).unwrap_or(usize::MAX);
            let first = match frames::first(rest, longest) {
                Ok(first) => first,
                Err(malformed) => return Err(self.fail(malformed.into())),
            };
            let Some((frame, size)) = first else { break };
            used += size;
            self.frames += 1;
            match self.frame(&frame) {
                Ok(Some(event)) => return Ok((used, Some(event))),
                Ok(None) if self.stage == Stage::Over => return Err(End::Closed),
                Ok(None) => {}
                Err(violation) => return Err(self.fail(violation)),
            }
        }
        Ok((used, None))
    }

    /// Whether an event waits for its answer.
    pub fn is_deciding(&self) -> bool {
        self.stage == Stage::SaslDeciding || self.links.is_deciding()
    }

    /// Whether the client has opened the connection.
    pub fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Begin | Stage::Running)
    }

    /// Whether the client came as far as opening a link.
    pub fn is_established(&self) -> bool {
        self.established
    }

    /// How many frames came.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// How long the client waits for a sign of life; none when it does not care.
    pub fn patience(&self) -> Option<Duration> {
        self.patience.filter(|_| self.is_open())
    }

    /// Says that we are there.
    pub fn beat(&mut self) {
        self.out.extend(EMPTY);
    }

    /// What is to be sent.
    pub fn take_outgoing(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Asks a client that authenticates for more.
    pub fn challenge(&mut self, challenge: &[u8]) {
        self.stage = Stage::SaslResponse;
        self.sasl(SASL_CHALLENGE, vec![Value::Binary(challenge)]);
    }

    /// Ends an authentication.
    ///
    /// # Errors
    /// It failed: the connection ends.
    pub fn outcome(&mut self, code: SaslCode) -> Result<(), End> {
        self.sasl(SASL_OUTCOME, vec![Value::Ubyte(code as u8)]);
        if code == SaslCode::Ok {
            self.stage = Stage::HeaderAfterSasl;
            return Ok(());
        }
        self.stage = Stage::Over;
        Err(End::Unauthenticated)
    }

    /// Opens the link that was asked for.
    pub fn accept(&mut self) {
        self.established |= self.links.is_deciding();
        self.links.accept(&mut self.out);
    }

    /// Opens and closes the link that was asked for, with an error.
    pub fn refuse(&mut self, condition: &str, description: &str) {
        let error = error(condition, description, vec![]);
        self.links.refuse(&mut self.out, error);
    }

    /// Tells a client what became of its message, and that it may send another.
    pub fn settle(&mut self, delivery: &Delivery, outcome: &super::Outcome) {
        self.links.settle(&mut self.out, delivery, outcome);
    }

    /// Sends a message on the first link that the client receives by, as soon as it gives credit.
    ///
    /// # Errors
    /// There is no such link, or too much waits for it already.
    pub fn send(&mut self, reply: &super::Reply) -> Result<(), super::NoLink> {
        self.links.send(&mut self.out, reply.write())
    }

    /// Closes the connection: what is said now is the last word.
    pub fn close(&mut self, condition: &str, description: &str) {
        if self.stage == Stage::Open {
            // An error may only be told on an open connection.
            self.say_open();
        }
        if self.is_open() || self.stage == Stage::Open {
            let fields = vec![error(condition, description, vec![])];
            self.say(0, CLOSE, fields);
        }
        self.stage = Stage::Over;
    }

    fn fail(&mut self, violation: Violation) -> End {
        self.close(violation.condition, violation.text);
        End::Violation(violation.text)
    }

    fn header(&mut self, header: [u8; HEAD]) -> Result<(), End> {
        match (Layer::read(header), self.stage) {
            (Some(Layer::Sasl), Stage::Header) => {
                self.out.extend(Layer::Sasl.header());
                let mechanisms = self.mechanisms.iter().map(|name| Value::Symbol(name));
                self.sasl(SASL_MECHANISMS, vec![Value::Array(mechanisms.collect())]);
                self.stage = Stage::SaslInit;
            }
            (Some(Layer::Amqp), _) => {
                self.out.extend(Layer::Amqp.header());
                self.stage = Stage::Open;
            }
            _ => {
                // What we would have understood.
                self.out.extend(Layer::Sasl.header());
                self.stage = Stage::Over;
                return Err(End::NotAmqp);
            }
        }
        Ok(())
    }

    fn frame(&mut self, frame: &Frame<'_>) -> Result<Option<Event>, Violation> {
        let in_sasl = matches!(self.stage, Stage::SaslInit | Stage::SaslResponse);
        if in_sasl != (frame.layer == Layer::Sasl) {
            return violation("amqp:not-allowed", "a frame of the wrong layer");
        }
        if frame.body.is_empty() {
            return Ok(None);
        }
        let mut reader = Reader::new(frame.body);
        let (code, fields) = reader.composite()?;
        if in_sasl {
            return self.sasl_frame(code, &fields).map(Some);
        }
        match (self.stage, code) {
            (Stage::Open, OPEN) => {
                self.open(&fields);
                Ok(None)
            }
            (Stage::Begin | Stage::Running, CLOSE) => {
                self.say(0, CLOSE, vec![]);
                self.stage = Stage::Over;
                Ok(None)
            }
            (Stage::Begin, BEGIN) => {
                self.begin(frame.channel, &fields);
                Ok(None)
            }
            (Stage::Running, BEGIN) => {
                violation("amqp:resource-limit-exceeded", "one session is served")
            }
            (Stage::Running, _) if frame.channel != self.channel => {
                violation("amqp:not-allowed", "a channel without a session")
            }
            (Stage::Running, END) => {
                self.say(0, END, vec![]);
                self.links = Links::new(self.limits);
                self.stage = Stage::Begin;
                Ok(None)
            }
            (Stage::Running, _) => {
                let event = self
                    .links
                    .frame(&mut self.out, code, &fields, reader.rest())?;
                Ok(event)
            }
            _ => violation("amqp:illegal-state", "a frame that nothing led to"),
        }
    }

    fn sasl_frame(&mut self, code: u64, fields: &Fields<'_>) -> Result<Event, Violation> {
        let event = match (self.stage, code) {
            (Stage::SaslInit, SASL_INIT) => Event::SaslInit(SaslInit {
                mechanism: fields.get(0).text().unwrap_or_default().to_owned(),
                response: fields.get(1).bytes().to_vec(),
                hostname: fields.get(2).text().map(str::to_owned),
            }),
            (Stage::SaslResponse, SASL_RESPONSE) => {
                Event::SaslResponse(fields.get(0).bytes().to_vec())
            }
            _ => return violation("amqp:illegal-state", "a SASL frame that nothing led to"),
        };
        self.stage = Stage::SaslDeciding;
        Ok(event)
    }

    fn open(&mut self, fields: &Fields<'_>) {
        let frame = fields.get(2).uint().unwrap_or(u32::MAX);
        self.links
            .set_frame(frame.clamp(LEAST_FRAME, self.limits.frame));
        let idle = fields.get(4).number().filter(|idle| *idle > 0);
        self.patience = idle.map(Duration::from_millis);
        self.say_open();
        self.stage = Stage::Begin;
    }

    fn say_open(&mut self) {
        let container = self.container.clone();
        let fields = vec![
            Value::Str(&container),
            Value::Null,
            Value::Uint(self.limits.frame),
            Value::Ushort(CHANNEL_MAX),
            Value::Uint(IDLE_MILLISECONDS),
        ];
        self.say(0, OPEN, fields);
    }

    fn begin(&mut self, channel: u16, fields: &Fields<'_>) {
        self.channel = channel;
        self.links = Links::begin(self.limits, &self.links, fields);
        let answer = vec![
            Value::Ushort(channel),
            Value::Uint(0),
            Value::Uint(WINDOW),
            Value::Uint(WINDOW),
            Value::Uint(HANDLE_MAX),
        ];
        self.say(0, BEGIN, answer);
        self.stage = Stage::Running;
    }

    fn say(&mut self, channel: u16, code: u64, fields: Vec<Value<'_>>) {
        let performative = Value::Described(code, Box::new(Value::List(fields)));
        frames::write(&mut self.out, Layer::Amqp, channel, &performative, &[]);
    }

    fn sasl(&mut self, code: u64, fields: Vec<Value<'_>>) {
        let performative = Value::Described(code, Box::new(Value::List(fields)));
        frames::write(&mut self.out, Layer::Sasl, 0, &performative, &[]);
    }
}

pub(super) const fn window() -> u32 {
    WINDOW
}

/// An error as it stands in CLOSE, DETACH and a rejection.
pub(super) fn error<'a>(
    condition: &'a str,
    description: &'a str,
    info: Vec<Value<'a>>,
) -> Value<'a> {
    let mut fields = vec![Value::Symbol(condition), Value::Str(description)];
    if !info.is_empty() {
        fields.push(Value::Map(info));
    }
    Value::Described(ERROR, Box::new(Value::List(fields)))
}
