//! The attempts. Each ends when the gateway ends it, or when it has done its part.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::interval;

use super::MARK;
use super::prey::Prey;
use crate::device::{Applicant, Key};

/// Requests on one connection, where a connection is worth keeping.
const IN_A_ROW: usize = 50;

type Attempted = BoxFuture<'static, Result<()>>;

pub(super) fn tls_silence(prey: Arc<Prey>, _: usize) -> Attempted {
    async move {
        let mut tcp = prey.tcp(prey.https).await?;
        tcp.write_all(b"\x16\x03\x01").await?;
        until_closed(&mut tcp).await
    }
    .boxed()
}

pub(super) fn http_head(prey: Arc<Prey>, _: usize) -> Attempted {
    let at = prey.https;
    drip(prey, at, b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
}

pub(super) fn http_body(prey: Arc<Prey>, _: usize) -> Attempted {
    let at = prey.https;
    let begin = b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n";
    drip(prey, at, begin)
}

/// A beginning, and then one byte each second.
fn drip(prey: Arc<Prey>, at: SocketAddr, begin: &'static [u8]) -> Attempted {
    async move {
        let (mut read, mut write) = tokio::io::split(prey.tls(at).await?);
        write.write_all(begin).await?;
        write.flush().await?;
        let mut second = interval(Duration::from_secs(1));
        let dripping = async {
            loop {
                second.tick().await;
                write.write_all(b"x").await?;
                write.flush().await?;
            }
        };
        tokio::select! {
            failed = dripping => failed,
            ended = until_closed(&mut read) => ended,
        }
    }
    .boxed()
}

pub(super) fn mqtt_silence(prey: Arc<Prey>, _: usize) -> Attempted {
    async move {
        let mut tls = prey.tls(prey.mqtt).await?;
        tls.write_all(b"\x10").await?;
        tls.flush().await?;
        until_closed(&mut tls).await
    }
    .boxed()
}

pub(super) fn websocket_silence(prey: Arc<Prey>, _: usize) -> Attempted {
    async move { on_websocket(&prey, &[]).await }.boxed()
}

/// A frame whose reserved bits are set; and a good frame with bad MQTT in it.
pub(super) fn malformed_websocket(prey: Arc<Prey>, _: usize) -> Attempted {
    async move {
        on_websocket(&prey, &[0xf2, 0x81, 0, 0, 0, 0, 0]).await?;
        on_websocket(&prey, &[0x82, 0x82, 0, 0, 0, 0, 0x30, 0]).await
    }
    .boxed()
}

/// AMQP without SASL, which a device with a certificate begins with.
const AMQP_HEADER: &[u8] = b"AMQP\0\x01\0\0";

pub(super) fn amqp_silence(prey: Arc<Prey>, _: usize) -> Attempted {
    async move {
        let mut tls = prey.tls(prey.amqp).await?;
        tls.write_all(AMQP_HEADER).await?;
        tls.flush().await?;
        until_closed(&mut tls).await
    }
    .boxed()
}

/// The head of a frame of four kilobytes, which never come.
pub(super) fn amqp_open(prey: Arc<Prey>, _: usize) -> Attempted {
    let at = prey.amqp;
    drip(prey, at, b"AMQP\0\x01\0\0\0\0\x10\0\x02\0\0\0")
}

/// Not AMQP; AMQP 0-9-1; a frame of a gigabyte; one shorter than its head; one whose data begins
/// behind its end; a list that holds more than its frame; an OPEN within lists within lists; BEGIN
/// before OPEN.
const MALFORMED_AMQP: [&[u8]; 8] = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"AMQP\0\0\x09\x01",
    b"AMQP\0\x01\0\0\x40\0\0\0\x02\0\0\0",
    b"AMQP\0\x01\0\0\0\0\0\x04\x02\0\0\0",
    b"AMQP\0\x01\0\0\0\0\0\x08\xff\0\0\0",
    b"AMQP\0\x01\0\0\0\0\0\x14\x02\0\0\0\0\x53\x10\xd0\xff\xff\xff\xff\xff\xff\xff\xff",
    b"AMQP\0\x01\0\0\0\0\0\x17\x02\0\0\0\0\x53\x10\xc0\x0a\x01\xc0\x08\x01\xc0\x06\x01\xc0\x04\x01\x45",
    b"AMQP\0\x01\0\0\0\0\0\x0c\x02\0\0\0\0\x53\x11\x45",
];

pub(super) fn malformed_amqp(prey: Arc<Prey>, number: usize) -> Attempted {
    async move {
        let mut tls = prey.tls(prey.amqp).await?;
        let malformed = MALFORMED_AMQP[number % MALFORMED_AMQP.len()];
        tls.write_all(malformed).await?;
        tls.flush().await?;
        until_closed(&mut tls).await
    }
    .boxed()
}

/// The server pays for a signature and a key exchange, the client for nothing: its first words are
/// always the same.
pub(super) fn handshakes(prey: Arc<Prey>, _: usize) -> Attempted {
    async move {
        let name = ServerName::try_from(prey.host.clone())?;
        let mut hello = Vec::new();
        ClientConnection::new(prey.trust.tls().clone(), name)?.write_tls(&mut hello)?;
        loop {
            let mut tcp = prey.tcp(prey.https).await?;
            tcp.write_all(&hello).await?;
            tcp.read_u8().await?;
        }
    }
    .boxed()
}

pub(super) fn no_tls(prey: Arc<Prey>, _: usize) -> Attempted {
    async move {
        let mut tcp = prey.tcp(prey.https).await?;
        tcp.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await?;
        until_closed(&mut tcp).await
    }
    .boxed()
}

pub(super) fn oversized(prey: Arc<Prey>, _: usize) -> Attempted {
    async move {
        let mut tls = prey.tls(prey.https).await?;
        tls.write_all(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 99000000\r\n\r\n")
            .await?;
        let chunk = [b' '; 16 * 1024];
        loop {
            tls.write_all(&chunk).await?;
        }
    }
    .boxed()
}

pub(super) fn nested(prey: Arc<Prey>, _: usize) -> Attempted {
    async move {
        let body = format!("{{\"payload\":{}", "[".repeat(90_000));
        authenticated(&prey, "", body.as_bytes()).await
    }
    .boxed()
}

/// A kilobyte that gzip would make a megabyte of.
pub(super) fn compressed(prey: Arc<Prey>, _: usize) -> Attempted {
    async move {
        let mut body = b"\x1f\x8b\x08\0\0\0\0\0\x02\x03".to_vec();
        body.resize(1024, 0);
        authenticated(&prey, "Content-Encoding: gzip\r\n", &body).await
    }
    .boxed()
}

/// Two ways to tell where a request ends.
const AMBIGUOUS: [&str; 6] = [
    "Content-Length: 4\r\nContent-Length: 40\r\n\r\n",
    "Content-Length: +4\r\n\r\n",
    "Content-Length: 4, 40\r\n\r\n",
    "Transfer-Encoding: chunked, identity\r\n\r\n",
    "Transfer-Encoding : chunked\r\n\r\n",
    "X: y\r\n Transfer-Encoding: chunked\r\n\r\n",
];

pub(super) fn smuggling(prey: Arc<Prey>, number: usize) -> Attempted {
    async move {
        let headers = AMBIGUOUS[number % AMBIGUOUS.len()];
        let mut tls = prey.tls(prey.https).await?;
        let hidden = format!("0\r\n\r\nGET /{MARK} HTTP/1.1\r\nHost: x\r\n\r\n");
        let request = format!("PUT / HTTP/1.1\r\nHost: x\r\n{headers}{hidden}");
        tls.write_all(request.as_bytes()).await?;
        tls.flush().await?;
        until_closed(&mut tls).await
    }
    .boxed()
}

/// Not MQTT; a packet before CONNECT; MQTT 5; a CONNECT that is cut short; a length that never ends;
/// a user name that is none.
const MALFORMED: [&[u8]; 6] = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x30\x05\0\x01tpl",
    b"\x10\x0d\0\x04MQTT\x05\x02\0\x3c\0\0\0",
    b"\x10\x06\0\x04MQTT",
    b"\x10\xff\xff\xff\xff\xff",
    b"\x10\x1a\0\x04MQTT\x04\x82\0\x3c\0\x06poison\0\x06poison",
];

pub(super) fn malformed_mqtt(prey: Arc<Prey>, number: usize) -> Attempted {
    async move {
        let mut tls = prey.tls(prey.mqtt).await?;
        tls.write_all(MALFORMED[number % MALFORMED.len()]).await?;
        tls.flush().await?;
        until_closed(&mut tls).await
    }
    .boxed()
}

/// Line breaks, quotes, ANSI colours, path segments: everything that means something to somebody.
const POISONS: [&str; 6] = [
    "%0apoison%20level=error",
    "%22%7dpoison%7b",
    "%1b[31mpoison",
    "..%2f..%2fpoison",
    "poison%00",
    "%ff%fepoison",
];

pub(super) fn poison(prey: Arc<Prey>, number: usize) -> Attempted {
    async move {
        let (id, scope) = (POISONS[number % POISONS.len()], &prey.scope);
        let mut tls = prey.tls(prey.https).await?;
        for _ in 0..IN_A_ROW {
            let path = format!("/{scope}/registrations/{id}/register?api-version=2019-03-31");
            ask(&mut tls, &request(&path, "", b"{}")).await?;
        }
        Ok(())
    }
    .boxed()
}

pub(super) fn wrong_signature(prey: Arc<Prey>, number: usize) -> Attempted {
    async move {
        let mut tls = prey.tls(prey.https).await?;
        let stranger = Applicant {
            key: Key::random()?,
            registration_id: format!("{MARK}-{number}"),
            ..prey.insider.clone()
        };
        let request = stranger.register_request()?;
        for _ in 0..IN_A_ROW {
            ask(&mut tls, &request).await?;
        }
        Ok(())
    }
    .boxed()
}

pub(super) fn one_device(prey: Arc<Prey>, _: usize) -> Attempted {
    async move {
        let mut tls = prey.tls(prey.https).await?;
        let request = prey.insider.register_request()?;
        for _ in 0..IN_A_ROW {
            ask(&mut tls, &request).await?;
        }
        Ok(())
    }
    .boxed()
}

pub(super) fn leaked_key(prey: Arc<Prey>, _: usize) -> Attempted {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    async move {
        let mut tls = prey.tls(prey.https).await?;
        for _ in 0..IN_A_ROW {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let device = prey.invented(format!("invented-{number}"));
            ask(&mut tls, &device.register_request()?).await?;
        }
        Ok(())
    }
    .boxed()
}

/// The insider's request to register, with another body.
async fn authenticated(prey: &Prey, headers: &str, body: &[u8]) -> Result<()> {
    let plain = String::from_utf8(prey.insider.register_request()?)?;
    let path = plain.split(' ').nth(1).context("a path")?;
    let token = plain
        .lines()
        .find(|line| line.starts_with("Authorization: "));
    let headers = format!("{}\r\n{headers}", token.context("a token")?);
    let mut tls = prey.tls(prey.https).await?;
    ask(&mut tls, &request(path, &headers, body)).await
}

fn request(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("PUT {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// Sends a request and reads one answer, of whatever length.
async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &[u8]) -> Result<()> {
    stream.write_all(request).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    loop {
        anyhow::ensure!(stream.read_buf(&mut answer).await? > 0, "closed");
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.lines().find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("content-length: ")?
                .parse()
                .ok()
        });
        if body.len() >= length.unwrap_or(0) {
            return Ok(());
        }
    }
}

/// Asks for a WebSocket, sends this on it and waits for the end.
async fn on_websocket(prey: &Prey, bytes: &[u8]) -> Result<()> {
    let mut tls = prey.tls(prey.https).await?;
    let request = "GET /$iothub/websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
        Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    ask(&mut tls, request.as_bytes()).await?;
    tls.write_all(bytes).await?;
    tls.flush().await?;
    until_closed(&mut tls).await
}

async fn until_closed(stream: &mut (impl AsyncRead + Unpin)) -> Result<()> {
    let mut bytes = [0; 1024];
    while stream.read(&mut bytes).await? > 0 {}
    Ok(())
}
