//! The PROXY protocol, version 2 (the specification "The PROXY protocol" of `HAProxy`): how a load balancer
//! that passes bytes through says whom it speaks for.
//!
//! Only what is needed of it is read: the source address of TCP over IPv4 or IPv6. Extensions are
//! skipped. Whom to believe is the caller's matter.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What every header begins with: bytes that no other protocol begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The header without addresses: signature, version and command, family, length.
const FIXED: usize = 16;
/// Longest rest of a header: addresses and extensions. The specification allows 64 KiB; load
/// balancers send less than 300 bytes, and nothing is allocated for more than this.
const LONGEST: usize = 2048;

/// Bytes that are no header that we take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotProxy {
    /// The signature is missing.
    #[error("the connection does not begin with a PROXY protocol header of version 2")]
    Signature,
    /// Version, command or address family is unknown, or the transport is not TCP.
    #[error("the PROXY protocol header is not about TCP over IPv4 or IPv6")]
    Kind,
    /// The length does not fit the addresses, or exceeds the bound.
    #[error("the PROXY protocol header has an impossible length")]
    Length,
}

/// Reads the header and nothing behind it. The address of the client; `None` when the load balancer
/// speaks for itself, as with health checks.
///
/// # Errors
/// The stream fails or ends, or begins with something else.
pub async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Option<SocketAddr>> {
    let mut fixed = [0; FIXED];
    stream.read_exact(&mut fixed).await?;
    let length = rest_length(&fixed).map_err(invalid)?;
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await?;
    source(&fixed, &rest).map_err(invalid)
}

fn invalid(error: NotProxy) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn rest_length(fixed: &[u8; FIXED]) -> Result<usize, NotProxy> {
    let (signature, kind) = fixed.split_at(SIGNATURE.len());
    if signature != SIGNATURE {
        return Err(NotProxy::Signature);
    }
    let [_, _, high, low] = kind else {
        return Err(NotProxy::Length);
    };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    (length <= LONGEST)
        .then_some(length)
        .ok_or(NotProxy::Length)
}

fn source(fixed: &[u8; FIXED], rest: &[u8]) -> Result<Option<SocketAddr>, NotProxy> {
    let [.., command, family, _, _] = *fixed;
    match (command, family) {
        // LOCAL: whatever follows is to be skipped.
        (0x20, _) => Ok(None),
        (0x21, 0x11) => {
            let [a, b, c, d, _, _, _, _, high, low, ..] = *rest else {
                return Err(NotProxy::Length);
            };
            address(rest, 12, Ipv4Addr::new(a, b, c, d).into(), [high, low])
        }
        (0x21, 0x21) => {
            let (Some(octets), Some([high, low])) = (
                rest.first_chunk::<16>(),
                rest.get(32..34).and_then(<[u8]>::first_chunk),
            ) else {
                return Err(NotProxy::Length);
            };
            address(rest, 36, Ipv6Addr::from(*octets).into(), [*high, *low])
        }
        _ => Err(NotProxy::Kind),
    }
}

fn address(
    rest: &[u8],
    least: usize,
    source: IpAddr,
    port: [u8; 2],
) -> Result<Option<SocketAddr>, NotProxy> {
    if rest.len() < least {
        return Err(NotProxy::Length);
    }
    Ok(Some(
        (source.to_canonical(), u16::from_be_bytes(port)).into(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap();
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend(length.to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    const V4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x1f, 0x90, 1, 187];

    async fn result(bytes: &[u8]) -> Result<Option<String>, String> {
        let read = read(&mut &*bytes).await;
        read.map(|address| address.map(|address| address.to_string()))
            .map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn the_source_is_read_and_nothing_behind_the_header() {
        let mut v6 = [0; 36];
        v6[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
        v6[15] = 9;
        v6[32..34].copy_from_slice(&8080u16.to_be_bytes());
        let with_extension = [&V4[..], &[4, 0, 1, 0]].concat();
        for (bytes, expected) in [
            (header(0x21, 0x11, &V4), Some("192.0.2.7:8080")),
            (header(0x21, 0x11, &with_extension), Some("192.0.2.7:8080")),
            (header(0x21, 0x21, &v6), Some("[2001:db8::9]:8080")),
            (header(0x20, 0x00, &[]), None),
            (header(0x20, 0x11, &V4), None),
        ] {
            assert_eq!(result(&bytes).await.unwrap().as_deref(), expected);
            let more = [&bytes[..], b"\x16\x03\x01"].concat();
            let mut stream = &*more;
            read(&mut stream).await.unwrap();
            assert_eq!(stream, b"\x16\x03\x01");
        }
    }

    #[tokio::test]
    async fn anything_else_is_refused() {
        let mut long = header(0x21, 0x11, &[0; LONGEST]);
        long[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
        let mut text = b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 443\r\n".to_vec();
        for (bytes, expected) in [
            (std::mem::take(&mut text), NotProxy::Signature),
            (header(0x11, 0x11, &V4), NotProxy::Kind),
            (header(0x22, 0x11, &V4), NotProxy::Kind),
            (header(0x21, 0x12, &V4), NotProxy::Kind),
            (header(0x21, 0x31, &[0; 216]), NotProxy::Kind),
            (header(0x21, 0x00, &[]), NotProxy::Kind),
            (header(0x21, 0x11, &V4[..9]), NotProxy::Length),
            (header(0x21, 0x11, &V4[..11]), NotProxy::Length),
            (header(0x21, 0x21, &V4), NotProxy::Length),
            (long, NotProxy::Length),
        ] {
            assert_eq!(result(&bytes).await.unwrap_err(), expected.to_string());
        }
        let whole = header(0x21, 0x11, &V4);
        for length in 0..whole.len() {
            assert!(result(&whole[..length]).await.is_err(), "{length} bytes");
        }
    }
}
