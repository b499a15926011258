//! What people and mishaps do while the fleet lives: groups get other hubs, and a gateway is killed.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::api::{Patch, PatchParams};
use rehome_testing::until;
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

use super::PATIENCE;
use super::ground::{GROUPS, Ground, HUBS};
use super::run::Run;
use super::sampling::Incidents;

/// Every group gets another hub so many times.
const ROUNDS: u32 = 4;
/// Shortest time between two groups.
const SHORTEST: Duration = Duration::from_secs(2);
/// One device in so many is moved at once, by its registration's trigger; the others when they come
/// by next.
const AT_ONCE: usize = 10;
/// When the second gateway is killed, in hundredths of the run. Early, so that there is enough left
/// to judge the memory of its last process.
const KILLS: [u32; 2] = [10, 25];

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    /// How many times a group got another hub.
    pub(crate) waves: usize,
    /// Registrations that were given a trigger.
    pub(crate) triggers: usize,
}

/// Where a group is after so many moves, as a number of [`HUBS`]: each goes to the hub that a group has
/// just left. No hub ever has more groups than in the beginning, so what a hub takes later is no more
/// than what it took while the run was warming up.
pub(crate) fn hub_of(group: usize, moves: usize) -> usize {
    (group + moves * (HUBS.len() - 1)) % HUBS.len()
}

/// How long it is from one group's turn to the next one's.
pub(crate) fn between_waves(time: Duration) -> Duration {
    let turns = u32::try_from(GROUPS).unwrap_or(u32::MAX) * ROUNDS;
    (time / turns).max(SHORTEST)
}

/// Moves one group after the other for that long.
pub(crate) async fn waves(ground: &Ground, fast: &[Vec<String>], time: Duration) -> Result<Done> {
    let (begin, every) = (Instant::now(), between_waves(time));
    let mut done = Done::default();
    for wave in 0.. {
        let number = wave % GROUPS;
        let round = wave / GROUPS;
        // Time for the devices of the last one to come by.
        if begin.elapsed() + every > time {
            break;
        }
        let hub = HUBS[hub_of(number, round + 1)];
        let group = &ground.groups[number];
        let next = Instant::now() + every;
        ground.reallocate(group, hub).await?;
        done.waves += 1;
        for name in fast[number].iter().step_by(AT_ONCE) {
            trigger(ground, name, wave).await?;
            done.triggers += 1;
        }
        sleep_until(next).await;
    }
    Ok(done)
}

/// Has the controller move a device without waiting for it.
async fn trigger(ground: &Ground, name: &str, wave: usize) -> Result<()> {
    let wish = json!({ "id": format!("wave-{wave}"), "mode": "Policy" });
    let patch = Patch::Merge(json!({ "spec": { "reprovision": wish } }));
    let registrations = ground.tenant.objects("DeviceRegistration");
    registrations
        .patch(name, &PatchParams::default(), &patch)
        .await
        .with_context(|| format!("the trigger of {name}"))?;
    Ok(())
}

/// Kills the second gateway now and then, and starts it again. Gives the incidents that its dead
/// processes had counted.
pub(crate) async fn outages(ground: &Ground, run: &Run, time: Duration) -> Result<Incidents> {
    let begin = Instant::now();
    let mut incidents = Incidents::default();
    for hundredths in KILLS {
        sleep((time * hundredths / 100).saturating_sub(begin.elapsed())).await;
        let mut replica = ground.replica.lock().await;
        incidents.add(&Incidents::read(replica.health).await?);
        run.gateways[1].leaves();
        replica.restart(&ground.installation).await?;
        let ready = format!("http://{}/readyz", replica.health);
        until(PATIENCE, async || {
            let status = reqwest::get(&ready).await?.status();
            ensure!(status.is_success(), "{ready} answers {status}");
            Ok(())
        })
        .await
        .map_err(|last| last.unwrap_or_else(|| anyhow::anyhow!("no answer")))?;
        run.gateways[1].is_back();
    }
    Ok(incidents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_hub_ever_has_more_groups_than_others() {
        let mut homes: Vec<_> = (0..GROUPS).map(|group| hub_of(group, 0)).collect();
        for wave in 0..5 * GROUPS {
            let (group, moves) = (wave % GROUPS, wave / GROUPS + 1);
            assert_ne!(homes[group], hub_of(group, moves), "a wave moves its group");
            homes[group] = hub_of(group, moves);
            for hub in 0..HUBS.len() {
                let groups = homes.iter().filter(|home| **home == hub).count();
                assert!(
                    (2..=GROUPS.div_ceil(HUBS.len())).contains(&groups),
                    "{homes:?}"
                );
            }
        }
    }
}
