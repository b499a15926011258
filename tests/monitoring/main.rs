//! What people are shown of an installation: alerts that fire on what they are for, and dashboards
//! whose every query a real Prometheus answers from real processes.

#![cfg(test)]

mod alerts;
mod dashboards;
mod prometheus;

use std::path::{Path, PathBuf};

/// What the chart ships.
fn shipped(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("charts/rehome/files")
        .join(file)
}
