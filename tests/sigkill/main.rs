//! Real processes, really killed: registrations move between two `rehome hub`s while a back end
//! keeps writing, and `rehome controller`, at times a hub too, gets SIGKILL at random moments.

#![expect(clippy::unwrap_used, reason = "what a test relies on fails the test")]

mod stage;

use std::time::{Duration, Instant};

use rehome::api::v1alpha1::{DeviceRegistration, RegistrationState};
use rehome::domain::attestation::DeviceCredential;
use rehome_testing::{Dice, expect_ok, show};

use stage::{HOSTS, Stage, Writes};

/// Rounds; the controller is killed in each.
const ROUNDS: usize = 24;
/// A hub is killed, too, in every round of this number.
const HUB_TOO: usize = 4;
/// Devices that move in each round.
const DEVICES: usize = 12;
/// The kill comes within this time after the requests.
const LATEST_KILL: u64 = 500;
/// Longest time for a round to settle.
const SETTLES: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_when_processes_are_killed() {
    let seed = std::env::var("SIGKILL_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(7);
    println!("SIGKILL_SEED={seed}");
    let mut dice = Dice::new(seed);
    let mut stage = Stage::set(DEVICES).await.unwrap();
    stage.request_all(0, 0).await;
    settle(&stage, 0, 0).await;
    let writes = Writes::start(&stage);
    let (mut kills, started) = (0, Instant::now());
    for round in 1..=ROUNDS {
        let to = round % HOSTS.len();
        stage.request_all(round, to).await;
        let moment = Duration::from_millis(dice.roll(LATEST_KILL));
        // Not a wait for anything: the moment of the fault.
        tokio::time::sleep(moment).await;
        stage.controller.take().unwrap().kill().unwrap();
        kills += 1;
        if round % HUB_TOO == 0 {
            stage.hubs[usize::try_from(dice.roll(2)).unwrap()]
                .kill_and_restart()
                .await
                .unwrap();
            kills += 1;
        }
        stage.start_controller().unwrap();
        settle(&stage, round, to).await;
    }
    let acknowledged = writes.stop().await;
    let took = started.elapsed().as_secs();
    show(format_args!(
        "{kills} SIGKILLs, {} acknowledged writes, {took} s",
        acknowledged.len()
    ));
    assert!(kills >= 20);
    assert!(
        acknowledged.len() > 10 * ROUNDS,
        "the back end hardly wrote"
    );
    check(&stage, &acknowledged).await;
}

/// Waits until every registration answers the round's request.
async fn settle(stage: &Stage, round: usize, to: usize) {
    expect_ok("every registration to settle", SETTLES, async || {
        let all = stage.registrations().await;
        let open = |object: &&DeviceRegistration| !is_answered(object, round, to);
        match all.iter().find(open) {
            None => Ok(()),
            Some(open) => Err(open.status.clone()),
        }
    })
    .await;
}

fn is_answered(object: &DeviceRegistration, round: usize, to: usize) -> bool {
    object.status.as_ref().is_some_and(|status| {
        status.state == Some(RegistrationState::Assigned)
            && status.assigned_hub.as_deref() == Some(HOSTS[to])
            && status
                .operation_id
                .as_deref()
                .is_some_and(|id| id.ends_with(&format!(".{round}")))
            && status.transfer.is_none()
            && status.cleanup.is_empty()
    })
}

/// One home for each device, enabled, with its keys and every acknowledged write.
async fn check(stage: &Stage, acknowledged: &[(String, String)]) {
    let home = ROUNDS % HOSTS.len();
    for device in &stage.devices {
        for (number, hub) in stage.hubs.iter().enumerate() {
            let identity = hub.client.read(device).await.unwrap();
            if number != home {
                assert!(
                    identity.is_none(),
                    "{device} is left at {}: {identity:?}",
                    HOSTS[number]
                );
                continue;
            }
            let identity = identity.unwrap();
            assert!(identity.enabled, "{identity:?}");
            assert!(
                identity.has_credential(&DeviceCredential::Keys(stage.keys(device))),
                "{device} has other keys"
            );
        }
        let twin = stage.hubs[home]
            .client
            .read_twin(device)
            .await
            .unwrap()
            .unwrap();
        for (_, key) in acknowledged.iter().filter(|(whose, _)| whose == device) {
            assert!(
                twin.content.tags.contains_key(key) && twin.content.desired.contains_key(key),
                "write {key} to {device} is lost"
            );
        }
    }
}
