//! A kept-alive HTTPS connection on which requests follow each other: cheap enough to ask for many
//! thousands of devices, as a proxy in front of a fleet does.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::key::encoded;
use super::{Applicant, Registrar, Trust, dial};

/// Longest time for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// One connection. Not usable after an error.
pub struct Line {
    stream: TlsStream<TcpStream>,
    /// Read, and not yet part of an answer.
    read: Vec<u8>,
}

/// An answer to one request.
#[derive(Debug)]
pub struct Reply {
    /// The HTTP status.
    pub code: u16,
    pub body: Vec<u8>,
}

impl Line {
    /// Connects to the server of that name, wherever it listens.
    pub async fn connect(host: &str, address: SocketAddr, trust: &Trust) -> Result<Self> {
        let connecting = dial(host, address, &trust.tls);
        let stream = tokio::time::timeout(PATIENCE, connecting).await;
        Ok(Self {
            stream: stream
                .context("no connection in time")
                .flatten()
                .with_context(|| format!("HTTPS connection to {address}"))?,
            read: Vec::new(),
        })
    }

    /// Sends a whole request, as it goes over the wire, and waits for its answer.
    pub async fn ask(&mut self, request: &[u8]) -> Result<Reply> {
        let asking = async {
            self.stream.write_all(request).await?;
            self.stream.flush().await?;
            self.reply().await
        };
        let reply = tokio::time::timeout(PATIENCE, asking).await;
        reply.context("no answer in time").flatten()
    }

    async fn reply(&mut self) -> Result<Reply> {
        let (code, start, length) = loop {
            let end = self.read.windows(4).position(|bytes| bytes == b"\r\n\r\n");
            if let Some(end) = end {
                let (code, length) = head(&self.read[..end])?;
                break (code, end + 4, length);
            }
            self.more().await?;
        };
        while self.read.len() < start + length {
            self.more().await?;
        }
        let body = self.read[start..start + length].to_vec();
        self.read.drain(..start + length);
        Ok(Reply { code, body })
    }

    async fn more(&mut self) -> Result<()> {
        ensure!(
            self.stream.read_buf(&mut self.read).await? > 0,
            "the server ended the connection"
        );
        Ok(())
    }
}

impl Reply {
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).context("an answer that is not JSON")
    }
}

impl Registrar {
    /// A connection on which any device may ask.
    pub async fn line(&self) -> Result<Line> {
        Line::connect(&self.host, self.https, &self.trust).await
    }
}

impl Applicant {
    /// The request to register, with a token of an hour.
    pub fn register_request(&self) -> Result<Vec<u8>> {
        let body = self.body(None).to_string();
        self.request("PUT", "register", &body)
    }

    /// The request how that operation stands.
    pub fn poll_request(&self, operation: &str) -> Result<Vec<u8>> {
        self.request("GET", &format!("operations/{operation}"), "")
    }

    fn request(&self, method: &str, what: &str, body: &str) -> Result<Vec<u8>> {
        let (scope, id) = (&self.scope, encoded(&self.registration_id));
        let (version, token, length) = (&self.api_version, self.token()?, body.len());
        let request = format!(
            "{method} /{scope}/registrations/{id}/{what}?api-version={version} HTTP/1.1\r\n\
             Host: gateway\r\nAuthorization: {token}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        Ok(request.into_bytes())
    }
}

/// The status and the length of the body.
fn head(head: &[u8]) -> Result<(u16, usize)> {
    let head = std::str::from_utf8(head)?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let code = status
        .with_context(|| format!("no status in {head:?}"))?
        .parse()?;
    for line in lines {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            return Ok((code, value.trim().parse()?));
        }
    }
    bail!("no length in {head:?}")
}
