//! WebSocket, server side, as a plain byte stream: MQTT and AMQP run on it as they do on TLS.
//!
//! ```text
//!  HTTP request ─▶ Handover::accept ─▶ 101 (or why not)
//!  connection's end ─▶ Handover::upgraded ─▶ WebSocket: AsyncRead + AsyncWrite
//! ```
//!
//! Our own framing rather than a library's: messages mean nothing here (one packet may span frames
//! and a frame hold several packets), so payload is passed on as it arrives and nothing is assembled.
//! A connection holds one outgoing frame and one control frame, whatever the client sends. Extensions
//! are declined by not being answered.

mod frames;
mod handover;
mod handshake;
mod stream;

pub use handover::Handover;
pub use handshake::{Handshake, HandshakeError, PATHS, Subprotocol, is_wanted};
pub use stream::WebSocket;
