//! A full disk under either store: what was acknowledged stays and is served, what does not fit is
//! refused with the reason, and once there is room the hub goes on by itself.

use rehome_testing::{Postgres, SmallDisk, expect, show};
use serde_json::{Value, json};

use super::durability::TOO_LONG;
use super::process::{HubProcess, START_WITHIN, Service};

/// More devices than any disk of these tests has room for.
const DEVICES: usize = 5_000;
const KIB: u64 = 1024;

/// A twin that cannot be made smaller: PostgreSQL compresses what repeats.
fn twin(number: usize) -> Value {
    let mut state = u64::try_from(number).unwrap() + 1;
    let mut word = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        format!("{state:016x}")
    };
    // Some 23 KiB; a value may have 4.
    let mut line = || (0..180).map(|_| word()).collect::<String>();
    let lines: Vec<String> = (0..8).map(|_| line()).collect();
    json!({ "desired": { "number": number, "fill": lines } })
}

fn id(number: usize) -> String {
    format!("device-{number:05}")
}

/// Creates devices until one is refused; how many there are, and what was said.
async fn create_until_full(hub: &HubProcess, service: &Service, from: usize) -> (usize, String) {
    for number in from..DEVICES {
        let create = json!([{ "id": id(number), "importMode": "create",
            "properties": twin(number) }]);
        let mut may_exist = false;
        let (status, text) = loop {
            let response = service.call(hub, "POST /devices", &create).await.unwrap();
            let (status, text) = (response.status(), response.text().await.unwrap());
            if !text.contains(TOO_LONG) {
                break (status, text);
            }
            may_exist = true;
        };
        let exists = may_exist && text.contains("DeviceAlreadyExists");
        if status != 200 && !exists {
            return (number, format!("{status} {text}"));
        }
    }
    panic!("the disk took {DEVICES} devices");
}

/// Every device that was acknowledged is there, as it was.
async fn all_are_served(hub: &HubProcess, service: &Service, count: usize) {
    for number in 0..count {
        let call = format!("GET /twins/{}", id(number));
        let found = service.done(hub, &call, &Value::Null).await;
        let desired = &found["properties"]["desired"];
        assert_eq!(desired["fill"], twin(number)["desired"]["fill"], "{call}");
    }
    let counts = "GET /statistics/devices";
    let counts = service.done(hub, counts, &Value::Null).await;
    assert_eq!(counts["totalDeviceCount"], count);
}

/// Whether the hub says to everybody who asks that it is full; it is ready all the same.
async fn says_it_is_full(hub: &HubProcess, service: &Service, is_full: bool) {
    let counts = "GET /statistics/devices";
    let counts = service.done(hub, counts, &Value::Null).await;
    assert_eq!(counts["isStoreFull"], is_full);
    let (status, text) = hub.asked("/readyz").await;
    assert_eq!((status, &*text), (200, "ready\n"));
    let metrics = hub.asked("/metrics").await.1;
    let takes = format!("rehome_hub_store_takes_writes {}", u8::from(!is_full));
    assert!(metrics.contains(&takes), "{metrics}");
}

async fn patch(hub: &HubProcess, service: &Service, number: usize) -> (u16, String) {
    let call = format!("PATCH /twins/{}", id(number));
    let change = json!({ "tags": { "patched": true } });
    let response = service.call(hub, &call, &change).await.unwrap();
    let status = response.status().as_u16();
    (status, response.text().await.unwrap())
}

#[tokio::test]
async fn a_hub_whose_volume_is_full_serves_reads_and_goes_on_when_there_is_room() {
    let disk = SmallDisk::new(24).await.unwrap();
    disk.fill_up_to(16 * KIB * KIB).unwrap();
    let mut hub = HubProcess::start_on(disk).await;
    let service = hub.service();
    says_it_is_full(&hub, &service, false).await;

    let (count, refusal) = create_until_full(&hub, &service, 0).await;
    assert!(count > 100, "only {count} devices fitted");
    assert!(refusal.contains("its volume is full"), "{refusal}");
    assert!(hub.log().contains("the volume of the hub's store is full"));
    let (status, text) = patch(&hub, &service, 0).await;
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("nothing was written"), "{text}");
    says_it_is_full(&hub, &service, true).await;
    all_are_served(&hub, &service, count).await;

    // It comes up on the full volume, too.
    hub.kill();
    hub.restart().await;
    says_it_is_full(&hub, &service, true).await;
    let (status, _) = patch(&hub, &service, 0).await;
    assert_eq!(status, 503);
    all_are_served(&hub, &service, count).await;

    hub.disk().make_room().unwrap();
    says_it_is_full(&hub, &service, false).await;
    let (status, text) = patch(&hub, &service, 0).await;
    assert_eq!(status, 200, "{text}");
    let (more, _) = create_until_full(&hub, &service, count).await;
    assert!(more > count);
    all_are_served(&hub, &service, more).await;
    assert!(hub.process().ended().unwrap().is_none(), "the same process");
    assert!(hub.terminate().await, "it ends well on a full volume");
    show(format_args!(
        "redb: {count} devices until the volume was full, {more} with more room, none lost"
    ));
}

#[tokio::test]
async fn a_hub_whose_postgresql_is_full_serves_reads_and_goes_on_when_there_is_room() {
    let disk = SmallDisk::new(128).await.unwrap();
    let server = Postgres::start_on(&disk).await.unwrap();
    let mut hub = HubProcess::start_in(&server).await;
    let service = hub.service();
    disk.fill_up_to(2 * KIB * KIB).unwrap();

    let (count, refusal) = create_until_full(&hub, &service, 0).await;
    assert!(count > 50, "only {count} devices fitted");
    assert!(
        refusal.contains("the disk of PostgreSQL is full"),
        "{refusal}"
    );
    assert!(hub.log().contains("PostgreSQL has no room for a write"));
    says_it_is_full(&hub, &service, true).await;
    all_are_served(&hub, &service, count).await;

    hub.kill();
    hub.restart().await;
    let (again, refusal) = create_until_full(&hub, &service, count).await;
    assert!(
        refusal.contains("the disk of PostgreSQL is full"),
        "{refusal}"
    );
    all_are_served(&hub, &service, again).await;

    disk.make_room().unwrap();
    expect("a hub that has seen the room", START_WITHIN, async || {
        let metrics = hub.asked("/metrics").await.1;
        let takes = metrics.contains("rehome_hub_store_takes_writes 1");
        takes.then_some(())
    })
    .await;
    says_it_is_full(&hub, &service, false).await;
    let (status, text) = patch(&hub, &service, 0).await;
    assert_eq!(status, 200, "{text}");
    let create = json!([{ "id": id(again), "importMode": "create", "properties": twin(again) }]);
    service.done(&hub, "POST /devices", &create).await;
    all_are_served(&hub, &service, again + 1).await;
    assert!(hub.process().ended().unwrap().is_none(), "the same process");
    show(format_args!(
        "PostgreSQL: {again} devices until its disk was full, none lost"
    ));
}
