//! The API over MQTT. Time is paused where it is measured: what a test sees is what the gateway
//! waited, not how busy the machine was.

use std::time::Duration;

use rehome::api::v1alpha1::RegistrationState;
use serde_json::json;
use tokio::time::Instant;

use crate::device::{ANSWERS, Manner, Mqtt, Said, dial};
use crate::stage::{Mood, SCOPE, Stage, token};

const ID: &str = "device-001";

#[tokio::test]
async fn a_whole_registration_over_tls() {
    let stage = Stage::new();
    let sockets = stage.listen().await;
    let stream = dial(&sockets, sockets.mqtt, true).await;
    let mut device = Mqtt::connect(stream, &Manner::of(ID)).await;
    assert_eq!(device.subscribe(ANSWERS, 1).await, Said::Suback(vec![1]));
    device.register(1, "a-1", 5).await;
    assert_eq!(device.next().await, Said::Puback(5));
    let (topic, body) = device.answer().await;
    assert_eq!(topic, "$dps/registrations/res/202/?$rid=a-1&retry-after=3");
    assert_eq!(body["status"], "assigning");
    stage.memory.finish(ID, RegistrationState::Assigned);
    device
        .poll(1, "a-2", body["operationId"].as_str().unwrap())
        .await;
    assert_eq!(device.next().await, Said::Puback(77));
    let (topic, body) = device.answer().await;
    assert_eq!(
        topic, "$dps/registrations/res/200/?$rid=a-2",
        "R7: nothing behind it when over"
    );
    assert_eq!(body["registrationState"]["assignedHub"], "west.test");
    device.send(&[0xe0, 0]).await;
    assert_eq!(
        device.next().await,
        Said::Closed,
        "DISCONNECT is answered by closing"
    );
}

#[tokio::test(start_paused = true)]
async fn r06_the_order_is_suback_puback_answer_and_the_answer_comes_once_at_qos_1() {
    let stage = Stage::new();
    stage.memory.set(Mood::Assigns);
    let mut device = Mqtt::connect(stage.mqtt(), &Manner::of(ID)).await;
    assert_eq!(
        device.subscribe(ANSWERS, 2).await,
        Said::Suback(vec![1]),
        "QoS 2 is granted as 1"
    );
    device.register(1, "1", 1).await;
    assert_eq!(device.next().await, Said::Puback(1));
    let Said::Publish {
        qos,
        packet_id,
        topic,
        body,
    } = device.next().await
    else {
        panic!()
    };
    assert_eq!(
        (qos, topic.as_str()),
        (1, "$dps/registrations/res/200/?$rid=1")
    );
    assert_eq!(body["status"], "assigned");
    device.acknowledge(packet_id).await;
    // Nothing else comes: the next thing heard is the answer to this.
    device.send(&[0xc0, 0]).await;
    assert_eq!(device.next().await, Said::Pingresp);
}

#[tokio::test(start_paused = true)]
async fn r25_there_is_a_pause_before_an_answer() {
    let stage = Stage::new();
    stage.memory.set(Mood::Assigns);
    for (id, qos) in [("java", 0), ("python", 1)] {
        let mut device = Mqtt::connect(stage.mqtt(), &Manner::of(id)).await;
        device.subscribe(ANSWERS, 1).await;
        let mut since = Instant::now();
        device.register(qos, "1", 1).await;
        if qos == 1 {
            assert_eq!(device.next().await, Said::Puback(1));
            since = Instant::now();
        }
        device.answer().await;
        assert!(
            since.elapsed() >= Duration::from_millis(20),
            "QoS {qos}: {:?}",
            since.elapsed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn r06_publishing_at_qos_0_is_not_acknowledged() {
    let stage = Stage::new();
    let mut device = Mqtt::connect(stage.mqtt(), &Manner::of(ID)).await;
    device.subscribe(ANSWERS, 1).await;
    device.register(0, "1", 0).await;
    assert!(matches!(device.next().await, Said::Publish { qos: 1, .. }));
}

#[tokio::test(start_paused = true)]
async fn r06_a_subscriber_at_qos_0_is_answered_at_qos_0() {
    let stage = Stage::new();
    let mut device = Mqtt::connect(stage.mqtt(), &Manner::of(ID)).await;
    assert_eq!(device.subscribe(ANSWERS, 0).await, Said::Suback(vec![0]));
    device.register(0, "1", 0).await;
    assert!(matches!(
        device.next().await,
        Said::Publish {
            qos: 0,
            packet_id: None,
            ..
        }
    ));
}

#[tokio::test(start_paused = true)]
async fn r04_every_body_of_the_sdks_registers() {
    let stage = Stage::new();
    for (number, body) in [
        "",
        " ",
        "{}",
        r#"{"payload": null, "registrationId": "device-2"}"#,
        r#"{"registrationId":"DEVICE-4","payload":"{\"a\":1}"}"#,
        r#"{"payload":{"a":1}}"#,
    ]
    .into_iter()
    .enumerate()
    {
        let number = if body.contains("device-2") {
            2
        } else if body.contains("DEVICE-4") {
            4
        } else {
            number + 10
        };
        let mut device =
            Mqtt::connect(stage.mqtt(), &Manner::of(&format!("device-{number}"))).await;
        device.subscribe(ANSWERS, 1).await;
        let topic = "$dps/registrations/PUT/iotdps-register/?$rid=1";
        device.publish(0, topic, 0, body.as_bytes()).await;
        let (topic, _) = device.answer().await;
        assert!(
            topic.starts_with("$dps/registrations/res/202/"),
            "{body}: {topic}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn r08_old_clients_see_no_retry_after_in_topics() {
    let stage = Stage::new();
    for (number, parameters) in [
        "api-version=2017-11-15",
        "api-version=2018-11-01&ClientVersion=azure-iot-provisioning-device%2F1.5.4",
        "api-version=2019-03-31&ClientVersion=azure-iot-provisioning-device%2F1.5.6",
    ]
    .into_iter()
    .enumerate()
    {
        let manner = Manner {
            parameters: parameters.to_owned(),
            ..Manner::of(&format!("old-{number}"))
        };
        let mut device = Mqtt::connect(stage.mqtt(), &manner).await;
        device.subscribe(ANSWERS, 1).await;
        device.register(0, "1", 0).await;
        let (topic, body) = device.answer().await;
        assert_eq!(topic, "$dps/registrations/res/202/?$rid=1", "{parameters}");
        assert_eq!(body["status"], "assigning");
    }
}

#[tokio::test(start_paused = true)]
async fn r09_a_wrong_key_is_let_in_and_told_with_the_answer() {
    let stage = Stage::new();
    let manner = Manner {
        password: Some(token("device-002")),
        ..Manner::of(ID)
    };
    let mut device = Mqtt::connect(stage.mqtt(), &manner).await;
    device.subscribe(ANSWERS, 1).await;
    device.register(1, "1", 1).await;
    assert_eq!(device.next().await, Said::Puback(1));
    let (topic, body) = device.answer().await;
    assert_eq!(topic, "$dps/registrations/res/401/?$rid=1");
    assert_eq!(body["errorCode"], 401_002);
    assert!(body.get("operationId").is_none() && body.get("status").is_none());
    assert_eq!(stage.memory.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_connect_that_contradicts_itself_is_refused() {
    let stage = Stage::new();
    let good = Manner::of(ID);
    for (what, manner, code) in [
        (
            "no api-version",
            Manner {
                parameters: "ClientVersion=x".into(),
                ..good.clone()
            },
            4,
        ),
        (
            "unknown version",
            Manner {
                parameters: "api-version=1".into(),
                ..good.clone()
            },
            4,
        ),
        (
            "another client id",
            Manner {
                client_id: "device-002".into(),
                ..good.clone()
            },
            5,
        ),
        (
            "no password",
            Manner {
                password: None,
                ..good.clone()
            },
            5,
        ),
    ] {
        let mut device = Mqtt(stage.mqtt());
        let said = device.try_connect(&manner).await;
        assert_eq!(
            said,
            Said::Connack {
                session_present: 0,
                code
            },
            "{what}"
        );
        assert_eq!(device.next().await, Said::Closed, "{what}");
    }
    let odd = Manner {
        client_id: "DEVICE-001".into(),
        ..good
    };
    Mqtt::connect(stage.mqtt(), &odd).await;
}

#[tokio::test(start_paused = true)]
async fn other_filters_are_refused_and_other_topics_end_the_connection() {
    let stage = Stage::new();
    for filter in [
        "#",
        "$dps/#",
        "$dps/registrations/res/202/#",
        "devices/x/messages/#",
    ] {
        let mut device = Mqtt::connect(stage.mqtt(), &Manner::of(ID)).await;
        assert_eq!(
            device.subscribe(filter, 1).await,
            Said::Suback(vec![0x80]),
            "{filter}"
        );
    }
    let register = "$dps/registrations/PUT/iotdps-register/?$rid=1";
    for (flags, topic) in [
        (0, "telemetry"),
        (0, "$dps/registrations/res/200/?$rid=1"),
        (0, "$dps/registrations/PUT/iotdps-register/"),
        (1, register),
        (4, register),
    ] {
        let mut device = Mqtt::connect(stage.mqtt(), &Manner::of(ID)).await;
        device.subscribe(ANSWERS, 1).await;
        device.publish(flags, topic, 3, b"{}").await;
        assert_eq!(device.next().await, Said::Closed, "{flags} {topic}");
    }
    assert_eq!(stage.memory.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_python_and_node_sdks_is_answered() {
    let stage = Stage::new();
    let mut device = Mqtt::connect(stage.mqtt(), &Manner::of(ID)).await;
    device.subscribe(ANSWERS, 1).await;
    let body = [vec![0, 4], crate::device::text(ANSWERS)].concat();
    device.send(&crate::device::packet(0xa2, &body)).await;
    assert_eq!(device.next().await, Said::Unsuback);
    // Nobody is there to hear the answer, and that harms nobody.
    device.register(1, "1", 1).await;
    assert_eq!(device.next().await, Said::Puback(1));
    device.send(&[0xe0, 0]).await;
    assert_eq!(device.next().await, Said::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_asks_nothing_is_closed() {
    let stage = Stage::new();
    let mut device = Mqtt::connect(stage.mqtt(), &Manner::of(ID)).await;
    device.subscribe(ANSWERS, 1).await;
    let began = Instant::now();
    // The client is alive all the time.
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(30)).await;
        device.send(&[0xc0, 0]).await;
        assert_eq!(device.next().await, Said::Pingresp);
    }
    assert_eq!(device.next().await, Said::Closed);
    assert_eq!(began.elapsed().as_secs(), 120);
}

#[tokio::test(start_paused = true)]
async fn garbage_ends_only_its_own_connection() {
    let stage = Stage::new();
    let mut good = Mqtt::connect(stage.mqtt(), &Manner::of(ID)).await;
    good.subscribe(ANSWERS, 1).await;
    let mut before = Mqtt(stage.mqtt());
    before.send(b"GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(before.next().await, Said::Closed);
    let mut after = Mqtt::connect(stage.mqtt(), &Manner::of("device-002")).await;
    after.send(&[0x36, 0x7f, 0xff]).await;
    after.send(&[0; 200]).await;
    assert_eq!(after.next().await, Said::Closed);
    let mut half_open = Mqtt(stage.mqtt());
    half_open.send(&[0x10]).await;
    let began = Instant::now();
    assert_eq!(half_open.next().await, Said::Closed);
    assert_eq!(began.elapsed(), Duration::from_secs(10));
    good.register(0, "1", 0).await;
    good.answer().await;
}

#[tokio::test(start_paused = true)]
async fn request_ids_come_back_byte_for_byte() {
    let stage = Stage::new();
    let mut device = Mqtt::connect(stage.mqtt(), &Manner::of(ID)).await;
    device.subscribe(ANSWERS, 1).await;
    for rid in ["1", "1", "%20a b", "8f0f2e0a-1c1f-4a0e-9b0a-4dcd0e5d8f31"] {
        device.register(0, rid, 0).await;
        let (topic, _) = device.answer().await;
        assert!(topic.contains(&format!("/?$rid={rid}&")), "{topic}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_operation_is_404() {
    let stage = Stage::new();
    let mut device = Mqtt::connect(stage.mqtt(), &Manner::of(ID)).await;
    device.subscribe(ANSWERS, 1).await;
    device
        .poll(
            0,
            "1",
            "5.0000000000000000.b1e02da8-c3a0-4ff2-a121-7ea7a6b7f550",
        )
        .await;
    let (topic, body) = device.answer().await;
    assert_eq!(topic, "$dps/registrations/res/404/?$rid=1");
    assert_eq!(
        (&body["errorCode"], SCOPE),
        (&json!(404_204), "0ne000TEST1")
    );
}
