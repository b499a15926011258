//! Protocol sessions shared by the gateway and the self-hosted hub: bytes in, events out.
//!
//! Owns TLS with the peer's certificates, the bounds on what is not authenticated yet, and sessions of
//! WebSocket, MQTT and AMQP. Knows neither registrations nor twins: who may connect, which topics exist and what
//! an answer says is decided by the caller.

pub mod amqp;
pub mod incidents;
pub mod mqtt;
pub mod networks;
pub mod proxy;
pub mod rate;
pub mod tls;
pub mod tpm;
pub mod websocket;
