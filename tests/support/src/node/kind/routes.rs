//! Routes of this machine to a node, so that it reaches Services and load balancers as others do.

use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Result, ensure};

use super::config::SERVICES;
use super::docker::printed;
use super::undo::Undo;
use crate::node::cloud;

fn ranges() -> [String; 2] {
    [SERVICES.to_owned(), cloud::range()]
}

/// Makes sure that nobody uses these addresses.
pub(super) fn are_free() -> Result<()> {
    for range in ranges() {
        let taken = ip(&["-4", "route", "show", "exact", &range])?;
        ensure!(
            taken.is_empty(),
            "the addresses {range} are needed for the cluster, and this machine has a route to them \
             already, perhaps of another run: {}; remove it with: ip route del {range}",
            taken.trim()
        );
    }
    Ok(())
}

/// Lays them to the node, away from where it was before.
pub(super) fn lay(node: Ipv4Addr, undo: &Undo) -> Result<()> {
    let node = node.to_string();
    for range in ranges() {
        undo.note(&["ip", "route", "del", &range, "via", &node])?;
        ip(&["route", "replace", &range, "via", &node])?;
    }
    Ok(())
}

fn ip(arguments: &[&str]) -> Result<String> {
    printed(Command::new("ip").args(arguments))
}
