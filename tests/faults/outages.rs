//! Parts that are gone for a while.

use std::time::{Duration, Instant};

use futures::future::join_all;
use kube::api::ListParams;
use rehome_testing::{Signal, expect, expect_ok};

use crate::floor::{EAST, Floor, PATIENCE, WEST};

/// How long the API server is gone.
const OUTAGE: Duration = Duration::from_secs(30);
/// Devices that move while their hub is killed.
const DEVICES: usize = 24;
const KILLS: usize = 3;

pub(crate) async fn a_source_that_is_gone_is_waited_for(floor: &mut Floor) {
    let group = floor.group("sourceless").await;
    let device = floor.newcomer(&group, "one").await;
    floor.retarget(&group, EAST).await;
    floor.signal(WEST, Signal::STOP);
    let answer = floor.registering(&device);
    let name = &device.applicant.registration_id;
    let registrations = floor.registrations();
    expect_ok("the reason", PATIENCE, async || {
        let record = registrations.get(name).await.unwrap();
        let conditions = record.status.unwrap_or_default().conditions;
        let mut reasons = conditions.iter().map(|one| one.reason.as_str());
        let told =
            reasons.any(|reason| reason == "SourceUnreachable" || reason == "HubUnreachable");
        told.then_some(()).ok_or(format!("{conditions:?}"))
    })
    .await;
    assert_eq!(floor.hub(EAST).identity(name).await.unwrap(), None);
    floor.signal(WEST, Signal::CONT);
    let told = answer.await.unwrap().unwrap();
    assert_eq!(told.hub, floor.hub(EAST).host());
    floor.lives_at(&device, EAST).await;
}

pub(crate) async fn a_device_deleted_behind_our_back_is_made_again(floor: &mut Floor) {
    let group = floor.group("vanished").await;
    let device = floor.newcomer(&group, "one").await;
    let (name, west) = (&device.applicant.registration_id, floor.hub(WEST));
    let before = west.identity(name).await.unwrap().unwrap();
    west.delete_device(name).await.unwrap();
    // Its hub refuses it, so it asks again soon.
    assert!(floor.connect(&device, west).await.is_err());
    let told = floor.register(&device.applicant).await.unwrap();
    assert_eq!((&*told.status, &told.hub), ("assigned", &west.host()));
    floor.rests(&device).await;
    let after = west.identity(name).await.unwrap().unwrap();
    assert_ne!(after["generationId"], before["generationId"]);
    assert!(floor.connect(&device, west).await.is_ok());
}

pub(crate) async fn without_the_api_server_devices_get_clear_answers(floor: &mut Floor) {
    let group = floor.group("patient").await;
    let device = floor.newcomer(&group, "one").await;
    // The home has been verified once, which is done at most once in ten minutes.
    let known = floor.register(&device.applicant).await.unwrap();
    floor.rests(&device).await;
    let newcomer = floor.tenant.device(&group, "two");
    let mut line = floor.installation.registrar.line().await.unwrap();
    let request = newcomer.register_request().unwrap();
    let unchanged = device.applicant.register_request().unwrap();

    floor.cluster.stop_api_server().await.unwrap();
    let gone = Instant::now();
    let reply = line.ask(&request).await.unwrap();
    assert_eq!(reply.code, 503);
    assert_eq!(reply.json().unwrap()["errorCode"], 503_000);
    let reply = line.ask(&unchanged).await.unwrap();
    let answer = reply.json().unwrap();
    assert_eq!(answer["status"], "assigned", "{answer}");
    assert_eq!(answer["registrationState"]["assignedHub"], known.hub);
    expect("the outage to last", OUTAGE + PATIENCE, async || {
        (gone.elapsed() >= OUTAGE).then_some(())
    })
    .await;
    floor.cluster.start_api_server().await.unwrap();
    // Who has lost the Lease ends, and is started again.
    floor.mend().await;
    let told = expect_ok("the newcomer's home", PATIENCE, async || {
        floor
            .register(&newcomer)
            .await
            .map_err(|error| format!("{error:#}"))
    });
    assert_eq!(told.await.hub, floor.hub(WEST).host());
    assert!(floor.installation.gateway.ended().unwrap().is_none());
    floor.mend().await;
    floor.lives_at(&device, WEST).await;
}

pub(crate) async fn a_hub_killed_under_load_loses_nothing(floor: &mut Floor) {
    let group = floor.group("loaded").await;
    let names: Vec<_> = (0..DEVICES).map(|number| number.to_string()).collect();
    let newcomers = names.iter().map(|name| floor.newcomer(&group, name));
    let devices = join_all(newcomers).await;
    floor.retarget(&group, EAST).await;
    let answers: Vec<_> = devices
        .iter()
        .map(|device| floor.registering(device))
        .collect();
    for kill in 0..KILLS {
        // Once some have moved and others have not.
        let registrations = floor.registrations();
        let (host, begun) = (floor.hub(EAST).host(), kill + 1);
        expect("moves to go on", PATIENCE, async || {
            let all = registrations.list(&ListParams::default()).await.unwrap();
            let arrived = all.iter().filter(|one| {
                let status = one.status.as_ref();
                one.spec.registration_id.starts_with("loaded-")
                    && status.is_some_and(|status| status.assigned_hub.as_ref() == Some(&host))
            });
            (arrived.count() > begun).then_some(())
        })
        .await;
        let hub = &mut floor.installation.hubs[kill % 2];
        hub.process.kill().unwrap();
        hub.restart().await.unwrap();
    }
    for (device, answer) in devices.iter().zip(answers) {
        let told = answer.await.unwrap().unwrap();
        assert_eq!(told.hub, floor.hub(EAST).host());
        floor.lives_at(device, EAST).await;
    }
}
