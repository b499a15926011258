//! A kept-alive HTTPS connection on which requests follow each other: cheap enough to ask for many
//! thousands of devices, as a proxy in front of a fleet does.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::{Registrar, Trust, dial};

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
    /// In seconds, if it says so.
    pub retry_after: Option<u64>,
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
        let (mut reply, start, length) = loop {
            let end = self.read.windows(4).position(|bytes| bytes == b"\r\n\r\n");
            if let Some(end) = end {
                let (reply, length) = head(&self.read[..end])?;
                break (reply, end + 4, length);
            }
            self.more().await?;
        };
        while self.read.len() < start + length {
            self.more().await?;
        }
        reply.body = self.read[start..start + length].to_vec();
        self.read.drain(..start + length);
        Ok(reply)
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

/// Reads the head of an answer: the body is to come, and its length is given.
fn head(head: &[u8]) -> Result<(Reply, usize)> {
    let head = std::str::from_utf8(head)?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let code = status
        .with_context(|| format!("no status in {head:?}"))?
        .parse()?;
    let (mut length, mut retry_after) = (None, None);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse()?);
        } else if name.eq_ignore_ascii_case("retry-after") {
            retry_after = Some(value.trim().parse()?);
        }
    }
    let reply = Reply {
        code,
        retry_after,
        body: Vec::new(),
    };
    Ok((
        reply,
        length.with_context(|| format!("no length in {head:?}"))?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_says_how_long_the_body_is_and_when_to_come_again() {
        let text = b"HTTP/1.1 202 Accepted\r\nContent-Length: 7\r\nRetry-After: 3";
        let (reply, length) = head(text).unwrap();
        assert_eq!((reply.code, reply.retry_after, length), (202, Some(3), 7));
        assert!(head(b"HTTP/1.1 200 OK\r\nRetry-After: 3").is_err());
    }
}
