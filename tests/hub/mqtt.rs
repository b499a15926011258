//! An MQTT 3.1.1 client written by hand: it shares nothing with the codec under test.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use http::HeaderValue;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::process::{HOST, HubProcess};

/// Longest wait for anything that must come.
const WITHIN: Duration = Duration::from_secs(60);

pub(crate) struct Device {
    stream: Box<dyn Stream>,
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

/// A client certificate and its key, in PEM.
pub(crate) type Identity<'a> = (&'a str, &'a str);

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

async fn tls(
    hub: &HubProcess,
    address: SocketAddr,
    identity: Option<Identity<'_>>,
) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(hub.authority.as_bytes());
    roots.add(root.unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots);
    let config = match identity {
        None => config.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = CertificateDer::pem_slice_iter(chain.as_bytes());
            let chain = chain.collect::<Result<_, _>>().unwrap();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            config.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from(HOST).unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, tcp).await.unwrap()
}

/// Passes the bytes of binary messages on, both ways, until one side ends.
async fn carry(mut socket: WebSocketStream<TlsStream<TcpStream>>, far: DuplexStream) {
    let (mut read, mut write) = tokio::io::split(far);
    let mut buffer = vec![0; 4096];
    loop {
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Binary(bytes))) => {
                    if write.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
            count = read.read(&mut buffer) => match count {
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    let bytes = buffer[..count].to_vec();
                    if socket.send(Message::Binary(bytes.into())).await.is_err() {
                        return;
                    }
                }
            },
        }
    }
}

impl Device {
    pub(crate) async fn dial(hub: &HubProcess) -> Self {
        Self::dial_as(hub, None).await
    }

    /// Dials with a client certificate, where there is one.
    pub(crate) async fn dial_as(hub: &HubProcess, identity: Option<Identity<'_>>) -> Self {
        Self::over(tls(hub, hub.mqtt, identity).await)
    }

    /// Dials MQTT over WebSocket at the port of the service API.
    pub(crate) async fn dial_web(hub: &HubProcess, path: &str, identity: Identity<'_>) -> Self {
        let stream = tls(hub, hub.https, Some(identity)).await;
        let mut request = format!("wss://{HOST}{path}").into_client_request().unwrap();
        let mqtt = HeaderValue::from_static("mqtt");
        request.headers_mut().insert("sec-websocket-protocol", mqtt);
        let (socket, response) = client_async(request, stream).await.unwrap();
        assert_eq!(response.headers()["sec-websocket-protocol"], "mqtt");
        let (near, far) = duplex(64 * 1024);
        tokio::spawn(carry(socket, far));
        Self::over(near)
    }

    fn over(stream: impl Stream + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            next_id: 1,
        }
    }

    /// Connects and returns the answer; `None` where the hub closed without one.
    pub(crate) async fn connect(&mut self, id: &str, token: &str, clean: bool) -> Option<Packet> {
        self.connect_with(id, Some(token), clean, None).await
    }

    /// Connects with a password or without, and perhaps with a will (topic and payload).
    pub(crate) async fn connect_with(
        &mut self,
        id: &str,
        token: Option<&str>,
        clean: bool,
        will: Option<(&str, &str)>,
    ) -> Option<Packet> {
        let user_name = format!("{HOST}/{id}/?api-version=2019-10-01&DeviceClientType=test");
        let mut body = field(b"MQTT");
        let password = u8::from(token.is_some()) << 6;
        let will_flag = u8::from(will.is_some()) << 2;
        let flags = 0b1000_0000 | password | will_flag | u8::from(clean) << 1;
        body.extend([4, flags, 0, 60]);
        let (topic, payload) = will.unzip();
        let fields = [Some(id), topic, payload, Some(&user_name), token];
        for text in fields.into_iter().flatten() {
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
