//! What is lived through, in this order.

mod four;
mod install;
mod quickstart;
mod rights;
mod service;
mod trouble;

use anyhow::Result;
use futures::future::LocalBoxFuture;

use crate::ground::Ground;
pub(crate) use trouble::DEVICES;

/// A scenario, which leaves the installation in order for the next.
type Scenario = for<'a> fn(&'a mut Ground) -> LocalBoxFuture<'a, Result<()>>;

/// The one without which no other can be.
pub(crate) const FIRST: &str = "install";

pub(crate) const ALL: &[(&str, Scenario)] = &[
    // Begins with nothing on the cluster, and leaves nothing.
    ("quickstart", |ground| Box::pin(quickstart::play(ground))),
    (FIRST, |ground| Box::pin(install::play(ground))),
    ("geo", |ground| Box::pin(four::geo(ground))),
    ("multi-tenancy", |ground| {
        Box::pin(four::multi_tenancy(ground))
    }),
    ("solution-change", |ground| {
        Box::pin(four::solution_change(ground))
    }),
    ("quarantine", |ground| Box::pin(four::quarantine(ground))),
    ("factory-reset", |ground| {
        Box::pin(trouble::factory_reset(ground))
    }),
    ("kills", |ground| Box::pin(trouble::kills(ground))),
    ("rollout", |ground| Box::pin(service::rollout(ground))),
    ("upgrade", |ground| Box::pin(trouble::upgrade(ground))),
    ("node-restart", |ground| {
        Box::pin(trouble::node_restart(ground))
    }),
    ("certificates", |ground| {
        Box::pin(service::certificates(ground))
    }),
    ("backup", |ground| Box::pin(trouble::backup(ground))),
    // After all of them, but for one that takes the rights away.
    ("rights", |ground| Box::pin(rights::play(ground))),
    ("reinstall", |ground| Box::pin(service::reinstall(ground))),
];

/// What cannot be played on a kind node, and why.
pub(crate) const NOT_ON_KIND: &[(&str, &str)] = &[(
    "backup",
    "its etcd cannot be stopped and replaced while the disks of pods stay as they are",
)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_scenarios_are_left_out_on_kind_and_never_the_first() {
        for (name, _) in NOT_ON_KIND {
            assert!(ALL.iter().any(|(known, _)| known == name), "{name}");
            assert_ne!(*name, FIRST);
        }
    }
}
