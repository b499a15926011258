//! What strangers do to a gateway that stands open to the Internet. Each attack is a number of
//! connections that do the same over and over; nothing that is answered matters to them.
//!
//! Knows devices' protocols as little as attackers need to. Judges nothing: what an attack may cost is
//! the business of `tests/attack.rs` and of `make attack`.

mod prey;
mod signs;
mod weapons;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

pub use prey::{Prey, Tls};
pub use signs::Signs;

/// What is in every id and name that an attacker makes up: must be in no log and no metric.
pub const MARK: &str = "poison";
/// Pause after an attempt that failed, so that an attacker who is turned away does not only spin.
const PAUSE: Duration = Duration::from_millis(5);

/// One kind of attack.
pub struct Attack {
    pub name: &'static str,
    /// What the gateway must call it, in its metrics and its log.
    pub incident: &'static str,
    /// How long it takes until the gateway can tell.
    pub shows_after: Duration,
    /// How many attempts are under way at a time, when it is done in earnest.
    pub earnest: usize,
    attempt: Attempt,
}

/// One attempt by the attacker of that number.
type Attempt = fn(Arc<Prey>, usize) -> BoxFuture<'static, anyhow::Result<()>>;

/// All of them.
pub static ATTACKS: [Attack; 20] = [
    slow(
        "silence instead of TLS",
        "slow_handshake",
        10,
        weapons::tls_silence,
    ),
    slow(
        "HTTP head byte by byte",
        "slow_request",
        75,
        weapons::http_head,
    ),
    slow(
        "HTTP body byte by byte",
        "slow_request",
        20,
        weapons::http_body,
    ),
    slow(
        "silence instead of MQTT CONNECT",
        "slow_request",
        10,
        weapons::mqtt_silence,
    ),
    slow(
        "WebSocket without CONNECT",
        "slow_request",
        10,
        weapons::websocket_silence,
    ),
    slow(
        "silence instead of AMQP OPEN",
        "slow_request",
        20,
        weapons::amqp_silence,
    ),
    slow(
        "AMQP OPEN byte by byte",
        "slow_request",
        20,
        weapons::amqp_open,
    ),
    flood(
        "handshakes thrown away",
        "too_many_of_client",
        weapons::handshakes,
    ),
    quick("no TLS at all", "failed_handshake", weapons::no_tls),
    quick("oversized bodies", "malformed", weapons::oversized),
    quick("deeply nested JSON", "malformed", weapons::nested),
    quick("compressed bodies", "malformed", weapons::compressed),
    quick("request smuggling", "malformed", weapons::smuggling),
    quick("malformed MQTT", "malformed", weapons::malformed_mqtt),
    quick(
        "malformed WebSocket",
        "malformed",
        weapons::malformed_websocket,
    ),
    quick("malformed AMQP", "malformed", weapons::malformed_amqp),
    quick("ids that poison", "malformed", weapons::poison),
    quick(
        "wrong signatures",
        "too_many_failures",
        weapons::wrong_signature,
    ),
    quick(
        "one device without pause",
        "too_many_requests",
        weapons::one_device,
    ),
    quick(
        "a leaked group key",
        "too_many_registrations",
        weapons::leaked_key,
    ),
];

const fn slow(name: &'static str, incident: &'static str, after: u64, attempt: Attempt) -> Attack {
    Attack {
        name,
        incident,
        shows_after: Duration::from_secs(after),
        earnest: 1000,
        attempt,
    }
}

const fn quick(name: &'static str, incident: &'static str, attempt: Attempt) -> Attack {
    Attack {
        name,
        incident,
        shows_after: Duration::ZERO,
        earnest: 64,
        attempt,
    }
}

/// More at a time than one client may have handshakes under way.
const fn flood(name: &'static str, incident: &'static str, attempt: Attempt) -> Attack {
    let mut attack = quick(name, incident, attempt);
    attack.earnest = 400;
    attack
}

impl Attack {
    /// Goes on for that long with so many attempts at a time, from an address of its own, so that
    /// limits on one client meet it alone.
    pub async fn strike(&self, prey: &Prey, attackers: usize, time: Duration) {
        let number = ATTACKS.iter().position(|one| one.name == self.name);
        let number = u8::try_from(number.unwrap_or_default()).unwrap_or_default();
        let mut prey = prey.clone();
        prey.from = Ipv4Addr::new(127, 99, 0, 1 + number);
        let (prey, attempt) = (Arc::new(prey), self.attempt);
        let end = Instant::now() + time;
        let mut running = JoinSet::new();
        for number in 0..attackers {
            let prey = prey.clone();
            running.spawn(async move {
                while Instant::now() < end {
                    // Being turned away is what attackers expect.
                    if !matches!(
                        timeout_at(end, attempt(prey.clone(), number)).await,
                        Ok(Ok(()))
                    ) {
                        sleep(PAUSE).await;
                    }
                }
            });
        }
        running.join_all().await;
    }
}

/// Opens so many connections with a complete handshake and holds them, each from one of the
/// addresses 127.98.0.x, at most 2000 from each.
pub async fn hold(prey: &Prey, count: usize) -> anyhow::Result<Vec<Tls>> {
    let mut held = Vec::new();
    while held.len() < count {
        let mut opening = JoinSet::new();
        for number in held.len()..count.min(held.len() + 100) {
            let mut prey = prey.clone();
            prey.from = Ipv4Addr::new(127, 98, 0, u8::try_from(1 + number / 2000)?);
            opening.spawn(async move { prey.tls(prey.https).await });
        }
        while let Some(opened) = opening.join_next().await {
            held.push(opened??);
        }
    }
    Ok(held)
}
