//! What needs a clock under control; the rest is tested over TLS, in `tests/hub`.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::time::Instant;

use super::*;
use crate::clock::Clock;
use crate::domain::sas::SasToken;
use crate::hub::rest::Policies;

const KEY: &str = "ZGV2aWNlLWtleS0wMTIzNA==";
const NOW: u64 = 1_800_000_000;

struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(i64::try_from(NOW).unwrap()).unwrap()
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

fn connect(token: &str) -> Vec<u8> {
    let mut body = b"\0\x04MQTT\x04\xc2\0\0".to_vec();
    for field in ["press-7", "hub.test/press-7/?api-version=2021-04-12", token] {
        body.extend(u16::try_from(field.len()).unwrap().to_be_bytes());
        body.extend(field.as_bytes());
    }
    let length = u8::try_from(body.len() % 128).unwrap();
    let mut packet = vec![0x10, 0x80 | length, u8::try_from(body.len() / 128).unwrap()];
    packet.extend(body);
    packet
}

#[tokio::test(start_paused = true)]
async fn a_connection_ends_when_its_token_no_longer_counts() {
    let random = Arc::new(|bytes: &mut [u8]| bytes.fill(1));
    let hub = Hub::in_memory("hub.test", Policies::default(), Arc::new(Stopped), random);
    let keys = json!({ "primaryKey": KEY, "secondaryKey": KEY });
    let entry = json!({ "id": "press-7", "importMode": "create",
                        "authentication": { "type": "sas", "symmetricKey": keys } });
    let created = hub
        .bulk(vec![entry.as_object().unwrap().clone()])
        .await
        .unwrap();
    assert!(created.errors.is_empty());

    let (mut client, server) = duplex(4096);
    let served = tokio::spawn(serve(hub.clone(), server, ClientCertificates::default()));
    let token = SasToken::sign(
        "hub.test/devices/press-7",
        &KEY.parse().unwrap(),
        NOW + 100,
        None,
    );
    client.write_all(&connect(&token)).await.unwrap();
    let mut connack = [0; 4];
    client.read_exact(&mut connack).await.unwrap();
    assert_eq!(connack, [0x20, 2, 0, 0]);
    assert!(hub.sessions.presence("press-7", None).connected);

    let connected = Instant::now();
    assert_eq!(client.read(&mut connack).await.unwrap(), 0);
    // Five minutes past the expiry, as clocks differ.
    let lasted = connected.elapsed().as_secs();
    assert!((399..=401).contains(&lasted), "{lasted}");
    served.await.unwrap();
    assert!(!hub.sessions.presence("press-7", None).connected);
    assert_eq!(hub.sessions.connected(), 0);
}
