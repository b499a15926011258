//! The ground that the tests and the demo stand on.
//!
//! It starts real things only: a Kubernetes control plane built from source, certificates, the
//! product's own processes. It must not imitate any of them, and must not know what Rehome does
//! beyond the names in its chart (`chart`).
//!
//! ```text
//! tools ──────► control_plane ──► cluster ──► a test
//! (Go builds)   (three processes)  (clients, namespaces, audit)
//!      └──────────── process, warden, network, certificates, wait ────────────┘
//! ```

mod audit;
mod certificates;
pub mod chart;
mod cluster;
pub mod commands;
mod control_plane;
mod network;
mod process;
pub mod tools;
mod wait;
mod warden;

pub use audit::{Audit, Mark, Request, Requests};
pub use certificates::{Authority, Issued};
pub use chart::{Operator, render_chart};
pub use cluster::{Cluster, Identity, Namespace};
pub use control_plane::ControlPlane;
pub use network::{container_engine_answers, free_port, loopback};
pub use process::{Process, Signal};
pub use wait::{expect, expect_ok};
pub use warden::scratch;
