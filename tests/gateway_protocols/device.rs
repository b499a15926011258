//! Devices: an HTTP client that shows every byte of an answer, and an MQTT client that writes its
//! packets by hand.

use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::stage::{SCOPE, Sockets, token};

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn dial(
    sockets: &Sockets,
    address: std::net::SocketAddr,
    names_itself: bool,
) -> TlsStream<TcpStream> {
    dial_with(sockets, address, names_itself, None).await
}

/// Certificates, leaf first, and the leaf's key.
pub(crate) type ClientIdentity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

pub(crate) async fn dial_with(
    sockets: &Sockets,
    address: std::net::SocketAddr,
    names_itself: bool,
    identity: Option<ClientIdentity>,
) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(sockets.certificate.clone()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots);
    let mut config = match identity {
        Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
        None => config.with_no_client_auth(),
    };
    config.enable_sni = names_itself;
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
        .unwrap()
}

/// One HTTPS connection, and the server that it needs.
pub(crate) struct Https {
    stream: TlsStream<TcpStream>,
    _server: Arc<Sockets>,
}

/// One answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status_line: String,
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Value,
}

impl Https {
    pub(crate) async fn open(sockets: &Arc<Sockets>) -> Self {
        Self {
            stream: dial(sockets, sockets.https, true).await,
            _server: sockets.clone(),
        }
    }

    /// With a client certificate.
    pub(crate) async fn open_as(sockets: &Arc<Sockets>, identity: Option<ClientIdentity>) -> Self {
        Self {
            stream: dial_with(sockets, sockets.https, true, identity).await,
            _server: sockets.clone(),
        }
    }

    pub(crate) async fn open_without_sni(sockets: &Arc<Sockets>) -> Self {
        Self {
            stream: dial(sockets, sockets.https, false).await,
            _server: sockets.clone(),
        }
    }

    pub(crate) fn stream(&mut self) -> &mut TlsStream<TcpStream> {
        &mut self.stream
    }

    /// Sends one request and reads one answer, on the same connection as the last.
    pub(crate) async fn request(
        &mut self,
        line: &str,
        token: Option<&str>,
        headers: &str,
        body: &[u8],
    ) -> Reply {
        let token = token
            .map(|token| format!("authorization: {token}\r\n"))
            .unwrap_or_default();
        let head = format!(
            "{line} HTTP/1.1\r\nHost: localhost\r\n{token}{headers}Content-Length: {}\r\n\r\n",
            body.len()
        );
        self.stream.write_all(head.as_bytes()).await.unwrap();
        // An answer may come before the body is taken.
        let _ = self.stream.write_all(body).await;
        let _ = self.stream.flush().await;
        timeout(PATIENCE, self.reply()).await.expect("an answer")
    }

    pub(crate) async fn register(&mut self, id: &str, body: &str) -> Reply {
        let line = format!("PUT {}", register_path(id, "2019-03-31"));
        self.request(&line, Some(&token(id)), "", body.as_bytes())
            .await
    }

    pub(crate) async fn poll(&mut self, id: &str, operation: &str) -> Reply {
        let line = format!("GET {}", poll_path(id, operation, "2019-03-31"));
        self.request(&line, Some(&token(id)), "", b"").await
    }

    async fn reply(&mut self) -> Reply {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let status_line = head.lines().next().unwrap().to_owned();
        let mut reply = Reply {
            status: status_line[9..12].parse().unwrap(),
            status_line,
            head,
            body: Value::Null,
        };
        let length = reply.header("content-length").unwrap().parse().unwrap();
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.unwrap();
        reply.body = serde_json::from_slice(&body).expect("every answer is JSON");
        reply
    }
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self
            .head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "));
        let mut found = lines.filter(|(other, _)| other.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value)
    }

    pub(crate) fn operation(&self) -> String {
        self.body["operationId"]
            .as_str()
            .expect("an operation id")
            .to_owned()
    }
}

pub(crate) fn register_path(id: &str, api_version: &str) -> String {
    format!("/{SCOPE}/registrations/{id}/register?api-version={api_version}")
}

pub(crate) fn poll_path(id: &str, operation: &str, api_version: &str) -> String {
    format!("/{SCOPE}/registrations/{id}/operations/{operation}?api-version={api_version}")
}

/// How a device of some SDK connects.
#[derive(Debug, Clone)]
pub(crate) struct Manner {
    pub(crate) id: String,
    pub(crate) client_id: String,
    pub(crate) parameters: String,
    pub(crate) password: Option<String>,
    pub(crate) clean: bool,
}

impl Manner {
    /// Like the current Node SDK.
    pub(crate) fn of(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            client_id: id.to_owned(),
            parameters: "api-version=2019-03-31".to_owned(),
            password: Some(token(id)),
            clean: true,
        }
    }

    /// Like the Python SDK.
    pub(crate) fn keeping(id: &str) -> Self {
        Self {
            clean: false,
            ..Self::of(id)
        }
    }

    fn packet(&self) -> Vec<u8> {
        self.packet_in(SCOPE)
    }

    pub(crate) fn packet_in(&self, scope: &str) -> Vec<u8> {
        let mut body = text("MQTT");
        let password = u8::from(self.password.is_some()) << 6;
        body.extend([
            4,
            0b1000_0000 | password | (u8::from(self.clean) << 1),
            0,
            60,
        ]);
        body.extend(text(&self.client_id));
        body.extend(text(&format!(
            "{scope}/registrations/{}/{}",
            self.id, self.parameters
        )));
        body.extend(self.password.as_deref().map(text).unwrap_or_default());
        packet(0x10, &body)
    }
}

/// One MQTT connection.
pub(crate) struct Mqtt<S>(pub(crate) S);

/// What the server said.
#[derive(Debug, PartialEq)]
pub(crate) enum Said {
    Connack {
        session_present: u8,
        code: u8,
    },
    Suback(Vec<u8>),
    Unsuback,
    Puback(u16),
    Pingresp,
    Publish {
        qos: u8,
        packet_id: Option<u16>,
        topic: String,
        body: Value,
    },
    Closed,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Mqtt<S> {
    /// Connects and is let in.
    pub(crate) async fn connect(stream: S, manner: &Manner) -> Self {
        let mut this = Self(stream);
        assert_eq!(
            this.try_connect(manner).await,
            Said::Connack {
                session_present: 0,
                code: 0
            }
        );
        this
    }

    pub(crate) async fn try_connect(&mut self, manner: &Manner) -> Said {
        self.send(&manner.packet()).await;
        self.next().await
    }

    pub(crate) async fn subscribe(&mut self, filter: &str, qos: u8) -> Said {
        let body = [vec![0, 9], text(filter), vec![qos]].concat();
        self.send(&packet(0x82, &body)).await;
        self.next().await
    }

    /// Publishes; `flags` are those of the fixed header.
    pub(crate) async fn publish(&mut self, flags: u8, topic: &str, packet_id: u16, body: &[u8]) {
        let id = if flags & 0b0110 == 0 {
            vec![]
        } else {
            packet_id.to_be_bytes().to_vec()
        };
        self.send(&packet(
            0x30 | flags,
            &[text(topic), id, body.to_vec()].concat(),
        ))
        .await;
    }

    pub(crate) async fn register(&mut self, qos: u8, rid: &str, packet_id: u16) {
        let topic = format!("$dps/registrations/PUT/iotdps-register/?$rid={rid}");
        self.publish(qos << 1, &topic, packet_id, b"").await;
    }

    pub(crate) async fn poll(&mut self, qos: u8, rid: &str, operation: &str) {
        let topic = format!(
            "$dps/registrations/GET/iotdps-get-operationstatus/?$rid={rid}&operationId={operation}"
        );
        self.publish(qos << 1, &topic, 77, b" ").await;
    }

    pub(crate) async fn acknowledge(&mut self, packet_id: Option<u16>) {
        let id = packet_id.expect("a QoS 1 answer").to_be_bytes();
        self.send(&packet(0x40, &id)).await;
    }

    /// Topic and body of the next thing said, which is an answer.
    pub(crate) async fn answer(&mut self) -> (String, Value) {
        let said = self.next().await;
        let Said::Publish { topic, body, .. } = said else {
            panic!("expected an answer, got {said:?}");
        };
        (topic, body)
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
        self.0.flush().await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Said {
        timeout(PATIENCE * 7, self.read())
            .await
            .expect("the server says something")
    }

    async fn read(&mut self) -> Said {
        let Ok(first) = self.0.read_u8().await else {
            return Said::Closed;
        };
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = self.0.read_u8().await.unwrap();
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.unwrap();
        let number = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
        match first >> 4 {
            2 => Said::Connack {
                session_present: body[0],
                code: body[1],
            },
            3 => {
                let end = 2 + usize::from(number(0));
                let qos = (first >> 1) & 3;
                let rest = if qos == 0 { end } else { end + 2 };
                Said::Publish {
                    qos,
                    packet_id: (qos > 0).then(|| number(end)),
                    topic: String::from_utf8(body[2..end].to_vec()).unwrap(),
                    body: serde_json::from_slice(&body[rest..]).expect("every answer is JSON"),
                }
            }
            4 => Said::Puback(number(0)),
            9 => Said::Suback(body[2..].to_vec()),
            11 => Said::Unsuback,
            13 => Said::Pingresp,
            other => panic!("packet type {other}"),
        }
    }
}

pub(crate) const ANSWERS: &str = "$dps/registrations/res/#";

pub(crate) fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap().to_be_bytes();
    [&length[..], text.as_bytes()].concat()
}

pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = body.len();
    while length >= 128 {
        bytes.push(u8::try_from(length % 128).unwrap() | 0x80);
        length /= 128;
    }
    bytes.push(u8::try_from(length).unwrap());
    bytes.extend_from_slice(body);
    bytes
}
