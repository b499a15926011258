//! One MQTT 3.1.1 server session without I/O: bytes in, events and bytes out.
//!
//! Built on `mqtt-protocol-core` with automatic PUBACKs off: they panic on packet id 0, and our
//! callers must order PUBACK and response themselves. What the library leaves to us and this module
//! enforces: CONNECT comes first and once, packet ids are not 0, QoS 2 is not spoken, topics hold no
//! wildcards, DISCONNECT ends the session, and nothing is read while a CONNECT waits for its verdict.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mqtt_protocol_core::mqtt::common::Cursor;
use mqtt_protocol_core::mqtt::connection::{ConnectionOptions, Event as CoreEvent};
use mqtt_protocol_core::mqtt::packet::{self as core, GenericPacketTrait, Packet, v3_1_1};
use mqtt_protocol_core::mqtt::result_code::{ConnectReturnCode, MqttError, SubackReturnCode};
use mqtt_protocol_core::mqtt::{self, Version};

use super::packets::{Connect, Event, Filter, Publish, Qos, Refusal, Will};
use crate::wire::incidents::Incident;

/// Bounds of one session, checked before anything is allocated for a packet.
#[derive(Debug, Clone, Copy)]
pub struct SessionLimits {
    /// Largest packet taken from a client, in bytes with its header.
    pub packet: u32,
    /// QoS 1 messages a client may leave unacknowledged before it counts as too slow.
    pub unacknowledged: usize,
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The client said DISCONNECT.
    Disconnected,
    /// The client went away without a word; with TLS, also without `close_notify`.
    EndOfStream,
    /// We refused its CONNECT.
    Refused,
    /// Somebody on our side closed it.
    ClosedHere,
    /// No CONNECT in time.
    ConnectTimeout,
    /// Nothing heard for one and a half times the keep-alive.
    KeepAliveTimeout,
    /// The client does not read, or does not acknowledge, what it is sent.
    TooSlow,
    /// The client announced a packet larger than the limit.
    PacketTooLarge,
    /// The client broke the protocol.
    Protocol(&'static str),
    /// The byte stream failed.
    Stream(std::io::ErrorKind),
}

impl End {
    /// What to count it as, when the client is to blame.
    pub fn incident(&self) -> Option<Incident> {
        match self {
            Self::ConnectTimeout | Self::TooSlow => Some(Incident::SlowRequest),
            Self::PacketTooLarge | Self::Protocol(_) => Some(Incident::Malformed),
            Self::Disconnected
            | Self::EndOfStream
            | Self::Refused
            | Self::ClosedHere
            | Self::KeepAliveTimeout
            | Self::Stream(_) => None,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disconnected => f.write_str("the client disconnected"),
            Self::EndOfStream => f.write_str("the client closed the connection"),
            Self::Refused => f.write_str("the CONNECT was refused"),
            Self::ClosedHere => f.write_str("closed by the server"),
            Self::ConnectTimeout => f.write_str("no CONNECT in time"),
            Self::KeepAliveTimeout => f.write_str("nothing heard within the keep-alive"),
            Self::TooSlow => f.write_str("the client does not read what it is sent"),
            Self::PacketTooLarge => f.write_str("a packet exceeds the size limit"),
            Self::Protocol(what) => write!(f, "protocol violation: {what}"),
            Self::Stream(kind) => write!(f, "the connection failed: {kind}"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    AwaitingConnect,
    Deciding,
    Open,
    Ended,
}

/// See the module text.
pub struct Session {
    core: mqtt::Connection<mqtt::role::Server>,
    phase: Phase,
    /// Looked at before the library waits, perhaps long, for the rest of what is not MQTT.
    first_byte: Option<u8>,
    outgoing: BytesMut,
    /// How the packet begins of which not everything came in yet.
    coming: Option<u8>,
    /// Packet ids we gave out, with the caller's token for each.
    unacknowledged: HashMap<u16, u64>,
    keep_alive: u16,
    packets: u64,
    limits: SessionLimits,
}

impl Session {
    /// A session that has not seen a byte yet.
    pub fn new(limits: SessionLimits) -> Self {
        let options = ConnectionOptions::new().maximum_packet_size_recv(limits.packet);
        let mut core = mqtt::Connection::with_options(Version::V3_1_1, options);
        core.set_auto_ping_response(true);
        Self {
            core,
            phase: Phase::AwaitingConnect,
            first_byte: None,
            coming: None,
            outgoing: BytesMut::new(),
            unacknowledged: HashMap::new(),
            keep_alive: 0,
            packets: 0,
            limits,
        }
    }

    /// Reads up to the next event: how many bytes were used, and the event if one was complete.
    /// What was not used is to be offered again. Uses nothing while a CONNECT awaits its verdict.
    ///
    /// # Errors
    /// The session has ended; what [`Session::take_outgoing`] still returns is worth sending.
    pub fn feed(&mut self, input: &[u8]) -> Result<(usize, Option<Event>), End> {
        if let (None, Some(&first)) = (self.first_byte, input.first()) {
            self.first_byte = Some(first);
            if first != CONNECT {
                self.phase = Phase::Ended;
                return Err(End::Protocol("the stream does not begin with CONNECT"));
            }
        }
        let mut used = 0;
        while used < input.len() && matches!(self.phase, Phase::AwaitingConnect | Phase::Open) {
            // The library takes one packet a call and one packet may come in many pieces.
            let first = *self.coming.get_or_insert(input[used]);
            let mut cursor = Cursor::new(&input[used..]);
            let happened = self.core.recv(&mut cursor);
            used += usize::try_from(cursor.position()).unwrap_or(input.len());
            // It has something to say of every whole packet.
            if !happened.is_empty() {
                self.coming = None;
            }
            if first == PUBACK && acknowledges_nothing(&happened) {
                self.packets += 1;
                continue;
            }
            if let Some(event) = self.absorb(happened)? {
                return Ok((used, Some(event)));
            }
        }
        Ok((used, None))
    }

    /// Lets the client in. Answers to clients of the services we stand for always say
    /// `session_present = false`.
    ///
    /// # Errors
    /// No CONNECT is waiting.
    pub fn accept(&mut self, session_present: bool) -> Result<(), End> {
        self.must_be(Phase::Deciding)?;
        self.phase = Phase::Open;
        self.connack(session_present, ConnectReturnCode::Accepted)
    }

    /// Refuses the client and ends the session, after the CONNACK is sent.
    pub fn refuse(&mut self, refusal: Refusal) -> End {
        let code = match refusal {
            Refusal::IdentifierRejected => ConnectReturnCode::IdentifierRejected,
            Refusal::ServerUnavailable => ConnectReturnCode::ServerUnavailable,
            Refusal::BadUserNameOrPassword => ConnectReturnCode::BadUserNameOrPassword,
            Refusal::NotAuthorized => ConnectReturnCode::NotAuthorized,
        };
        let ended = self
            .must_be(Phase::Deciding)
            .and_then(|()| self.connack(false, code));
        self.phase = Phase::Ended;
        ended.err().unwrap_or(End::Refused)
    }

    /// Answers a SUBSCRIBE: the QoS granted to each filter in order, or `None` where it is refused.
    pub fn suback(&mut self, packet_id: u16, granted: &[Option<Qos>]) -> Result<(), End> {
        let codes = granted.iter().map(|grant| match grant {
            Some(Qos::AtMostOnce) => SubackReturnCode::SuccessMaximumQos0,
            Some(Qos::AtLeastOnce) => SubackReturnCode::SuccessMaximumQos1,
            None => SubackReturnCode::Failure,
        });
        let packet = v3_1_1::Suback::builder()
            .packet_id(packet_id)
            .return_codes(codes.collect())
            .build();
        self.send(packet.map(Into::into))
    }

    /// Answers an UNSUBSCRIBE.
    pub fn unsuback(&mut self, packet_id: u16) -> Result<(), End> {
        self.send(
            v3_1_1::Unsuback::builder()
                .packet_id(packet_id)
                .build()
                .map(Into::into),
        )
    }

    /// Acknowledges a QoS 1 publish of the client.
    pub fn puback(&mut self, packet_id: u16) -> Result<(), End> {
        self.send(
            v3_1_1::Puback::builder()
                .packet_id(packet_id)
                .build()
                .map(Into::into),
        )
    }

    /// Publishes to the client. At QoS 1, [`Event::Acknowledged`] will bring the token back.
    ///
    /// # Errors
    /// [`End::TooSlow`] when the client owes more acknowledgements than the limit.
    pub fn publish(
        &mut self,
        topic: &str,
        payload: &[u8],
        qos: Qos,
        token: u64,
    ) -> Result<(), End> {
        self.must_be(Phase::Open)?;
        let builder = v3_1_1::Publish::builder()
            .topic_name(topic)
            .map_err(|_| UNSENDABLE)?;
        let packet = match qos {
            Qos::AtMostOnce => builder.qos(core::Qos::AtMostOnce).payload(payload).build(),
            Qos::AtLeastOnce => {
                if self.unacknowledged.len() >= self.limits.unacknowledged {
                    return Err(End::TooSlow);
                }
                let id = self.core.acquire_packet_id().map_err(|_| End::TooSlow)?;
                self.unacknowledged.insert(id, token);
                builder
                    .qos(core::Qos::AtLeastOnce)
                    .packet_id(id)
                    .payload(payload)
                    .build()
            }
        };
        self.send(packet.map(Into::into))
    }

    /// The bytes to be sent, in order; empties the buffer.
    pub fn take_outgoing(&mut self) -> Bytes {
        self.outgoing.split().freeze()
    }

    /// How many complete packets came in: a change means the client is alive.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Whether a CONNECT waits for [`Session::accept`] or [`Session::refuse`].
    pub fn is_deciding(&self) -> bool {
        self.phase == Phase::Deciding
    }

    /// Whether the client has not sent its CONNECT yet.
    pub fn awaits_connect(&self) -> bool {
        self.phase == Phase::AwaitingConnect
    }

    /// The silence after which the client counts as gone: 1.5 × keep-alive; none for keep-alive 0.
    pub fn silence_limit(&self) -> Option<Duration> {
        (self.keep_alive > 0).then(|| Duration::from_millis(u64::from(self.keep_alive) * 1500))
    }

    fn must_be(&self, phase: Phase) -> Result<(), End> {
        if self.phase == phase {
            return Ok(());
        }
        // A caller that speaks out of turn, not the client: the connection cannot be saved.
        Err(OUT_OF_TURN)
    }

    fn connack(&mut self, session_present: bool, code: ConnectReturnCode) -> Result<(), End> {
        let packet = v3_1_1::Connack::builder()
            .session_present(session_present)
            .return_code(code)
            .build();
        self.send(packet.map(Into::into))
    }

    fn send(&mut self, packet: Result<Packet, MqttError>) -> Result<(), End> {
        let packet = packet.map_err(|_| UNSENDABLE)?;
        let happened = self.core.send(packet);
        self.absorb(happened).map(|_| ())
    }

    /// Takes what the library reports. Everything it wants sent is kept, also when it gives up.
    fn absorb(&mut self, happened: Vec<CoreEvent>) -> Result<Option<Event>, End> {
        let (mut event, mut end) = (None, None);
        for one in happened {
            match one {
                CoreEvent::RequestSendPacket { packet, .. } => {
                    self.outgoing
                        .extend_from_slice(&packet.to_continuous_buffer());
                }
                CoreEvent::NotifyPacketReceived(packet) => {
                    self.packets += 1;
                    match self.translate(packet) {
                        Ok(translated) => event = translated,
                        Err(violation) => end = Some(violation),
                    }
                }
                CoreEvent::NotifyError(error) => end = Some(self.broken(error)),
                CoreEvent::RequestClose => {
                    end.get_or_insert(End::Refused);
                }
                // The driver keeps time; packet ids are released by the library itself.
                CoreEvent::RequestTimerReset { .. }
                | CoreEvent::RequestTimerCancel(_)
                | CoreEvent::NotifyPacketIdReleased(_) => {}
            }
        }
        match end {
            Some(end) => {
                self.phase = Phase::Ended;
                Err(end)
            }
            None => Ok(event),
        }
    }

    fn broken(&mut self, error: MqttError) -> End {
        if error == MqttError::PacketTooLarge {
            return End::PacketTooLarge;
        }
        if self.phase != Phase::AwaitingConnect {
            return End::Protocol("malformed packet");
        }
        if error == MqttError::UnsupportedProtocolVersion {
            return End::Protocol("only MQTT 3.1.1 is spoken");
        }
        // For other garbage the library offers CONNACK 5. Who does not speak MQTT gets no answer.
        self.outgoing.clear();
        End::Protocol("malformed CONNECT")
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the library's enum also holds MQTT 5 and what only servers send"
    )]
    fn translate(&mut self, packet: Packet) -> Result<Option<Event>, End> {
        Ok(Some(match packet {
            Packet::V3_1_1Connect(packet) => {
                self.phase = Phase::Deciding;
                self.keep_alive = packet.keep_alive();
                Event::Connect(connect(&packet)?)
            }
            Packet::V3_1_1Subscribe(packet) => Event::Subscribe {
                packet_id: nonzero(packet.packet_id())?,
                filters: packet.entries().iter().map(filter).collect(),
            },
            Packet::V3_1_1Unsubscribe(packet) => Event::Unsubscribe {
                packet_id: nonzero(packet.packet_id())?,
                filters: packet
                    .entries()
                    .iter()
                    .map(|it| it.as_str().to_owned())
                    .collect(),
            },
            Packet::V3_1_1Publish(packet) => Event::Publish(publish(&packet)?),
            Packet::V3_1_1Puback(packet) => {
                let known = self.unacknowledged.remove(&packet.packet_id());
                return Ok(known.map(Event::Acknowledged));
            }
            Packet::V3_1_1Pingreq(_) => return Ok(None),
            Packet::V3_1_1Disconnect(_) => return Err(End::Disconnected),
            _ => return Err(End::Protocol("a packet that no client of ours sends")),
        }))
    }
}

/// The first byte of a CONNECT.
const CONNECT: u8 = 0x10;
/// The first byte of a PUBACK.
const PUBACK: u8 = 0x40;
const OUT_OF_TURN: End = End::Protocol("the server spoke out of turn");
const UNSENDABLE: End = End::Protocol("the server's packet cannot be encoded");

/// Whether a PUBACK is for a packet id that we did not give out, which the library calls a violation.
/// Other servers take no notice, and Java SDKs of 2018 rely on it: they acknowledge messages of QoS 0
/// as well, with ids that they make up.
fn acknowledges_nothing(happened: &[CoreEvent]) -> bool {
    happened
        .iter()
        .any(|one| matches!(one, CoreEvent::NotifyError(MqttError::ProtocolError)))
}

fn connect(packet: &v3_1_1::Connect) -> Result<Connect, End> {
    let will = match (packet.will_topic(), packet.will_payload()) {
        (Some(topic), Some(payload)) => Some(Will {
            topic: plain_topic(topic)?,
            payload: Bytes::copy_from_slice(payload),
            qos: at_most_one(packet.will_qos()),
            retain: packet.will_retain(),
        }),
        _ => None,
    };
    Ok(Connect {
        client_id: packet.client_id().to_owned(),
        user_name: packet.user_name().map(str::to_owned),
        password: packet.password().map(Bytes::copy_from_slice),
        clean_session: packet.clean_session(),
        keep_alive: packet.keep_alive(),
        will,
    })
}

fn publish(packet: &v3_1_1::Publish) -> Result<Publish, End> {
    let qos = match packet.qos() {
        core::Qos::AtMostOnce => Qos::AtMostOnce,
        core::Qos::AtLeastOnce => Qos::AtLeastOnce,
        core::Qos::ExactlyOnce => return Err(End::Protocol("QoS 2 is not supported")),
    };
    Ok(Publish {
        topic: plain_topic(packet.topic_name())?,
        payload: Bytes::copy_from_slice(packet.payload().as_slice()),
        qos,
        packet_id: packet.packet_id().map(nonzero).transpose()?,
        duplicate: packet.dup(),
        retain: packet.retain(),
    })
}

fn filter(entry: &core::SubEntry) -> Filter {
    Filter {
        topic: entry.topic_filter().to_owned(),
        qos: at_most_one(entry.sub_opts().qos()),
    }
}

fn at_most_one(qos: core::Qos) -> Qos {
    match qos {
        core::Qos::AtMostOnce => Qos::AtMostOnce,
        core::Qos::AtLeastOnce | core::Qos::ExactlyOnce => Qos::AtLeastOnce,
    }
}

fn nonzero(packet_id: u16) -> Result<u16, End> {
    if packet_id == 0 {
        Err(End::Protocol("packet id 0"))
    } else {
        Ok(packet_id)
    }
}

fn plain_topic(topic: &str) -> Result<String, End> {
    if topic.is_empty() || topic.contains(['+', '#', '\0']) {
        return Err(End::Protocol("a topic name is empty or holds a wildcard"));
    }
    Ok(topic.to_owned())
}
