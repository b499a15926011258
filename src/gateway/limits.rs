//! How much one device, or one client, may ask of us. Every table is bounded: an attacker can fill
//! it, but not grow it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use moka::sync::Cache;

use crate::clock::Clock;
use crate::domain::ids::ApiVersion;
use crate::wire::networks::Networks;
use crate::wire::rate::Bucket;
pub use crate::wire::rate::Rate;

/// Bounds on requests. The defaults let every SDK register and poll as it does.
#[derive(Debug, Clone, Copy)]
pub struct RequestLimits {
    /// Register and lookup requests of one device.
    pub register: Rate,
    /// Polls of one device, as the Azure page "DPS service limits" has it.
    pub poll: Rate,
    /// Polls of one device whose SDK cannot be told when to ask again and polls by its own clock.
    pub poll_unpaced: Rate,
    /// Failed authentications of one client, which may be a NAT with a fleet behind it.
    pub failures: Rate,
    /// Most devices, and most clients, that are counted at once.
    pub tracked: u64,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            register: Rate {
                burst: 10,
                per_ten_seconds: 5,
            },
            poll: Rate {
                burst: 5,
                per_ten_seconds: 5,
            },
            poll_unpaced: Rate {
                burst: 30,
                per_ten_seconds: 20,
            },
            failures: Rate {
                burst: 1000,
                per_ten_seconds: 1000,
            },
            tracked: 100_000,
        }
    }
}

/// What a device asks, as far as limits go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Register,
    Poll,
}

/// Counts requests.
pub struct Throttle {
    limits: RequestLimits,
    clock: Arc<dyn Clock>,
    devices: Cache<(String, Kind), Arc<Bucket>>,
    networks: Arc<Networks>,
    clients: Cache<IpAddr, Arc<Bucket>>,
}

impl Throttle {
    /// Empty. Clients are told apart by their `networks`; some are not limited.
    pub fn new(limits: RequestLimits, networks: Arc<Networks>, clock: Arc<dyn Clock>) -> Self {
        // A bucket that was not touched for so long is full again.
        let idle = Duration::from_mins(2);
        Self {
            clock,
            devices: Cache::builder()
                .max_capacity(limits.tracked)
                .time_to_idle(idle)
                .build(),
            networks,
            clients: Cache::builder()
                .max_capacity(limits.tracked)
                .time_to_idle(idle)
                .build(),
            limits,
        }
    }

    /// Counts one request of an authenticated device and says whether it may be served.
    pub fn admits(&self, device: &str, kind: Kind, api_version: &ApiVersion) -> bool {
        let rate = match kind {
            Kind::Register => self.limits.register,
            Kind::Poll if api_version.has_retry_after_in_topics() => self.limits.poll,
            Kind::Poll => self.limits.poll_unpaced,
        };
        let now = self.clock.monotonic();
        let bucket = self.devices.get_with((device.to_owned(), kind), || {
            Arc::new(Bucket::full(rate, now))
        });
        bucket.take(rate, now)
    }

    /// Whether a client at that address may try to authenticate.
    pub fn may_authenticate(&self, address: IpAddr) -> bool {
        let client = self.networks.client(address);
        let bucket = client.and_then(|client| self.clients.get(&client));
        bucket.is_none_or(|bucket| bucket.has_any(self.limits.failures, self.clock.monotonic()))
    }

    /// Counts one failed authentication.
    pub fn count_failure(&self, address: IpAddr) {
        let Some(client) = self.networks.client(address) else {
            return;
        };
        let (rate, now) = (self.limits.failures, self.clock.monotonic());
        let bucket = self
            .clients
            .get_with(client, || Arc::new(Bucket::full(rate, now)));
        bucket.take(rate, now);
    }
}

/// When each device was last told its hub by this replica: how we notice one that its hub refuses.
pub struct Answers(Cache<String, Timestamp>);

impl Answers {
    /// Remembers at most `tracked` devices, each for `window`.
    pub fn new(tracked: u64, window: Duration) -> Self {
        Self(
            Cache::builder()
                .max_capacity(tracked)
                .time_to_live(window)
                .build(),
        )
    }

    /// When the device was last told its hub, if that is not long ago.
    pub fn last(&self, device: &str) -> Option<Timestamp> {
        self.0.get(device)
    }

    /// The device is told its hub.
    pub fn told(&self, device: &str, now: Timestamp) {
        self.0.insert(device.to_owned(), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Stopped;

    fn throttle() -> (Throttle, Arc<Stopped>) {
        let clock = Arc::new(Stopped::default());
        let limits = RequestLimits {
            failures: Rate {
                burst: 2,
                per_ten_seconds: 10,
            },
            ..RequestLimits::default()
        };
        (Throttle::new(limits, Arc::default(), clock.clone()), clock)
    }

    fn admitted(throttle: &Throttle, device: &str, kind: Kind, api: &str) -> u32 {
        let api = api.parse().unwrap();
        (0..100)
            .map(|_| u32::from(throttle.admits(device, kind, &api)))
            .sum()
    }

    #[test]
    fn a_device_may_ask_so_often_and_then_waits() {
        let (throttle, clock) = throttle();
        assert_eq!(admitted(&throttle, "one", Kind::Poll, "2019-03-31"), 5);
        assert_eq!(
            admitted(&throttle, "two", Kind::Poll, "2019-03-31"),
            5,
            "each for itself"
        );
        assert_eq!(
            admitted(&throttle, "one", Kind::Register, "2019-03-31"),
            10,
            "each kind"
        );
        clock.forward(Duration::from_secs(4));
        assert_eq!(admitted(&throttle, "one", Kind::Poll, "2019-03-31"), 2);
        clock.forward(Duration::from_hours(1));
        assert_eq!(
            admitted(&throttle, "one", Kind::Poll, "2019-03-31"),
            5,
            "not more"
        );
    }

    #[test]
    fn sdks_that_cannot_be_told_when_to_poll_may_poll_more_often() {
        let (throttle, _) = throttle();
        assert_eq!(admitted(&throttle, "old", Kind::Poll, "2017-11-15"), 30);
    }

    #[test]
    fn a_client_may_fail_so_often() {
        let (throttle, clock) = throttle();
        let address = IpAddr::from([192, 0, 2, 1]);
        for _ in 0..2 {
            assert!(throttle.may_authenticate(address));
            throttle.count_failure(address);
        }
        assert!(!throttle.may_authenticate(address));
        assert!(throttle.may_authenticate(IpAddr::from([192, 0, 2, 2])));
        clock.forward(Duration::from_secs(1));
        assert!(throttle.may_authenticate(address));
    }

    #[test]
    fn an_ipv6_subscriber_is_one_client_and_an_exempt_network_none() {
        let (mut throttle, _) = throttle();
        let exempt = vec!["198.51.100.0/24".parse().unwrap()];
        throttle.networks = Arc::new(Networks::new(32, 64, exempt));
        for number in 1..=2u16 {
            throttle.count_failure(IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, number]));
        }
        let neighbour = IpAddr::from([0x2001, 0xdb8, 0, 1, 9, 9, 9, 9]);
        assert!(!throttle.may_authenticate(neighbour));
        let factory = IpAddr::from([198, 51, 100, 7]);
        for _ in 0..10 {
            throttle.count_failure(factory);
        }
        assert!(throttle.may_authenticate(factory));
    }
}
