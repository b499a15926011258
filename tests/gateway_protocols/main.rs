//! What devices see of the gateway: every rule of the protocols, on real TLS sockets and, where time
//! is measured, on an in-memory stream with a paused clock.
//!
//! Only the registration records are in memory here; what the API server makes of them is tested in
//! `gateway_cluster`.

#![cfg(test)]

mod amqp;
mod amqp_device;
mod device;
mod https;
mod mqtt;
mod mqtt_reconnect;
mod mqtt_websocket;
mod openssl;
mod problems;
mod rules;
mod stage;
mod symmetric;
mod tpm;
mod tunnel;
mod x509;
