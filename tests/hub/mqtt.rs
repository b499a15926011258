//! An MQTT 3.1.1 client written by hand: it shares nothing with the codec under test.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::process::{HOST, HubProcess};

/// Longest wait for anything that must come.
const WITHIN: Duration = Duration::from_secs(20);

pub(crate) struct Device {
    stream: TlsStream<TcpStream>,
    next_id: u16,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Packet {
    Connack {
        session_present: bool,
        code: u8,
    },
    Publish {
        topic: String,
        payload: String,
        qos: u8,
    },
    Puback(u16),
    Suback(Vec<u8>),
    Unsuback,
}

fn field(bytes: &[u8]) -> Vec<u8> {
    let mut field = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    field.extend_from_slice(bytes);
    field
}

impl Device {
    pub(crate) async fn dial(hub: &HubProcess) -> Self {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(hub.authority.as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tcp = TcpStream::connect(hub.mqtt).await.unwrap();
        let name = ServerName::try_from(HOST).unwrap();
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await
            .unwrap();
        Self { stream, next_id: 1 }
    }

    /// Connects and returns the answer; `None` where the hub closed without one.
    pub(crate) async fn connect(&mut self, id: &str, token: &str, clean: bool) -> Option<Packet> {
        let user_name = format!("{HOST}/{id}/?api-version=2019-10-01&DeviceClientType=test");
        let mut body = field(b"MQTT");
        body.extend([4, 0b1100_0000 | u8::from(clean) << 1, 0, 60]);
        for text in [id, &user_name, token] {
            body.extend(field(text.as_bytes()));
        }
        self.send(0x10, &body).await;
        self.receive().await
    }

    async fn send(&mut self, first: u8, body: &[u8]) {
        let mut packet = vec![first];
        let mut length = body.len();
        while length >= 128 {
            packet.push(u8::try_from(length % 128).unwrap() | 0x80);
            length /= 128;
        }
        packet.push(u8::try_from(length).unwrap());
        packet.extend_from_slice(body);
        // The hub may have closed already; the next receive tells.
        let _ = self.stream.write_all(&packet).await;
        let _ = self.stream.flush().await;
    }

    fn id(&mut self) -> [u8; 2] {
        self.next_id += 1;
        self.next_id.to_be_bytes()
    }

    pub(crate) async fn subscribe(&mut self, filters: &[(&str, u8)]) -> Option<Packet> {
        let mut body = self.id().to_vec();
        for (filter, qos) in filters {
            body.extend(field(filter.as_bytes()));
            body.push(*qos);
        }
        self.send(0x82, &body).await;
        self.receive().await
    }

    pub(crate) async fn unsubscribe(&mut self, filter: &str) -> Option<Packet> {
        let mut body = self.id().to_vec();
        body.extend(field(filter.as_bytes()));
        self.send(0xa2, &body).await;
        self.receive().await
    }

    pub(crate) async fn publish(&mut self, qos: u8, topic: &str, payload: &[u8]) {
        let mut body = field(topic.as_bytes());
        if qos > 0 {
            body.extend(self.id());
        }
        body.extend_from_slice(payload);
        self.send(0x30 | qos << 1, &body).await;
    }

    /// Publishes at QoS 1 a request whose answer comes on a topic: the answer's topic and payload.
    pub(crate) async fn ask(&mut self, topic: &str, payload: &str) -> (String, String) {
        self.publish(1, topic, payload.as_bytes()).await;
        let mut acknowledged = false;
        loop {
            match self.receive().await.expect("an answer") {
                Packet::Puback(_) => acknowledged = true,
                Packet::Publish { topic, payload, .. } => {
                    assert!(acknowledged, "answered before it was acknowledged");
                    return (topic, payload);
                }
                other @ (Packet::Connack { .. } | Packet::Suback(_) | Packet::Unsuback) => {
                    panic!("unexpected {other:?}")
                }
            }
        }
    }

    /// The next packet; `None` when the hub has closed the connection.
    pub(crate) async fn receive(&mut self) -> Option<Packet> {
        timeout(WITHIN, self.read())
            .await
            .expect("a packet or the end, in time")
    }

    pub(crate) async fn disconnect(&mut self) {
        self.send(0xe0, &[]).await;
        assert_eq!(self.receive().await, None);
    }

    async fn read(&mut self) -> Option<Packet> {
        let first = self.stream.read_u8().await.ok()?;
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = self.stream.read_u8().await.ok()?;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.ok()?;
        Some(match first >> 4 {
            2 => Packet::Connack {
                session_present: body[0] == 1,
                code: body[1],
            },
            3 => {
                let end = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
                let topic = String::from_utf8(body[2..end].to_vec()).unwrap();
                let qos = first >> 1 & 3;
                let start = if qos == 0 { end } else { end + 2 };
                if qos == 1 {
                    self.send(0x40, &body[end..start]).await;
                }
                let payload = String::from_utf8(body[start..].to_vec()).unwrap();
                Packet::Publish {
                    topic,
                    payload,
                    qos,
                }
            }
            4 => Packet::Puback(u16::from_be_bytes([body[0], body[1]])),
            9 => Packet::Suback(body[2..].to_vec()),
            11 => Packet::Unsuback,
            other => panic!("unexpected packet type {other}"),
        })
    }
}
