//! What a client said, in our own types, so that no caller depends on the protocol library.

use std::fmt;

use bytes::Bytes;

use super::session::End;

/// How hard a message is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Qos {
    AtMostOnce,
    AtLeastOnce,
}

/// One thing a client did, in the order it did them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The first event of every session. Nothing more is read before it is accepted or refused.
    Connect(Connect),
    /// To be answered with [`super::Handle::suback`], one grant for each filter.
    Subscribe {
        packet_id: u16,
        filters: Vec<Filter>,
    },
    /// To be answered with [`super::Handle::unsuback`].
    Unsubscribe {
        packet_id: u16,
        filters: Vec<String>,
    },
    /// At QoS 1 to be answered with [`super::Handle::puback`].
    Publish(Publish),
    /// The client has the QoS 1 message that was published under this token.
    Acknowledged(u64),
    /// The last event of every session.
    Closed(End),
}

/// The CONNECT packet.
#[derive(Clone, PartialEq, Eq)]
pub struct Connect {
    pub client_id: String,
    pub user_name: Option<String>,
    /// A credential: never shown by `Debug`.
    pub password: Option<Bytes>,
    pub clean_session: bool,
    /// Seconds; 0 means the client asks for no limit.
    pub keep_alive: u16,
    pub will: Option<Will>,
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("client_id", &self.client_id)
            .field("user_name", &self.user_name)
            .field("has_password", &self.password.is_some())
            .field("clean_session", &self.clean_session)
            .field("keep_alive", &self.keep_alive)
            .field("will", &self.will)
            .finish()
    }
}

/// What is to be published if the session ends without DISCONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    pub topic: String,
    pub payload: Bytes,
    pub qos: Qos,
    pub retain: bool,
}

/// One topic filter of a SUBSCRIBE, with the QoS asked for (2 is reported as 1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    pub topic: String,
    pub qos: Qos,
}

/// A PUBLISH from the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    pub topic: String,
    pub payload: Bytes,
    pub qos: Qos,
    /// Present exactly at QoS 1, and never 0.
    pub packet_id: Option<u16>,
    /// The client says it may have sent this before.
    pub duplicate: bool,
    pub retain: bool,
}

/// Why a CONNECT is refused, as MQTT 3.1.1 numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    IdentifierRejected,
    ServerUnavailable,
    BadUserNameOrPassword,
    NotAuthorized,
}
