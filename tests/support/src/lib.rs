//! The ground that the tests and the demo stand on.
//!
//! It starts real things only: a Kubernetes control plane built from source, certificates, the
//! product's own processes. It must not imitate any of them. Of Rehome it knows the chart (`chart`)
//! and the programs' flags (`installation`); devices (`device`) are told no more than SDKs are, and
//! some of them are unmodified SDKs (`sdk`, which `packages` fetches). Where pods have to run, `node` has
//! a control plane with a node on a machine of namespaces, or a node of kind, and `oci` makes images for it.
//! What people read and type is taken from their pages (`markdown`) and run as they run it (`shell`).
//!
//! ```text
//! tools ──────► control_plane ──► cluster ──► installation ──► a test, the demo
//! (Go builds)   (three processes)  (clients,   (controller,     ▲
//!                                   audit)      gateway, hubs)  device
//!      └──────────── process, warden, network, certificates, wait ────────────┘
//! ```

pub mod attack;
mod audit;
mod certificates;
pub mod chart;
mod cluster;
pub mod commands;
mod control_plane;
pub mod device;
mod dice;
pub mod fleet;
pub mod health;
mod hosts;
pub mod installation;
pub mod markdown;
mod namespaces;
mod network;
pub mod node;
pub mod oci;
pub mod packages;
mod postgres;
mod private_network;
mod process;
pub mod sdk;
pub mod shell;
mod small_disk;
pub mod tools;
pub mod vitals;
mod wait;
mod warden;

pub use audit::{Audit, Mark, Request, Requests};
pub use certificates::{Authority, Issued};
pub use chart::{Operator, render_chart};
pub use cluster::{Cluster, Footprint, Identity, Namespace};
pub use control_plane::ControlPlane;
pub use dice::Dice;
pub use installation::Installation;
pub use network::{free_port, loopback};
pub use postgres::Postgres;
pub use private_network::PrivateNetwork;
pub use process::{Process, Signal};
pub use small_disk::SmallDisk;
pub use wait::{expect, expect_ok, until};
pub use warden::{keep_files, scratch};

/// Prints the figures of a test that passes, too: what `print` writes is kept back by then.
pub fn show(text: impl std::fmt::Display) {
    use std::io::Write as _;
    // Nobody to tell is no reason to fail.
    let _ = writeln!(std::io::stderr(), "{text}");
}
