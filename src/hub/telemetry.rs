//! The newest messages from devices, so that people see telemetry arrive. A look through the
//! window and no store: it lives in memory, is bounded, and starts anew with the hub.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use percent_encoding::percent_decode_str;

use super::client::Client;

/// Messages kept of the whole hub, and how many bytes they may take together.
const HUB_MESSAGES: usize = 10_000;
const HUB_BYTES: usize = 16 << 20;
/// Messages kept of one device and its modules, so that none pushes out all others.
const DEVICE_MESSAGES: usize = 100;
/// How much of a message is kept: of its body, and of its properties.
const BODY_BYTES: usize = 4096;
const PROPERTIES_BYTES: usize = 4096;
/// What a message costs besides its text.
const OVERHEAD: usize = 256;

/// A message from a device or module.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Telemetry {
    pub(super) enqueued: Timestamp,
    pub(super) client: Client,
    /// By name, as the device sent them; system properties begin with `$.`.
    pub(super) properties: Vec<(String, String)>,
    /// The beginning of the body.
    pub(super) body: Bytes,
    /// How long the whole body was.
    pub(super) size: usize,
}

/// The newest messages of one hub.
#[derive(Default)]
pub(super) struct Tail(Mutex<State>);

#[derive(Default)]
struct State {
    last: u64,
    bytes: usize,
    messages: BTreeMap<u64, Arc<Telemetry>>,
    devices: HashMap<String, VecDeque<u64>>,
}

/// Reads `a=b&c=d`, percent-encoded, with or without a question mark before it.
pub(super) fn property_bag(text: &str) -> Vec<(String, String)> {
    let decode = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let bag = text.trim_start_matches('?').trim_end_matches('/');
    bag.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

impl Telemetry {
    pub(super) fn new(
        client: Client,
        mut properties: Vec<(String, String)>,
        body: &Bytes,
        now: Timestamp,
    ) -> Self {
        let mut room = PROPERTIES_BYTES;
        properties.retain(|(name, value)| {
            let fits = name.len() + value.len() <= room;
            room -= if fits { name.len() + value.len() } else { room };
            fits
        });
        Self {
            enqueued: now,
            client,
            properties,
            // Copied, so that a large message does not stay in memory for its beginning.
            body: Bytes::copy_from_slice(beginning(body)),
            size: body.len(),
        }
    }

    fn cost(&self) -> usize {
        let properties = self.properties.iter();
        let properties: usize = properties
            .map(|(name, value)| name.len() + value.len())
            .sum();
        OVERHEAD + self.body.len() + properties
    }
}

/// As much of a body as is kept, without half a character at its end.
fn beginning(body: &[u8]) -> &[u8] {
    let Some(mut end) = (body.len() > BODY_BYTES).then_some(BODY_BYTES) else {
        return body;
    };
    while end > BODY_BYTES - 4 && body[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    &body[..end]
}

impl Tail {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change below is whole before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, message: Telemetry) {
        let mut state = self.state();
        state.last += 1;
        let number = state.last;
        let device = message.client.device.as_str().to_owned();
        let of_device = state.devices.entry(device).or_default();
        of_device.push_back(number);
        let surplus = (of_device.len() > DEVICE_MESSAGES).then(|| of_device[0]);
        state.bytes += message.cost();
        state.messages.insert(number, Arc::new(message));
        if let Some(number) = surplus {
            state.remove(number);
        }
        while state.messages.len() > HUB_MESSAGES || state.bytes > HUB_BYTES {
            let Some(oldest) = state.messages.keys().next().copied() else {
                break;
            };
            state.remove(oldest);
        }
    }

    /// Up to `limit` messages behind number `after`; without it the newest ones. Oldest first.
    pub(super) fn read(
        &self,
        device: Option<&str>,
        after: Option<u64>,
        limit: usize,
    ) -> Vec<(u64, Arc<Telemetry>)> {
        let state = self.state();
        let numbers: Vec<u64> = match device {
            Some(device) => state
                .devices
                .get(device)
                .into_iter()
                .flatten()
                .copied()
                .collect(),
            None => state.messages.keys().copied().collect(),
        };
        let first = match after {
            Some(after) => numbers.partition_point(|number| *number <= after),
            None => numbers.len().saturating_sub(limit),
        };
        let wanted = numbers[first..].iter().take(limit);
        wanted
            .filter_map(|number| Some((*number, Arc::clone(state.messages.get(number)?))))
            .collect()
    }
}

impl State {
    fn remove(&mut self, number: u64) {
        let Some(message) = self.messages.remove(&number) else {
            return;
        };
        self.bytes -= message.cost();
        let device = message.client.device.as_str();
        if let Some(numbers) = self.devices.get_mut(device) {
            // The oldest of all is the oldest of its device.
            numbers.retain(|known| *known != number);
            if numbers.is_empty() {
                self.devices.remove(device);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(device: &str, body: &str) -> Telemetry {
        let client = Client::from(&device.parse().unwrap());
        let body = Bytes::copy_from_slice(body.as_bytes());
        Telemetry::new(client, vec![], &body, Timestamp::UNIX_EPOCH)
    }

    fn bodies(tail: &Tail, device: Option<&str>, after: Option<u64>, limit: usize) -> Vec<String> {
        let read = tail.read(device, after, limit).into_iter();
        read.map(|(_, message)| String::from_utf8(message.body.to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn bags_are_read_as_sdks_write_them() {
        let pairs = |bag: &[(&str, &str)]| -> Vec<(String, String)> {
            let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            bag.iter().map(own).collect()
        };
        for (text, expected) in [
            ("", pairs(&[])),
            ("?a=b", pairs(&[("a", "b")])),
            ("a=b&%24.mid=1%202/", pairs(&[("a", "b"), ("$.mid", "1 2")])),
            (
                "bare&empty=&x=a=b",
                pairs(&[("bare", ""), ("empty", ""), ("x", "a=b")]),
            ),
        ] {
            assert_eq!(property_bag(text), expected, "{text}");
        }
    }

    #[test]
    fn the_newest_are_read_or_those_behind_a_number() {
        let tail = Tail::default();
        for (device, body) in [("a", "1"), ("b", "2"), ("a", "3"), ("a", "4")] {
            tail.push(message(device, body));
        }
        assert_eq!(bodies(&tail, None, None, 2), ["3", "4"]);
        assert_eq!(bodies(&tail, None, Some(1), 2), ["2", "3"]);
        assert_eq!(bodies(&tail, Some("a"), None, 9), ["1", "3", "4"]);
        assert_eq!(bodies(&tail, Some("a"), Some(1), 9), ["3", "4"]);
        assert!(bodies(&tail, Some("c"), None, 9).is_empty());
    }

    #[test]
    fn neither_a_device_nor_the_hub_keeps_more_than_its_bound() {
        let tail = Tail::default();
        tail.push(message("quiet", "once"));
        for _ in 0..1000 {
            tail.push(message("loud", "again"));
        }
        assert_eq!(
            bodies(&tail, Some("loud"), None, 1000).len(),
            DEVICE_MESSAGES
        );
        assert_eq!(bodies(&tail, Some("quiet"), None, 9), ["once"]);
        for device in 0..HUB_MESSAGES * 2 {
            tail.push(message(&format!("d{device}"), &"x".repeat(BODY_BYTES * 2)));
        }
        let state = tail.state();
        assert!(state.bytes <= HUB_BYTES && state.messages.len() <= HUB_MESSAGES);
        assert_eq!(
            state.devices.values().map(VecDeque::len).sum::<usize>(),
            state.messages.len()
        );
        let cost: usize = state.messages.values().map(|message| message.cost()).sum();
        assert_eq!(cost, state.bytes);
    }
}
