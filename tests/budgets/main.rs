//! What everything costs, counted in the API server's audit log and at the hubs: real controller,
//! gateway and hubs as processes. Nothing is timed.
#![cfg(test)]

mod floor;
mod spent;

use std::collections::BTreeMap;
use std::time::Duration;

use kube::Api;
use kube::api::{Patch, PatchParams};
use rehome::api::v1alpha1::Enrollment;
use rehome_testing::device::{Applicant, Key, Protocol, Told};
use rehome_testing::{Mark, expect_ok};
use serde_json::json;

use floor::{EAST, Floor, WEST};
use spent::{Budgets, Meter, most_for_one};

const FLEET: usize = 200;
const MOVES: usize = 50;
const RESETS: usize = 50;
const REFRESHES: usize = 20;
/// Between two writes of the counters in one status.
const COUNTERS_APART: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn every_budget_is_kept() {
    let floor = Floor::start().await;
    let mut budgets = Budgets::default();
    let fleet = floor.group("fleet", "MigrateData", FLEET).await;
    let fleet = floor.devices(&fleet, FLEET);
    floor.rest().await;
    let begin = floor.cluster.audit().unwrap().mark().unwrap();
    let told = first_registrations(&floor, &mut budgets, &fleet).await;
    unchanged(&floor, &mut budgets, &fleet, &told).await;
    polls(&floor, &mut budgets, &fleet, &told).await;
    moves(&floor, &mut budgets).await;
    resets(&floor, &mut budgets).await;
    refreshes(&floor, &mut budgets).await;
    counters(&floor, &mut budgets, begin);
    strangers(&floor, &mut budgets, &fleet).await;
    settled(&floor, &mut budgets).await;
    budgets.settle();
    floor.installation.stop().await.unwrap();
}

async fn first_registrations(
    floor: &Floor,
    budgets: &mut Budgets,
    fleet: &[Applicant],
) -> Vec<Told> {
    let meter = Meter::start(floor).await;
    let told = floor.register(fleet).await;
    floor.rest().await;
    let spent = meter.read("200 first registrations").await;
    let (writes, reads) = (spent.writes(), spent.reads());
    assert_eq!(writes.count("create", "deviceregistrations"), FLEET);
    budgets.check(
        "first registrations: writes",
        writes.len(),
        2 * FLEET as u64,
    );
    budgets.check("… after the create, for one", most_for_one(&writes), 1);
    budgets.check("… live reads", reads.len(), FLEET as u64);
    budgets.check("… live reads for one", most_for_one(&reads), 1);
    budgets.check("… Events", spent.events().len(), 0);
    budgets.check("… hub calls", spent.device_calls(), 2 * FLEET as u64);
    told
}

async fn unchanged(floor: &Floor, budgets: &mut Budgets, fleet: &[Applicant], told: &[Told]) {
    let meter = Meter::start(floor).await;
    assert_eq!(floor.register(fleet).await, told, "another answer");
    let spent = meter.read("200 unchanged registrations").await;
    budgets.check("unchanged: requests", kinds(&spent.requests), 0);
    budgets.check("… hub calls", spent.device_calls(), 0);
}

async fn polls(floor: &Floor, budgets: &mut Budgets, fleet: &[Applicant], told: &[Told]) {
    let meter = Meter::start(floor).await;
    let mut line = floor.installation.registrar.line().await.unwrap();
    for (device, told) in fleet.iter().zip(told) {
        let request = device.poll_request(&told.operation_id).unwrap();
        let reply = line.ask(&request).await.unwrap();
        let state = &reply.json().unwrap()["registrationState"];
        assert_eq!((reply.code, &state["assignedHub"]), (200, &json!(told.hub)));
    }
    let spent = meter.read("200 polls").await;
    budgets.check("polls: requests", kinds(&spent.requests), 0);
    budgets.check("… hub calls", spent.device_calls(), 0);
}

async fn moves(floor: &Floor, budgets: &mut Budgets) {
    let group = floor.group("movers", "MigrateData", MOVES).await;
    let movers = floor.devices(&group, MOVES);
    floor.register(&movers).await;
    let patch = json!({ "spec": { "allocation": { "hubs": [EAST] } } });
    let enrollments: Api<Enrollment> = floor.tenant.namespace.api();
    let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
    enrollments.patch("movers", &params, &patch).await.unwrap();
    let east = floor.installation.hubs[1].host();
    let pioneer = [floor.tenant.device(&group, "pioneer")];
    expect_ok("the pioneer to move", Duration::from_mins(1), async || {
        let told = floor.register(&pioneer).await.remove(0);
        if told.hub == east { Ok(()) } else { Err(told) }
    })
    .await;
    floor.rest().await;

    let meter = Meter::start(floor).await;
    let told = floor.register(&movers).await;
    assert!(
        told.iter()
            .all(|told| told.hub == east && told.substatus == "deviceDataMigrated")
    );
    floor.rest().await;
    let spent = meter.read("50 moves").await;
    let writes = spent.writes();
    assert_eq!(writes.count("patch", "deviceregistrations"), MOVES);
    budgets.check("moves: writes", writes.len(), 4 * MOVES as u64);
    budgets.check("… for one", most_for_one(&writes), 4);
    budgets.check("… Events", spent.events().len(), 2 * MOVES as u64);
}

async fn resets(floor: &Floor, budgets: &mut Budgets) {
    let group = floor.group("resetters", "ResetData", RESETS).await;
    let resetters = floor.devices(&group, RESETS);
    floor.register(&resetters).await;
    floor.rest().await;

    let meter = Meter::start(floor).await;
    let told = floor.register(&resetters).await;
    assert!(told.iter().all(|told| told.substatus == "deviceDataReset"));
    floor.rest().await;
    let spent = meter.read("50 same-hub resets").await;
    let writes = spent.writes();
    let all = writes.len() + spent.events().len();
    budgets.check("resets: writes, Events included", all, 3 * RESETS as u64);
    budgets.check("… for one", most_for_one(&writes), 3);
}

async fn refreshes(floor: &Floor, budgets: &mut Budgets) {
    let mut group = floor.group("refreshers", "MigrateData", REFRESHES).await;
    floor.register(&floor.devices(&group, REFRESHES)).await;
    group.key = Key::random().unwrap();
    floor
        .tenant
        .enroll(&group, &floor.installation)
        .await
        .unwrap();
    floor.rest().await;

    let meter = Meter::start(floor).await;
    let refreshers = floor.devices(&group, REFRESHES);
    floor.register(&refreshers).await;
    floor.rest().await;
    let spent = meter.read("20 credential refreshes").await;
    let writes = spent.writes();
    assert_eq!(writes.count("patch", "deviceregistrations"), REFRESHES);
    let all = writes.len() + spent.events().len();
    budgets.check(
        "refreshes: writes, Events included",
        all,
        2 * REFRESHES as u64,
    );
    budgets.check("… for one", most_for_one(&writes), 2);
    let west = &floor.installation.hubs[0];
    for device in &refreshers {
        let identity = west.identity(&device.registration_id).await.unwrap();
        let keys = &identity.unwrap()["authentication"]["symmetricKey"];
        // Not assert_eq: keys must not be shown.
        assert!(keys["primaryKey"] == device.key.to_base64(), "the old key");
    }
}

/// Of the objects that nobody edited since `begin`.
fn counters(floor: &Floor, budgets: &mut Budgets, begin: Mark) {
    let written = floor.cluster.audit().unwrap().since(begin).unwrap();
    let written = written.by(&floor.installation.operator.controller.user);
    let mut last = BTreeMap::new();
    let (mut early, mut all) = (0u64, 0u64);
    for request in &written.writes().to_group("rehome.dev").0 {
        if request.subresource != "status" || ![WEST, EAST, "fleet"].contains(&&*request.name) {
            continue;
        }
        all += 1;
        let object = (&request.resource, &request.name);
        if let Some(before) = last.insert(object, request.received) {
            let apart = request.received.duration_since(before);
            early += u64::from(apart < COUNTERS_APART.try_into().unwrap());
        }
    }
    assert!(all >= 4, "hubs and Enrollment show no counts: {all} writes");
    budgets.check("counters: writes less than 10 s apart", early, 0);
}

async fn strangers(floor: &Floor, budgets: &mut Budgets, fleet: &[Applicant]) {
    let registrar = &floor.installation.registrar;
    let meter = Meter::start(floor).await;
    let mut line = registrar.line().await.unwrap();
    let stranger = |device: &Applicant| Applicant {
        key: Key::random().unwrap(),
        ..device.clone()
    };
    for (number, device) in fleet.iter().enumerate() {
        let wrong_key = stranger(device);
        let unknown = Applicant {
            registration_id: format!("nobody-{number}"),
            ..wrong_key.clone()
        };
        let elsewhere = Applicant {
            scope: format!("nowhere-{number}"),
            ..device.clone()
        };
        for (device, code) in [(&wrong_key, 401), (&unknown, 401), (&elsewhere, 404)] {
            let reply = line.ask(&device.register_request().unwrap()).await.unwrap();
            assert_eq!(reply.code, code, "{device:?}");
        }
        let refused = registrar.register(&wrong_key, Protocol::Mqtt, None).await;
        let refused = format!("{:#}", refused.expect_err("a wrong key over MQTT"));
        assert!(refused.contains("answered 401"), "{refused}");
    }
    let attacked = meter.read("800 requests of strangers").await;
    let meter = Meter::start(floor).await;
    meter.wait(attacked.took).await;
    let quiet = meter.read("as long without them").await;
    let kinds = kinds(&attacked.requests);
    budgets.check("strangers: requests", kinds, 0);
    let other = attacked.requests.len() - kinds;
    budgets.check(
        "… others, against those of a quiet time",
        other,
        1 + quiet.requests.len() as u64,
    );
    budgets.check("… hub calls", attacked.device_calls(), 0);
}

async fn settled(floor: &Floor, budgets: &mut Budgets) {
    let meter = Meter::start(floor).await;
    meter.wait(Duration::from_mins(1)).await;
    let spent = meter.read("a minute of rest").await;
    budgets.check("at rest: requests", spent.requests.len(), 0);
    budgets.check("… hub calls for devices", spent.device_calls(), 0);
}

/// Requests for Rehome's kinds and Events.
fn kinds(requests: &rehome_testing::Requests) -> usize {
    let ours = requests.only(|one| one.group == "rehome.dev" || one.resource == "events");
    ours.len()
}
