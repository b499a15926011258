//! What is fuzzed: every parser that sees bytes of somebody who has not proved who it is, as plain
//! functions over bytes. Both runners use these: `tests/fuzz/main.rs` (bounded, any toolchain) and
//! `fuzz/` (libFuzzer, as long as one likes).
//!
//! A target panics when an invariant is broken. What holds for all of them, no panic, a bounded
//! time and bounded memory, is checked by [`Target::check`].

mod amqp;
mod certificates;
mod gateway;
mod http;
mod ids;
mod mqtt;
mod proxy;
mod sas;
mod stream;
mod tpm;
mod websocket;

use std::time::{Duration, Instant};

/// Longest time that one input may take, also where the machine is busy. Timers do not count: time
/// stands still for targets and is moved on when nothing else is to be done.
const LONGEST: Duration = Duration::from_mins(1);

/// One parser.
pub(crate) struct Target {
    /// Names the directory of its seeds.
    pub(crate) name: &'static str,
    /// Inputs of a bounded run.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "libFuzzer runs as long as it is told")
    )]
    pub(crate) executions: u64,
    run: fn(&[u8]),
    /// Memory that may be held at any one time, whatever the input.
    base: u64,
    /// And so much more for each byte of the input.
    per_byte: u64,
}

/// All of them.
pub(crate) const TARGETS: [Target; 13] = [
    Target {
        name: "ids",
        executions: 400_000,
        run: ids::run,
        base: 1024,
        per_byte: 16,
    },
    Target {
        name: "sas",
        executions: 200_000,
        run: sas::run,
        base: 1024,
        per_byte: 16,
    },
    Target {
        name: "proxy",
        executions: 200_000,
        run: proxy::run,
        // The longest header, and what a runtime takes.
        base: 16 * 1024,
        per_byte: 8,
    },
    Target {
        name: "certificates",
        executions: 30_000,
        run: certificates::run,
        // Parsed chains, and the signatures that are checked on them.
        base: 64 * 1024,
        per_byte: 64,
    },
    Target {
        name: "tpm",
        executions: 30_000,
        run: tpm::run,
        // The library's key and what it computes with.
        base: 64 * 1024,
        per_byte: 16,
    },
    Target {
        name: "body",
        executions: 200_000,
        run: http::body,
        base: 4 * 1024,
        // A tree of JSON values: `[0,…` and `{"":0,…` are the worst.
        per_byte: 512,
    },
    Target {
        name: "websocket_upgrade",
        executions: 100_000,
        run: websocket::upgrade,
        base: 16 * 1024,
        per_byte: 64,
    },
    Target {
        name: "websocket_frames",
        executions: 100_000,
        run: websocket::frames,
        base: 32 * 1024,
        per_byte: 16,
    },
    Target {
        name: "mqtt_before_connect",
        executions: 100_000,
        run: mqtt::before_connect,
        base: 128 * 1024,
        per_byte: 64,
    },
    Target {
        name: "mqtt_after_connect",
        executions: 50_000,
        run: mqtt::after_connect,
        base: 128 * 1024,
        per_byte: 64,
    },
    Target {
        name: "mqtt_front",
        executions: 6_000,
        run: mqtt::front,
        base: 512 * 1024,
        per_byte: 512,
    },
    Target {
        name: "amqp_front",
        executions: 10_000,
        run: amqp::front,
        base: 512 * 1024,
        per_byte: 512,
    },
    Target {
        name: "http",
        executions: 6_000,
        run: http::connection,
        base: 512 * 1024,
        per_byte: 512,
    },
];

/// How often an input of this thread came through to the store of registrations.
#[cfg(test)]
pub(crate) fn created() -> usize {
    gateway::CREATED.get()
}

impl Target {
    /// Feeds one input and checks what holds for all targets.
    ///
    /// # Panics
    /// Something does not hold.
    pub(crate) fn check(&self, input: &[u8]) {
        let begin = Instant::now();
        let memory = allocation_counter::measure(|| (self.run)(input));
        let took = begin.elapsed();
        assert!(took < LONGEST, "{}: took {took:?}", self.name);
        let most = self.base + self.per_byte * input.len() as u64;
        assert!(
            memory.bytes_max <= most,
            "{}: {} bytes of input made us hold {} bytes of memory at once, more than {most}",
            self.name,
            input.len(),
            memory.bytes_max
        );
    }
}
