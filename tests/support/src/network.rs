//! Addresses and ports of this machine.

use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Result, bail};
use tokio::net::TcpSocket;

/// Ports are taken from here: below the range from which Linux and others give ports to outgoing
/// connections, so that a port stays free while the process that listened on it is restarted.
const FIRST: u16 = 12_000;
const COUNT: u16 = 18_000;

/// The loopback address 127.0.0.`number`. Every hub has its own, because device SDKs always use
/// the standard ports.
pub const fn loopback(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, number)
}

/// A port that nothing listens on at `address`; never the same twice in one process.
pub fn free_port(address: Ipv4Addr) -> Result<u16> {
    let [port] = free_ports(address)?;
    Ok(port)
}

/// As [`free_port`], with the ports that follow it.
pub(crate) fn free_ports<const N: usize>(address: Ipv4Addr) -> Result<[u16; N]> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Processes that look for ports at the same time begin in different places.
    let start = u16::try_from(std::process::id().wrapping_mul(97) % u32::from(COUNT))?;
    let wanted = u16::try_from(N)?;
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(wanted, Ordering::Relaxed) % COUNT;
        let first = FIRST + (start + step) % COUNT;
        let mut ports = [first; N];
        for (port, more) in ports.iter_mut().zip(0..) {
            *port += more;
        }
        if ports.iter().all(|port| is_free(address, *port)) {
            return Ok(ports);
        }
    }
    bail!(
        "no free port on {address} between {FIRST} and {}",
        FIRST + COUNT
    )
}

fn is_free(address: Ipv4Addr, port: u16) -> bool {
    take(address, port).is_ok()
}

/// Takes a port without listening. A process that another thread starts meanwhile holds a copy of the
/// socket for a moment; only one that listens would keep others from listening there.
fn take(address: Ipv4Addr, port: u16) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((address, port).into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn looking_for_a_port_does_not_keep_others_from_it() {
        let port = free_port(loopback(4)).unwrap();
        let looking = take(loopback(4), port).unwrap();
        let listener = TcpListener::bind((loopback(4), port)).unwrap();
        drop(looking);
        assert!(!is_free(loopback(4), port));
        drop(listener);
    }

    #[test]
    fn free_ports_differ_and_can_be_listened_on() {
        let one = free_port(loopback(3)).unwrap();
        let [two, three] = free_ports(loopback(3)).unwrap();
        assert!(one != two && two + 1 == three, "{one} {two} {three}");
        let listener = TcpListener::bind((loopback(3), one)).unwrap();
        assert_eq!(
            listener.local_addr().unwrap().to_string(),
            format!("127.0.0.3:{one}")
        );
    }
}
