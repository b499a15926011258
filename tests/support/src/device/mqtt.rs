//! A small MQTT 3.1.1 client over TLS. It has a codec of its own, so that a mistake in the one that
//! the product uses cannot hide.
//!
//! One request at a time: whoever holds the connection reads from it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::dial;

/// Longest time for a server to answer one packet.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest that IoT Hub takes: tests leave connections idle for a while.
const KEEP_ALIVE_SECONDS: u16 = 1767;

/// A server that lets nobody in, and the number by which it said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused(pub u8);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "the server refused the connection with CONNACK {}",
            self.0
        )
    }
}

impl std::error::Error for Refused {}

/// Who connects, and where.
pub(super) struct Login<'a> {
    /// A DNS name or an address; the certificate must be for it.
    pub(super) host: &'a str,
    pub(super) address: SocketAddr,
    pub(super) client_id: &'a str,
    pub(super) user: &'a str,
    /// None for a client that presents a certificate.
    pub(super) password: Option<&'a str>,
}

/// A message from the server.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
}

pub(super) struct Mqtt {
    stream: TlsStream<TcpStream>,
    /// Read, and not yet a packet.
    read: Vec<u8>,
    messages: VecDeque<Message>,
    last_id: u16,
}

/// A packet: its first byte and what follows the length.
type Packet = (u8, Vec<u8>);

impl Mqtt {
    /// Connects with a clean session; [`Refused`] can be taken out of the error.
    pub(super) async fn connect(login: &Login<'_>, trust: &Arc<ClientConfig>) -> Result<Self> {
        let connecting = async {
            let mut client = Self {
                stream: dial(login.host, login.address, trust).await?,
                read: Vec::new(),
                messages: VecDeque::new(),
                last_id: 0,
            };
            let mut body = text("MQTT");
            // Level 4; user name, clean session, and perhaps a password.
            let password = u8::from(login.password.is_some()) << 6;
            body.extend([4, 0b1000_0010 | password]);
            body.extend(KEEP_ALIVE_SECONDS.to_be_bytes());
            let fields = [Some(login.client_id), Some(login.user), login.password];
            for field in fields.into_iter().flatten() {
                body.extend(text(field));
            }
            client.send(0x10, &body).await?;
            let (first, body) = client.packet().await?;
            ensure!(
                first == 0x20 && body.len() == 2,
                "no CONNACK but {first:#x}"
            );
            if body[1] != 0 {
                return Err(Refused(body[1]).into());
            }
            Ok(client)
        };
        patient(connecting)
            .await
            .with_context(|| format!("MQTT connection to {} ({})", login.host, login.address))
    }

    pub(super) async fn subscribe(&mut self, filter: &str) -> Result<()> {
        let id = self.next_id();
        let mut body = id.to_be_bytes().to_vec();
        body.extend(text(filter));
        body.push(1);
        self.send(0x82, &body).await?;
        let answer = self.answer(0x90, id).await?;
        ensure!(
            answer.get(2) < Some(&0x80),
            "subscription to {filter} refused"
        );
        Ok(())
    }

    /// Publishes with `QoS` 1 and waits for the acknowledgement.
    pub(super) async fn publish(&mut self, topic: &str, payload: &[u8]) -> Result<()> {
        let id = self.next_id();
        let mut body = text(topic);
        body.extend(id.to_be_bytes());
        body.extend_from_slice(payload);
        self.send(0x32, &body).await?;
        self.answer(0x40, id).await.map(drop)
    }

    /// The next message whose topic begins like this; others are dropped.
    pub(super) async fn message(&mut self, topic: &str) -> Result<Message> {
        let waiting = async {
            loop {
                while let Some(message) = self.messages.pop_front() {
                    if message.topic.starts_with(topic) {
                        return Ok(message);
                    }
                }
                let packet = self.packet().await?;
                self.take(packet).await?;
            }
        };
        patient(waiting)
            .await
            .with_context(|| format!("no message on {topic}"))
    }

    /// Whether the server ends the connection within the time.
    pub(super) async fn is_ended(&mut self, within: Duration) -> bool {
        let reading = async {
            while let Ok(packet) = self.packet().await {
                if self.take(packet).await.is_err() {
                    break;
                }
            }
        };
        tokio::time::timeout(within, reading).await.is_ok()
    }

    /// Says goodbye.
    pub(super) async fn disconnect(mut self) -> Result<()> {
        self.send(0xe0, &[]).await?;
        Ok(self.stream.shutdown().await?)
    }

    async fn answer(&mut self, first: u8, id: u16) -> Result<Vec<u8>> {
        let waiting = async {
            loop {
                let packet = self.packet().await?;
                if packet.0 == first && packet.1.get(..2) == Some(&id.to_be_bytes()) {
                    return Ok(packet.1);
                }
                self.take(packet).await?;
            }
        };
        patient(waiting).await
    }

    /// Keeps a message for later and acknowledges it.
    async fn take(&mut self, (first, body): Packet) -> Result<()> {
        ensure!(first & 0xf0 == 0x30, "unexpected packet {first:#x}");
        let (topic, mut rest) = split_text(&body)?;
        if first & 0b110 != 0 {
            let (id, payload) = rest.split_at_checked(2).context("no packet id")?;
            let id = id.to_vec();
            rest = payload;
            self.send(0x40, &id).await?;
        }
        let payload = rest.to_vec();
        self.messages.push_back(Message { topic, payload });
        Ok(())
    }

    fn next_id(&mut self) -> u16 {
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        self.last_id
    }

    async fn send(&mut self, first: u8, body: &[u8]) -> Result<()> {
        let mut packet = vec![first];
        let mut length = body.len();
        loop {
            let more = if length > 127 { 0x80 } else { 0 };
            packet.push(u8::try_from(length % 128)? | more);
            length /= 128;
            if length == 0 {
                break;
            }
        }
        packet.extend_from_slice(body);
        self.stream.write_all(&packet).await?;
        Ok(self.stream.flush().await?)
    }

    /// The next packet. Nothing is lost if this is dropped halfway.
    async fn packet(&mut self) -> Result<Packet> {
        loop {
            if let Some((packet, length)) = first_packet(&self.read)? {
                self.read.drain(..length);
                return Ok(packet);
            }
            ensure!(
                self.stream.read_buf(&mut self.read).await? > 0,
                "the server ended the connection"
            );
        }
    }
}

/// The packet that these bytes begin with, and how many of them it has, if it is whole.
fn first_packet(bytes: &[u8]) -> Result<Option<(Packet, usize)>> {
    let mut length = 0;
    for (position, shift) in [(1, 0), (2, 7), (3, 14), (4, 21)] {
        let Some(byte) = bytes.get(position) else {
            return Ok(None);
        };
        length |= usize::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            let begin = position + 1;
            let body = bytes.get(begin..begin + length);
            return Ok(body.map(|body| ((bytes[0], body.to_vec()), begin + length)));
        }
    }
    bail!("a packet length of more than four bytes")
}

async fn patient<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(PATIENCE, work)
        .await
        .with_context(|| format!("no answer within {PATIENCE:?}"))?
}

fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(&text.as_bytes()[..usize::from(length)]);
    bytes
}

fn split_text(bytes: &[u8]) -> Result<(String, &[u8])> {
    let (length, rest) = bytes.split_at_checked(2).context("no topic")?;
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    let (text, rest) = rest.split_at_checked(length).context("half a topic")?;
    Ok((String::from_utf8(text.to_vec())?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_read_once_all_of_it_is_there() {
        let mut bytes = vec![0x30, 0xc8, 0x01];
        bytes.extend([7; 200]);
        bytes.extend([0xd0, 0]);
        for length in 0..203 {
            assert_eq!(first_packet(&bytes[..length]).unwrap(), None, "{length}");
        }
        let (packet, length) = first_packet(&bytes).unwrap().unwrap();
        assert_eq!((packet.0, packet.1.len(), length), (0x30, 200, 203));
        let rest = first_packet(&bytes[length..]).unwrap().unwrap();
        assert_eq!(rest, ((0xd0, vec![]), 2));
        assert!(first_packet(&[0x30, 0xff, 0xff, 0xff, 0xff, 1]).is_err());
    }
}
