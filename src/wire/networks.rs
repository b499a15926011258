//! Which connections count as one client's.
//!
//! One IPv4 address, or one IPv6 /64, because a subscriber holds a whole one; both lengths can be set.
//! A factory behind one NAT looks like one client: its network can be exempted by name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// How addresses are put together for limits. Immutable.
#[derive(Debug, Clone)]
pub struct Networks {
    prefix_v4: u32,
    prefix_v6: u32,
    exempt: Vec<IpNet>,
}

impl Default for Networks {
    fn default() -> Self {
        Self::new(32, 64, Vec::new())
    }
}

impl Networks {
    /// Addresses that agree in so many leading bits are one client (at most 32 and 128; more means
    /// every address for itself). What lies in an `exempt` network is never limited per client.
    pub fn new(prefix_v4: u32, prefix_v6: u32, exempt: Vec<IpNet>) -> Self {
        Self {
            prefix_v4: prefix_v4.min(32),
            prefix_v6: prefix_v6.min(128),
            exempt,
        }
    }

    /// The client that an address belongs to, as the first address of its network; `None` when it
    /// is exempt.
    pub fn client(&self, address: IpAddr) -> Option<IpAddr> {
        let address = address.to_canonical();
        if self.exempt.iter().any(|network| network.contains(&address)) {
            return None;
        }
        Some(match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - self.prefix_v4).unwrap_or(0);
                Ipv4Addr::from(u32::from(v4) & mask).into()
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - self.prefix_v6).unwrap_or(0);
                Ipv6Addr::from(u128::from(v6) & mask).into()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(networks: &Networks, address: &str) -> Option<String> {
        let client = networks.client(address.parse().unwrap());
        client.map(|client| client.to_string())
    }

    #[test]
    fn a_client_is_an_address_or_a_subscribers_network() {
        let networks = Networks::default();
        for (address, expected) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ] {
            assert_eq!(client(&networks, address).unwrap(), expected, "{address}");
        }
        let wide = Networks::new(24, 48, Vec::new());
        assert_eq!(client(&wide, "192.0.2.7").unwrap(), "192.0.2.0");
        assert_eq!(client(&wide, "2001:db8:1:2::9").unwrap(), "2001:db8:1::");
        let whole = Networks::new(0, 0, Vec::new());
        assert_eq!(client(&whole, "192.0.2.7").unwrap(), "0.0.0.0");
        assert_eq!(client(&whole, "2001:db8::1").unwrap(), "::");
    }

    #[test]
    fn exempt_networks_are_nobodys() {
        let exempt = vec!["198.51.100.0/24".parse().unwrap()];
        let networks = Networks::new(32, 64, exempt);
        assert_eq!(client(&networks, "198.51.100.9"), None);
        assert_eq!(client(&networks, "::ffff:198.51.100.9"), None);
        assert!(client(&networks, "198.51.101.9").is_some());
    }
}
