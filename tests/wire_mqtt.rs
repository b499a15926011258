//! The MQTT server session, fed with bytes written by hand: nothing here shares code with the codec
//! under test.

#![cfg(test)]

use std::time::Duration;

use bytes::Bytes;
use rehome::wire::mqtt::{
    self, Connect, End, Event, Events, Filter, Handle, Limits, Publish, Qos, Refusal, Session,
    SessionLimits,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

const LIMITS: SessionLimits = SessionLimits {
    packet: 1024,
    unacknowledged: 2,
};

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = body.len();
    while length >= 128 {
        bytes.push(u8::try_from(length % 128).unwrap() | 0x80);
        length /= 128;
    }
    bytes.push(u8::try_from(length).unwrap());
    bytes.extend_from_slice(body);
    bytes
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = u16::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

fn connect(client_id: &str, keep_alive: u16) -> Vec<u8> {
    let mut body = text("MQTT");
    body.extend([4, 0b1100_0000]);
    body.extend(keep_alive.to_be_bytes());
    for field in [client_id, "a user", "a password"] {
        body.extend(text(field));
    }
    packet(0x10, &body)
}

fn publish(flags: u8, topic: &str, packet_id: Option<u16>, payload: &[u8]) -> Vec<u8> {
    let mut body = text(topic);
    body.extend(packet_id.map(u16::to_be_bytes).into_iter().flatten());
    body.extend_from_slice(payload);
    packet(0x30 | flags, &body)
}

fn subscribe(packet_id: u16, filters: &[(&str, u8)]) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    for (filter, qos) in filters {
        body.extend(text(filter));
        body.push(*qos);
    }
    packet(0x82, &body)
}

/// A session whose client is in; nothing waits to be sent.
fn opened() -> Session {
    let mut session = Session::new(LIMITS);
    let (used, event) = session.feed(&connect("device-001", 20)).unwrap();
    assert_eq!(used, connect("device-001", 20).len());
    assert!(matches!(event, Some(Event::Connect(_))));
    session.accept(false).unwrap();
    assert_eq!(&session.take_outgoing()[..], [0x20, 2, 0, 0]);
    session
}

fn only_event(session: &mut Session, bytes: &[u8]) -> Event {
    let (used, event) = session.feed(bytes).unwrap();
    assert_eq!(used, bytes.len());
    event.expect("an event")
}

#[test]
fn a_connect_is_reported_with_all_it_says() {
    let mut body = text("MQTT");
    body.extend([4, 0b1110_1100, 0, 60]);
    body.extend(
        ["device-001", "last/words", "gone", "user", "secret"]
            .map(text)
            .concat(),
    );
    let mut session = Session::new(LIMITS);
    let event = only_event(&mut session, &packet(0x10, &body));
    let Event::Connect(Connect {
        will: Some(will), ..
    }) = &event
    else {
        panic!("{event:?}")
    };
    assert_eq!(
        (will.topic.as_str(), &will.payload[..]),
        ("last/words", &b"gone"[..])
    );
    assert_eq!((will.qos, will.retain), (Qos::AtLeastOnce, true));
    let Event::Connect(connect) = event else {
        unreachable!()
    };
    assert_eq!(connect.client_id, "device-001");
    assert_eq!(connect.user_name.as_deref(), Some("user"));
    assert_eq!(connect.password.as_deref(), Some(&b"secret"[..]));
    assert_eq!((connect.clean_session, connect.keep_alive), (false, 60));
    assert!(
        !format!("{connect:?}").contains("secret"),
        "a password must never be shown"
    );
    assert_eq!(session.silence_limit(), Some(Duration::from_secs(90)));
}

#[test]
fn nothing_is_read_while_a_connect_waits_for_its_verdict() {
    let mut session = Session::new(LIMITS);
    let subscription = subscribe(1, &[("res/#", 1)]);
    let both = [connect("d", 0), subscription.clone()].concat();
    let (used, event) = session.feed(&both).unwrap();
    assert!(matches!(event, Some(Event::Connect(_))));
    assert_eq!(both.len() - used, subscription.len());
    assert_eq!(session.feed(&both[used..]).unwrap(), (0, None));
    session.accept(false).unwrap();
    let expected = Filter {
        topic: "res/#".to_owned(),
        qos: Qos::AtLeastOnce,
    };
    assert_eq!(
        only_event(&mut session, &both[used..]),
        Event::Subscribe {
            packet_id: 1,
            filters: vec![expected]
        }
    );
    assert_eq!(session.silence_limit(), None, "keep-alive 0 means no limit");
}

#[test]
fn each_refusal_says_its_number_and_ends_the_session() {
    for (refusal, code) in [
        (Refusal::IdentifierRejected, 2),
        (Refusal::ServerUnavailable, 3),
        (Refusal::BadUserNameOrPassword, 4),
        (Refusal::NotAuthorized, 5),
    ] {
        let mut session = Session::new(LIMITS);
        session.feed(&connect("d", 0)).unwrap();
        assert_eq!(session.refuse(refusal), End::Refused);
        assert_eq!(&session.take_outgoing()[..], [0x20, 2, 0, code]);
        assert_eq!(
            session.feed(&connect("d", 0)).unwrap(),
            (0, None),
            "nothing is read any more"
        );
    }
}

#[test]
fn bytes_may_come_one_at_a_time() {
    let stream = [
        connect("device-001", 20),
        publish(2, "telemetry", Some(7), b"42"),
        packet(0xc0, &[]),
        packet(0xe0, &[]),
    ]
    .concat();
    let (mut session, mut events) = (Session::new(LIMITS), Vec::new());
    let mut end = None;
    for byte in stream {
        match session.feed(&[byte]) {
            Ok((used, event)) => {
                assert_eq!(used, 1);
                if matches!(event, Some(Event::Connect(_))) {
                    session.accept(false).unwrap();
                }
                events.extend(event);
            }
            Err(ended) => end = Some(ended),
        }
    }
    assert_eq!(events.len(), 2);
    assert_eq!(
        events[1],
        Event::Publish(Publish {
            topic: "telemetry".to_owned(),
            payload: Bytes::from_static(b"42"),
            qos: Qos::AtLeastOnce,
            packet_id: Some(7),
            duplicate: false,
            retain: false,
        })
    );
    assert_eq!(end, Some(End::Disconnected));
    assert_eq!(
        &session.take_outgoing()[..],
        [0x20, 2, 0, 0, 0xd0, 0],
        "CONNACK, PINGRESP"
    );
}

#[test]
fn flags_of_a_publish_are_reported() {
    let mut session = opened();
    let event = only_event(&mut session, &publish(0b1011, "t", Some(1), b""));
    let Event::Publish(published) = event else {
        panic!("{event:?}")
    };
    assert!(published.duplicate && published.retain && published.payload.is_empty());
    let event = only_event(&mut session, &publish(0, "t", None, b"x"));
    assert!(matches!(
        event,
        Event::Publish(Publish {
            packet_id: None,
            qos: Qos::AtMostOnce,
            ..
        })
    ));
}

#[test]
fn answers_have_the_bytes_of_the_specification() {
    let mut session = opened();
    session
        .suback(9, &[Some(Qos::AtMostOnce), Some(Qos::AtLeastOnce), None])
        .unwrap();
    assert_eq!(&session.take_outgoing()[..], [0x90, 5, 0, 9, 0, 1, 0x80]);
    session.unsuback(10).unwrap();
    assert_eq!(&session.take_outgoing()[..], [0xb0, 2, 0, 10]);
    session.puback(11).unwrap();
    assert_eq!(&session.take_outgoing()[..], [0x40, 2, 0, 11]);
    session.publish("a/b", b"hi", Qos::AtMostOnce, 0).unwrap();
    assert_eq!(&session.take_outgoing()[..], b"\x30\x07\x00\x03a/bhi");
}

#[test]
fn an_acknowledgement_brings_the_token_back_once() {
    let mut session = opened();
    session.publish("t", b"", Qos::AtLeastOnce, 77).unwrap();
    session.publish("t", b"", Qos::AtLeastOnce, 78).unwrap();
    let sent = session.take_outgoing();
    assert_eq!(
        &sent[..],
        b"\x32\x05\x00\x01t\x00\x01\x32\x05\x00\x01t\x00\x02"
    );
    assert_eq!(
        session.publish("t", b"", Qos::AtLeastOnce, 79),
        Err(End::TooSlow)
    );
    assert_eq!(
        only_event(&mut session, &[0x40, 2, 0, 2]),
        Event::Acknowledged(78)
    );
    assert_eq!(
        only_event(&mut session, &[0x40, 2, 0, 1]),
        Event::Acknowledged(77)
    );
    assert_eq!(session.feed(&[0x40, 2, 0, 1]), Ok((4, None)));
}

// Java SDKs of 2018 acknowledge messages of QoS 0, with packet ids that they make up.
#[test]
fn an_acknowledgement_of_nothing_is_a_sign_of_life_and_no_more() {
    let mut session = opened();
    let before = session.packets();
    assert_eq!(session.feed(&[0x40, 2, 0, 4]), Ok((4, None)));
    assert_eq!(session.packets(), before + 1);
    // In pieces, with something real behind it.
    for byte in [0x40, 2, 0] {
        assert_eq!(session.feed(&[byte]), Ok((1, None)));
    }
    let mut rest = vec![5];
    rest.extend(publish(0, "t", None, b"x"));
    let (used, event) = session.feed(&rest).unwrap();
    assert_eq!(used, rest.len());
    assert!(matches!(event, Some(Event::Publish(_))), "{event:?}");
    // What is sent at QoS 1 still waits for its own.
    session.publish("t", b"", Qos::AtLeastOnce, 77).unwrap();
    assert_eq!(session.feed(&[0x40, 2, 0, 9]), Ok((4, None)));
    assert_eq!(
        only_event(&mut session, &[0x40, 2, 0, 1]),
        Event::Acknowledged(77)
    );
}

#[test]
fn violations_end_the_session_without_a_panic() {
    for (what, bytes) in [
        ("packet id 0", publish(2, "t", Some(0), b"x")),
        ("QoS 2", publish(4, "t", Some(1), b"x")),
        ("QoS 3", publish(6, "t", Some(1), b"x")),
        ("wildcard in a topic name", publish(0, "t/#", None, b"x")),
        ("empty topic", publish(0, "", None, b"x")),
        ("SUBSCRIBE with packet id 0", subscribe(0, &[("t", 0)])),
        ("SUBSCRIBE without filters", subscribe(1, &[])),
        ("second CONNECT", connect("device-001", 20)),
        ("a server's packet", packet(0x20, &[0, 0])),
        ("PUBREL", packet(0x62, &[0, 1])),
        ("PUBREC", packet(0x50, &[0, 1])),
        ("PUBACK that is too short", packet(0x40, &[1])),
        ("AUTH", packet(0xf0, &[])),
        ("packet type 0", packet(0x00, &[])),
        ("endless length", vec![0x30, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        (
            "PUBLISH shorter than its topic",
            packet(0x30, &[0, 9, b't']),
        ),
    ] {
        let ended = opened().feed(&bytes);
        assert!(matches!(ended, Err(End::Protocol(_))), "{what}: {ended:?}");
    }
}

#[test]
fn garbage_before_connect_gets_no_answer() {
    let old_version = packet(0x10, &[text("MQTT"), vec![5, 2, 0, 0], text("d")].concat());
    let wrong_name = packet(
        0x10,
        &[text("MQIsdp"), vec![3, 2, 0, 0], text("d")].concat(),
    );
    for (what, bytes, answer) in [
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec(), &[][..]),
        ("PUBLISH first", publish(0, "t", None, b"x"), &[]),
        ("PINGREQ first", packet(0xc0, &[]), &[]),
        ("DISCONNECT first", packet(0xe0, &[]), &[]),
        ("truncated CONNECT", packet(0x10, &text("MQTT")), &[]),
        ("MQTT 3.1", wrong_name, &[]),
        (
            "MQTT 5 learns which version is spoken",
            old_version,
            &[0x20, 2, 0, 1],
        ),
    ] {
        let mut session = Session::new(LIMITS);
        assert!(
            matches!(session.feed(&bytes), Err(End::Protocol(_))),
            "{what}"
        );
        assert_eq!(&session.take_outgoing()[..], answer, "{what}");
    }
}

#[test]
fn a_large_packet_is_refused_by_its_header_alone() {
    // 4 KiB announced, none of it sent.
    assert_eq!(
        Session::new(LIMITS).feed(&[0x10, 0x80, 0x20]),
        Err(End::PacketTooLarge)
    );
    assert_eq!(opened().feed(&[0x30, 0x80, 0x20]), Err(End::PacketTooLarge));
}

#[test]
fn the_server_cannot_speak_out_of_turn() {
    let mut session = Session::new(LIMITS);
    assert!(session.accept(false).is_err());
    assert!(
        Session::new(LIMITS)
            .publish("t", b"", Qos::AtMostOnce, 0)
            .is_err()
    );
    assert!(opened().accept(false).is_err());
}

proptest::proptest! {
    /// Whatever comes in, in whatever pieces: an event, an end or nothing, never a panic.
    #[test]
    fn no_bytes_can_make_it_panic(
        open in proptest::bool::ANY,
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
        cut in 1_usize..20,
    ) {
        let mut session = if open { opened() } else { Session::new(LIMITS) };
        'stream: for piece in bytes.chunks(cut) {
            let mut rest = piece;
            while !rest.is_empty() && !session.is_deciding() {
                match session.feed(rest) {
                    Ok((used, _)) => rest = &rest[used..],
                    Err(_) => break 'stream,
                }
            }
        }
    }

    /// The same with packets that are well-formed on the outside.
    #[test]
    fn no_packet_can_make_it_panic(
        packets in proptest::collection::vec(
            (proptest::num::u8::ANY, proptest::collection::vec(proptest::num::u8::ANY, 0..20)),
            0..10,
        ),
    ) {
        let mut session = opened();
        for (first, body) in packets {
            let bytes = packet(first, &body);
            match session.feed(&bytes) {
                Ok((used, _)) => assert_eq!(used, bytes.len()),
                Err(_) => break,
            }
        }
    }
}

// The driver, over an in-memory stream and a paused clock.

fn limits() -> Limits {
    Limits {
        session: LIMITS,
        queue: 4,
        ..Limits::default()
    }
}

async fn connected(keep_alive: u16) -> (DuplexStream, Handle, Events) {
    let (mut client, server) = tokio::io::duplex(64);
    let (handle, mut events) = mqtt::open(server, limits());
    client
        .write_all(&connect("device-001", keep_alive))
        .await
        .unwrap();
    assert!(matches!(events.next().await, Some(Event::Connect(_))));
    handle.accept(false).unwrap();
    assert_eq!(read(&mut client, 4).await, [0x20, 2, 0, 0]);
    (client, handle, events)
}

async fn read(client: &mut DuplexStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    client.read_exact(&mut bytes).await.unwrap();
    bytes
}

async fn rest(client: &mut DuplexStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).await.unwrap();
    bytes
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_closed_after_ten_seconds() {
    let began = tokio::time::Instant::now();
    let (mut client, server) = tokio::io::duplex(64);
    let (_handle, mut events) = mqtt::open(server, limits());
    client
        .write_all(&connect("device-001", 20)[..5])
        .await
        .unwrap();
    assert_eq!(
        events.next().await,
        Some(Event::Closed(End::ConnectTimeout))
    );
    assert_eq!(began.elapsed(), Duration::from_secs(10));
    assert_eq!(events.next().await, None);
    assert!(rest(&mut client).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_session_after_one_and_a_half_keep_alives() {
    let (mut client, _handle, mut events) = connected(20).await;
    let began = tokio::time::Instant::now();
    tokio::time::advance(Duration::from_secs(29)).await;
    client.write_all(&packet(0xc0, &[])).await.unwrap();
    assert_eq!(read(&mut client, 2).await, [0xd0, 0]);
    assert_eq!(
        events.next().await,
        Some(Event::Closed(End::KeepAliveTimeout))
    );
    assert_eq!(began.elapsed(), Duration::from_secs(59));
}

#[tokio::test(start_paused = true)]
async fn keep_alive_0_waits_for_days() {
    let (mut client, _handle, mut events) = connected(0).await;
    tokio::time::advance(Duration::from_secs(3 * 86_400)).await;
    client.write_all(&packet(0xe0, &[])).await.unwrap();
    assert_eq!(events.next().await, Some(Event::Closed(End::Disconnected)));
}

#[tokio::test(start_paused = true)]
async fn any_task_may_close_and_what_was_said_before_still_arrives() {
    let (mut client, handle, mut events) = connected(20).await;
    let elsewhere = handle.clone();
    tokio::spawn(async move {
        elsewhere.puback(3).unwrap();
        elsewhere
            .publish("t".to_owned(), Bytes::new(), Qos::AtMostOnce, 0)
            .unwrap();
        elsewhere.close();
    });
    assert_eq!(
        rest(&mut client).await,
        b"\x40\x02\x00\x03\x30\x03\x00\x01t"
    );
    assert_eq!(events.next().await, Some(Event::Closed(End::ClosedHere)));
    assert!(handle.flushed().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_closes() {
    let (mut client, handle, mut events) = connected(20).await;
    drop(handle);
    assert_eq!(events.next().await, Some(Event::Closed(End::ClosedHere)));
    assert!(rest(&mut client).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_closed_when_its_queue_is_full() {
    let (_client, handle, mut events) = connected(0).await;
    let mut said = 0;
    while handle
        .publish(
            "t".to_owned(),
            Bytes::from(vec![0; 100]),
            Qos::AtMostOnce,
            0,
        )
        .is_ok()
    {
        said += 1;
        assert!(said < 100, "the queue is bounded");
        tokio::task::yield_now().await;
    }
    assert!(said >= 4);
    assert_eq!(events.next().await, Some(Event::Closed(End::ClosedHere)));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stops_reading_is_closed_after_a_while() {
    let (_client, handle, mut events) = connected(0).await;
    let began = tokio::time::Instant::now();
    handle
        .publish(
            "t".to_owned(),
            Bytes::from(vec![0; 500]),
            Qos::AtMostOnce,
            0,
        )
        .unwrap();
    assert_eq!(events.next().await, Some(Event::Closed(End::TooSlow)));
    assert_eq!(began.elapsed(), Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn flushed_means_the_bytes_have_left() {
    let (mut client, handle, _events) = connected(20).await;
    handle.puback(3).unwrap();
    handle.flushed().await.unwrap();
    assert_eq!(read(&mut client, 4).await, [0x40, 2, 0, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_owner_stops_the_reading_and_loses_nothing() {
    let (mut client, handle, mut events) = connected(20).await;
    let writer = tokio::spawn(async move {
        for id in 1..=50 {
            client
                .write_all(&publish(2, "t", Some(id), &[0; 20]))
                .await
                .unwrap();
        }
        client
    });
    // Far longer than the keep-alive: while the owner is busy, silence is ours.
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(
        !writer.is_finished(),
        "the client must feel the back pressure"
    );
    for id in 1..=50 {
        let Some(Event::Publish(published)) = events.next().await else {
            panic!("lost {id}")
        };
        assert_eq!(published.packet_id, Some(id));
    }
    drop((writer.await.unwrap(), handle));
    assert!(matches!(events.next().await, Some(Event::Closed(_))));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_reaches_the_client() {
    let (mut client, server) = tokio::io::duplex(64);
    let (handle, mut events) = mqtt::open(server, limits());
    client.write_all(&connect("device-001", 20)).await.unwrap();
    assert!(matches!(events.next().await, Some(Event::Connect(_))));
    handle.refuse(Refusal::NotAuthorized).unwrap();
    assert_eq!(rest(&mut client).await, [0x20, 2, 0, 5]);
    assert_eq!(events.next().await, Some(Event::Closed(End::Refused)));
}
