//! What becomes of an answer when the connection breaks before it is seen to arrive.
//!
//! The Python SDK connects without a clean session, comes back within a tenth of a second, does not
//! subscribe again and does not repeat a request that was acknowledged: it only waits.

use std::time::Duration;

use crate::device::{ANSWERS, Manner, Mqtt, Said};
use crate::stage::{Stage, eventually, token};

const ID: &str = "device-001";

/// A gateway that takes a second to write, and a device whose request is acknowledged and being
/// served.
async fn waiting(manner: &Manner) -> (Stage, Mqtt<tokio::io::DuplexStream>) {
    let stage = Stage::new();
    *stage.memory.takes.lock().unwrap() = Duration::from_secs(1);
    let mut device = Mqtt::connect(stage.mqtt(), manner).await;
    device.subscribe(ANSWERS, 1).await;
    device.register(1, "r-1", 1).await;
    assert_eq!(device.next().await, Said::Puback(1));
    eventually("the request is served", || stage.memory.count() == 1).await;
    (stage, device)
}

#[tokio::test(start_paused = true)]
async fn a_device_that_comes_back_before_the_answer_gets_it() {
    let (stage, device) = waiting(&Manner::keeping(ID)).await;
    drop(device);
    let mut back = Mqtt::connect(stage.mqtt(), &Manner::keeping(ID)).await;
    let (topic, body) = back.answer().await;
    assert_eq!(topic, "$dps/registrations/res/202/?$rid=r-1&retry-after=3");
    assert_eq!(body["status"], "assigning");
    assert_eq!(stage.memory.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_comes_back_after_the_answer_gets_it_until_it_acknowledges() {
    let (stage, device) = waiting(&Manner::keeping(ID)).await;
    drop(device);
    tokio::time::sleep(Duration::from_secs(20)).await;
    for _ in 0..2 {
        let mut back = Mqtt::connect(stage.mqtt(), &Manner::keeping(ID)).await;
        back.answer().await;
    }
    let mut back = Mqtt::connect(stage.mqtt(), &Manner::keeping(ID)).await;
    let Said::Publish { packet_id, .. } = back.next().await else {
        panic!()
    };
    back.acknowledge(packet_id).await;
    back.send(&[0xc0, 0]).await;
    assert_eq!(back.next().await, Said::Pingresp);
    drop(back);
    let mut again = Mqtt::connect(stage.mqtt(), &Manner::keeping(ID)).await;
    again.send(&[0xc0, 0]).await;
    assert_eq!(
        again.next().await,
        Said::Pingresp,
        "nothing is sent twice that was received"
    );
}

#[tokio::test(start_paused = true)]
async fn a_repetition_with_dup_does_not_start_a_second_operation() {
    let (stage, device) = waiting(&Manner::keeping(ID)).await;
    drop(device);
    let mut back = Mqtt::connect(stage.mqtt(), &Manner::keeping(ID)).await;
    let register = "$dps/registrations/PUT/iotdps-register/?$rid=r-1";
    back.publish(0b1010, register, 1, b"").await;
    assert_eq!(back.next().await, Said::Puback(1));
    let (_, first) = back.answer().await;
    // And once more, now that there is an answer.
    back.publish(0b1010, register, 2, b"").await;
    assert_eq!(back.next().await, Said::Puback(2));
    let (topic, second) = back.answer().await;
    assert!(topic.contains("$rid=r-1&"));
    assert_eq!(first, second);
    assert_eq!(stage.memory.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_new_request_with_a_used_id_is_a_new_request() {
    let (stage, mut device) = waiting(&Manner::keeping(ID)).await;
    let (_, first) = device.answer().await;
    device
        .poll(1, "r-1", first["operationId"].as_str().unwrap())
        .await;
    assert_eq!(device.next().await, Said::Puback(77));
    let (topic, _) = device.answer().await;
    assert!(
        topic.contains("$rid=r-1&"),
        "embedded clients use one id for everything"
    );
    assert_eq!(stage.memory.count(), 1);
}

// The Java SDK keeps its session, goes as soon as it has read the answer, and takes whatever it is
// sent first on the next connection for the answer to what it asks there.
#[tokio::test(start_paused = true)]
async fn who_says_goodbye_waits_for_nothing() {
    let (stage, mut device) = waiting(&Manner::keeping(ID)).await;
    device.answer().await;
    device.send(&[0xe0, 0]).await;
    // Nothing more is read once the gateway has taken notice.
    assert_eq!(device.next().await, Said::Closed);
    let mut back = Mqtt::connect(stage.mqtt(), &Manner::keeping(ID)).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    back.send(&[0xc0, 0]).await;
    assert_eq!(back.next().await, Said::Pingresp);
}

#[tokio::test(start_paused = true)]
async fn who_asks_something_new_is_not_told_what_is_old() {
    for is_answered in [true, false] {
        let (stage, mut device) = waiting(&Manner::keeping(ID)).await;
        if is_answered {
            device.answer().await;
        }
        drop(device);
        let mut back = Mqtt::connect(stage.mqtt(), &Manner::keeping(ID)).await;
        back.subscribe(ANSWERS, 1).await;
        // Another request, under the same id.
        back.poll(1, "r-1", "5.0.0").await;
        assert_eq!(back.next().await, Said::Puback(77));
        let (topic, _) = back.answer().await;
        assert_eq!(topic, "$dps/registrations/res/404/?$rid=r-1");
        tokio::time::sleep(Duration::from_secs(20)).await;
        back.send(&[0xc0, 0]).await;
        assert_eq!(back.next().await, Said::Pingresp, "nothing follows");
    }
}

#[tokio::test(start_paused = true)]
async fn with_a_clean_session_nothing_outlives_the_connection() {
    let (stage, device) = waiting(&Manner::of(ID)).await;
    drop(device);
    tokio::time::sleep(Duration::from_secs(5)).await;
    for manner in [Manner::of(ID), Manner::keeping(ID)] {
        let mut back = Mqtt::connect(stage.mqtt(), &manner).await;
        back.send(&[0xc0, 0]).await;
        assert_eq!(back.next().await, Said::Pingresp);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_else_gets_the_answer() {
    let (stage, device) = waiting(&Manner::keeping(ID)).await;
    drop(device);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let thief = Manner {
        password: Some(token("device-002")),
        ..Manner::keeping(ID)
    };
    let mut thief = Mqtt::connect(stage.mqtt(), &thief).await;
    thief.send(&[0xc0, 0]).await;
    assert_eq!(thief.next().await, Said::Pingresp);
    let mut device = Mqtt::connect(stage.mqtt(), &Manner::keeping(ID)).await;
    device.answer().await;
}
