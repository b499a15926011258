//! Rehome: device provisioning and *re*provisioning for Kubernetes.
//!
//! One library, thin binaries. The modules are rooms, listed lowest first; a room may use what
//! stands above it in this list and nothing below (`tests/layering.rs` holds the arrows).

pub mod api;
pub mod clock;
pub mod cluster;
pub mod controller;
pub mod domain;
pub mod gateway;
pub mod hub;
pub mod plugin;
pub mod probe;
pub mod random;
pub mod registry;
pub mod telemetry;
pub mod wire;
