//! Protocol sessions shared by the gateway and the self-hosted hub: bytes in, events out.
//!
//! Owns TLS with the peer's certificates, WebSockets and MQTT sessions. Knows neither registrations
//! nor twins: who may connect, which topics exist and what an answer says is decided by the caller.

pub mod mqtt;
pub mod tls;
pub mod websocket;
