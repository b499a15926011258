//! SIGKILL under concurrent writers, again and again: what was acknowledged is still there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rehome_testing::{expect, show};
use serde_json::{Value, json};

use super::process::{HubProcess, Service};

const ROUNDS: u64 = 24;
const WRITERS: usize = 8;
/// Acknowledged writes after which a round is killed; different in each round.
const BEFORE_KILL: u64 = 40;

/// What a request is told that took too long, as on a busy machine: the hub is well, and goes on.
pub(crate) const TOO_LONG: &str = "a write in it may have happened";

/// What one writer was told about its devices. The writer alone writes them.
#[derive(Default)]
struct Told {
    /// Device → the counter in its desired properties, its version and its etag.
    twins: BTreeMap<String, (u64, u64, String)>,
    deleted: Vec<String>,
    /// Every etag that was ever seen.
    etags: Vec<String>,
}

/// Writes until the hub is gone. A write whose answer did not come may or may not have happened:
/// the device is given up.
async fn write(
    service: Service,
    base: String,
    name: String,
    acknowledged: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> Told {
    let mut told = Told::default();
    'devices: for number in 0.. {
        let id = format!("{name}-{number}");
        for counter in 0..5 {
            if stop.load(Ordering::Relaxed) {
                return told;
            }
            let known = told.twins.remove(&id);
            let patch = json!({ "properties": { "desired": { "counter": counter, "fill": "x".repeat(500) } } });
            let create =
                json!([{ "id": id, "importMode": "create", "properties": patch["properties"] }]);
            let call = if counter == 0 {
                "POST /devices".to_owned()
            } else {
                format!("PATCH /twins/{id}")
            };
            let body = if counter == 0 { &create } else { &patch };
            let Ok(response) = service.call_url(&call, &base, body).await else {
                return told;
            };
            let status = response.status();
            if status != 200 {
                // In bulk it stands in the body.
                let Ok(text) = response.text().await else {
                    return told;
                };
                assert!(leaves_open(&text), "{call}: {status} {text}");
                if text.contains(TOO_LONG) {
                    continue 'devices;
                }
                return told;
            }
            let Ok(reply) = response.json::<Value>().await else {
                return told;
            };
            let (version, etag) = match known {
                None => (1, reply["devices"][0]["etag"].as_str().unwrap().to_owned()),
                Some((_, version, _)) => (version + 1, reply["etag"].as_str().unwrap().to_owned()),
            };
            told.etags.push(etag.clone());
            told.twins.insert(id.clone(), (counter, version, etag));
            acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        if number % 3 == 0 {
            told.twins.remove(&id);
            match service
                .call_url(&format!("DELETE /devices/{id}"), &base, &Value::Null)
                .await
            {
                Ok(response) if response.status() == 204 => told.deleted.push(id),
                Ok(response) => {
                    let Ok(text) = response.text().await else {
                        return told;
                    };
                    assert!(leaves_open(&text), "delete of {id}: {text}");
                    return told;
                }
                Err(_) => return told,
            }
        }
    }
    told
}

/// Whether an answer leaves open what became of a write: the store failed, or it took too long.
fn leaves_open(text: &str) -> bool {
    text.contains("store could not") || text.contains(TOO_LONG)
}

async fn verify(hub: &HubProcess, service: &Service, told: &Told) {
    for (id, (counter, version, etag)) in &told.twins {
        let twin = service
            .done(hub, &format!("GET /twins/{id}"), &Value::Null)
            .await;
        let desired = &twin["properties"]["desired"];
        assert_eq!(desired["counter"], *counter, "{id}");
        assert_eq!(desired["$version"], *version, "{id}");
        let found = if *version == 1 {
            &twin["deviceEtag"]
        } else {
            &twin["etag"]
        };
        assert_eq!(found, etag, "{id}");
    }
    for id in &told.deleted {
        let response = service
            .call(hub, &format!("GET /devices/{id}"), &Value::Null)
            .await
            .unwrap();
        assert_eq!(response.status(), 404, "{id} came back");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_when_the_hub_is_killed() {
    let hub = HubProcess::start().await;
    let total = survive(hub, ROUNDS, async |hub, _| {
        hub.kill();
        hub.restart().await;
    });
    let total = total.await;
    show(format_args!(
        "{ROUNDS} kills, {total} acknowledged writes, none lost"
    ));
}

/// Has writers write, and `strike` end the hub or what it rests on and start it again, round after
/// round; afterwards all that was acknowledged has to be there. How many writes that were.
pub(crate) async fn survive(
    mut hub: HubProcess,
    rounds: u64,
    mut strike: impl AsyncFnMut(&mut HubProcess, u64),
) -> u64 {
    let service = hub.service();
    let mut everything: Vec<Told> = Vec::new();
    let mut total = 0;
    for round in 0..rounds {
        let acknowledged = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                // Connections of its own, so that none outlives the hub that it was made to.
                let (service, base) = (hub.service(), hub.service_url(""));
                let name = format!("r{round}w{writer}");
                tokio::spawn(write(
                    service,
                    base,
                    name,
                    acknowledged.clone(),
                    stop.clone(),
                ))
            })
            .collect();
        let enough = BEFORE_KILL + round * 7;
        expect("enough writes", Duration::from_secs(60), async || {
            (acknowledged.load(Ordering::Relaxed) >= enough).then_some(())
        })
        .await;
        strike(&mut hub, round).await;
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            everything.push(writer.await.unwrap());
        }
        total += acknowledged.load(Ordering::Relaxed);
        for told in everything.iter().rev().take(WRITERS) {
            verify(&hub, &service, told).await;
        }
    }
    for told in &everything {
        verify(&hub, &service, told).await;
    }
    let mut etags: Vec<&String> = everything.iter().flat_map(|told| &told.etags).collect();
    let all = etags.len();
    etags.sort();
    etags.dedup();
    assert_eq!(etags.len(), all, "an etag was used twice");
    total
}

#[tokio::test]
async fn a_store_in_use_is_not_opened_twice() {
    let hub = HubProcess::start().await;
    let store = hub.store().join("devices.redb");
    let second = rehome::hub::store::DurableStore::open(&store);
    let why = second.err().expect("the store is in use").to_string();
    assert!(why.contains("devices.redb"), "{why}");
}
