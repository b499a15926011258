//! Addresses of an installation's own.
//!
//! Device SDKs take a bare host name and use fixed ports, so every server needs an address of its
//! own. Any address in 127.0.0.0/8 is this machine; it serves as the server's name as well, which
//! every resolver understands, and stands in the server's certificate. In a private network, whose
//! resolver knows names, servers have names.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Result, bail};

/// The port of MQTT over TLS. SDKs cannot be told another.
const MQTT: u16 = 8883;
/// The port of AMQP over TLS, likewise.
const AMQP: u16 = 5671;
/// The port of HTTPS, where this user may listen on it.
const HTTPS: u16 = 443;
/// Its stand-in for everybody else; SDKs that speak MQTT do not need it.
const UNPRIVILEGED_HTTPS: u16 = 8443;

/// 127.77.N.0/24, which no other installation on this machine uses.
pub(super) struct Addresses {
    network: u8,
    domain: Option<&'static str>,
    /// Whoever listens on the first address owns the network.
    _claim: TcpListener,
}

/// An address and the ports that a server of devices listens on.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    address: Ipv4Addr,
    https: u16,
    domain: Option<&'static str>,
}

impl Addresses {
    /// With a domain, servers have names in it.
    pub(super) fn claim(domain: Option<&'static str>) -> Result<Self> {
        for network in 1..=u8::MAX {
            if let Ok(claim) = TcpListener::bind((Ipv4Addr::new(127, 77, network, 1), MQTT)) {
                return Ok(Self {
                    network,
                    domain,
                    _claim: claim,
                });
            }
        }
        bail!("no address in 127.77.0.0/16 is free for port {MQTT}")
    }

    /// The place of server number `number`, from 2.
    pub(super) fn place(&self, number: u8) -> Place {
        let address = Ipv4Addr::new(127, 77, self.network, number);
        let may_listen = TcpListener::bind((address, HTTPS)).is_ok();
        Place {
            address,
            domain: self.domain,
            https: if may_listen {
                HTTPS
            } else {
                UNPRIVILEGED_HTTPS
            },
        }
    }
}

impl Place {
    /// The name that clients are given.
    pub fn host(&self) -> String {
        match self.domain {
            Some(domain) => format!("server-{}.{domain}", self.address.octets()[3]),
            None => self.address.to_string(),
        }
    }

    pub fn https(&self) -> SocketAddr {
        (self.address, self.https).into()
    }

    pub fn mqtt(&self) -> SocketAddr {
        (self.address, MQTT).into()
    }

    pub fn amqp(&self) -> SocketAddr {
        (self.address, AMQP).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_installations_share_no_address() {
        let [one, two] = [(); 2].map(|()| Addresses::claim(None).unwrap());
        assert_ne!(one.place(2).host(), two.place(2).host());
        assert_ne!(one.place(2).host(), one.place(3).host());
        assert!(TcpListener::bind(one.place(2).mqtt()).is_ok());
    }
}
