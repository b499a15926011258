//! MQTT: the session without I/O, before and after CONNECT, and the gateway's front end with its
//! logins and topics.

use rehome::gateway::mqtt::{MqttFront, MqttLimits};
use rehome::gateway::service::Protocol;
use rehome::wire::mqtt::{Event, Qos, Session, SessionLimits};
use tokio::sync::watch;

use super::gateway::{peer, service};
use super::stream::{Client, run};

/// As the gateway's.
const LIMITS: SessionLimits = SessionLimits {
    packet: 98 * 1024,
    unacknowledged: 16,
};

/// A CONNECT without anything that can be left out.
const CONNECT: &[u8] = b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x3c\x00\x03dev";

/// The input is everything that a client sends. Here and below, the first byte says in what pieces.
pub(super) fn before_connect(input: &[u8]) {
    converse(input, input.get(1..).unwrap_or_default());
}

/// The input is what a client sends that was let in.
pub(super) fn after_connect(input: &[u8]) {
    converse(
        input,
        &[CONNECT, input.get(1..).unwrap_or_default()].concat(),
    );
}

/// The input is everything that a client sends on one connection to the gateway; when the first byte
/// is 128 or more, behind a CONNECT that is let in.
pub(super) fn front(input: &[u8]) {
    let before = match input.first() {
        Some(first) if first & 0x80 != 0 => LOGIN,
        _ => &[],
    };
    run(async {
        let front = MqttFront::new(service(), MqttLimits::default());
        let client = Client::new(before, input);
        let answers = client.answers();
        let (_stop, stopped) = watch::channel(false);
        front.serve(client, Protocol::Mqtt, &peer(), stopped).await;
        let answers = answers.lock().expect("nobody panics while holding it");
        // CONNACK first, and never with a session of before.
        let connack = answers.is_empty() || answers.starts_with(&[0x20, 2, 0]);
        assert!(connack, "{answers:x?}");
    });
}

/// A CONNECT of the device of the seeds, with a token that is not good for anything.
const LOGIN: &[u8] = b"\x10\x56\x00\x04MQTT\x04\xc2\x00\x3c\x00\x0adevice-001\
    \x00\x3b\
    0ne000TEST1/registrations/device-001/api-version=2019-03-31\
    \x00\x01t";

/// Plays the server: lets everybody in, grants and acknowledges everything and sends something back.
fn converse(input: &[u8], sent: &[u8]) {
    let mut session = Session::new(LIMITS);
    let piece = match input.first() {
        Some(first) if first % 4 == 1 => 1 + usize::from(*first) / 8,
        _ => usize::MAX,
    };
    let mut waiting = Vec::new();
    for piece in sent.chunks(piece.min(sent.len().max(1))) {
        waiting.extend_from_slice(piece);
        loop {
            let Ok((used, event)) = session.feed(&waiting) else {
                session.take_outgoing();
                return;
            };
            assert!(used <= waiting.len());
            waiting.drain(..used);
            let Some(event) = event else { break };
            if answer(&mut session, event).is_none() {
                session.take_outgoing();
                return;
            }
            session.take_outgoing();
        }
        assert!(waiting.is_empty(), "the session stopped reading");
    }
}

/// `None` when that ends the session.
fn answer(session: &mut Session, event: Event) -> Option<()> {
    let done = match event {
        Event::Connect(_) => {
            assert!(session.is_deciding());
            session.accept(false)
        }
        Event::Subscribe { packet_id, filters } => {
            assert_ne!(packet_id, 0);
            let granted: Vec<_> = filters.iter().map(|filter| Some(filter.qos)).collect();
            session.suback(packet_id, &granted)
        }
        Event::Unsubscribe { packet_id, .. } => session.unsuback(packet_id),
        Event::Publish(publish) => {
            assert!(!publish.topic.contains(['+', '#', '\0']));
            if let Some(packet_id) = publish.packet_id {
                assert_ne!(packet_id, 0);
                session.puback(packet_id).ok()?;
            }
            session.publish("answers", &publish.payload, Qos::AtLeastOnce, 1)
        }
        Event::Acknowledged(token) => {
            assert_eq!(token, 1);
            Ok(())
        }
        Event::Closed(_) => return None,
    };
    done.ok()
}
