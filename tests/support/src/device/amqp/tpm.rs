//! The SASL mechanism `TPM`, byte by byte, as the C and Node SDKs speak it.

use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::{PATIENCE, Stream};
use crate::device::Tpm;

const HEADER: [u8; 8] = *b"AMQP\x03\x01\x00\x00";
/// The C SDK sends no longer token.
const LONGEST_TOKEN: usize = 470;
/// SASL frames have at most so many bytes.
const LONGEST_FRAME: usize = 512;

/// A server that does not believe a TPM, and the outcome by which it said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SaslRefused(pub u8);

impl fmt::Display for SaslRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server ended SASL with the outcome {}", self.0)
    }
}

impl std::error::Error for SaslRefused {}

/// What a server says in a frame.
enum Said {
    Challenge(Vec<u8>),
    Outcome(u8),
}

/// Proves with the TPM who the device is: gives the stream back, on which AMQP begins.
/// [`SaslRefused`] can be taken out of the error.
pub async fn log_in_with_tpm<S: Stream>(stream: S, tpm: &Tpm, scope: &str, id: &str) -> Result<S> {
    let work = timeout(PATIENCE, log_in(stream, tpm, scope, id));
    work.await.context("SASL takes too long")?
}

async fn log_in<S: Stream>(mut stream: S, tpm: &Tpm, scope: &str, id: &str) -> Result<S> {
    let keys = [tpm.endorsement_key()?, tpm.storage_root_key()?];
    let [endorsement, storage] = keys.map(|key| STANDARD.decode(key));
    let keys = [&endorsement?[..], &storage?[..]];
    let blob = challenged(&mut stream, keys, scope, id).await?;
    let key = tpm.activate(&STANDARD.encode(blob), "challenge")?;
    let token = key.token(&format!("{scope}/registrations/{id}"), Some("registration"))?;
    ensure!(token.len() <= LONGEST_TOKEN, "a token of {}", token.len());
    respond(&mut stream, token.as_bytes()).await?;
    match said(&mut stream).await? {
        Said::Outcome(0) => Ok(stream),
        Said::Outcome(code) => Err(SaslRefused(code).into()),
        Said::Challenge(more) => bail!("a challenge after the last: {more:?}"),
    }
}

/// Shows these as endorsement key and storage root key: the challenge that follows. [`SaslRefused`] can
/// be taken out of the error.
pub async fn log_in_showing(
    mut stream: impl Stream,
    keys: [&[u8]; 2],
    scope: &str,
    id: &str,
) -> Result<Vec<u8>> {
    let work = timeout(PATIENCE, challenged(&mut stream, keys, scope, id));
    work.await.context("SASL takes too long")?
}

async fn challenged(
    stream: &mut impl Stream,
    [endorsement, storage]: [&[u8]; 2],
    scope: &str,
    id: &str,
) -> Result<Vec<u8>> {
    stream.write_all(&HEADER).await?;
    let mut header = [0; 8];
    stream.read_exact(&mut header).await?;
    ensure!(header == HEADER, "the server says {header:?}");
    let (code, offer) = frame(stream).await?;
    let offers = code == 0x40 && offer.windows(3).any(|name| name == b"TPM");
    ensure!(offers, "the server does not offer the mechanism TPM");
    let names = format!("\0{scope}\0{id}\0");
    let hello = binary(&[names.as_bytes(), endorsement].concat())?;
    let mechanism = [&[0xa3, 3][..], b"TPM", &hello].concat();
    send(stream, 0x41, &mechanism, 2).await?;
    let asked = challenge(stream).await?;
    ensure!(
        asked == [0],
        "the storage root key is asked for by {asked:?}"
    );
    respond(stream, storage).await?;
    // Two segments, which the Java SDK counts.
    let first = challenge(stream).await?;
    ensure!(first.first() == Some(&0x80), "a first segment: {first:?}");
    respond(stream, &[]).await?;
    let last = challenge(stream).await?;
    ensure!(last.first() == Some(&0xC1), "a last segment: {last:?}");
    Ok([&first[1..], &last[1..]].concat())
}

async fn challenge(stream: &mut impl Stream) -> Result<Vec<u8>> {
    match said(stream).await? {
        Said::Challenge(bytes) => Ok(bytes),
        Said::Outcome(code) => Err(SaslRefused(code).into()),
    }
}

async fn said(stream: &mut impl Stream) -> Result<Said> {
    let (code, fields) = frame(stream).await?;
    let fields = match fields.first() {
        Some(0xc0) => fields.get(3..),
        Some(0xd0) => fields.get(9..),
        _ => None,
    };
    let fields = fields.context("a SASL frame without a list")?;
    match (code, fields) {
        (0x42, [0xa0, _, bytes @ ..] | [0xb0, _, _, _, _, bytes @ ..]) => {
            Ok(Said::Challenge(bytes.to_vec()))
        }
        (0x44, [0x50, outcome, ..]) => Ok(Said::Outcome(*outcome)),
        _ => bail!("an unexpected SASL frame {code:#x} {fields:?}"),
    }
}

/// Code and fields of a SASL frame.
async fn frame(stream: &mut impl Stream) -> Result<(u8, Vec<u8>)> {
    let size = usize::try_from(stream.read_u32().await?)?;
    ensure!((12..=LONGEST_FRAME).contains(&size), "a frame of {size}");
    let mut rest = vec![0; size - 4];
    stream.read_exact(&mut rest).await?;
    ensure!(
        rest[..2] == [2, 1] && rest[4..6] == [0, 0x53],
        "not a SASL frame: {rest:?}"
    );
    Ok((rest[6], rest[7..].to_vec()))
}

/// A zero, which says that this is no segment, and the bytes.
async fn respond(stream: &mut impl Stream, bytes: &[u8]) -> Result<()> {
    let response = binary(&[&[0][..], bytes].concat())?;
    send(stream, 0x43, &response, 1).await
}

async fn send(stream: &mut impl Stream, code: u8, fields: &[u8], count: u32) -> Result<()> {
    let length = u32::try_from(fields.len())?;
    let body = [
        &[0, 0x53, code, 0xd0][..],
        &(length + 4).to_be_bytes(),
        &count.to_be_bytes(),
        fields,
    ]
    .concat();
    let size = u32::try_from(body.len() + 8)?;
    let frame = [&size.to_be_bytes()[..], &[2, 1, 0, 0], &body].concat();
    stream.write_all(&frame).await?;
    Ok(stream.flush().await?)
}

fn binary(bytes: &[u8]) -> Result<Vec<u8>> {
    let length = u32::try_from(bytes.len())?;
    Ok([&[0xb0][..], &length.to_be_bytes(), bytes].concat())
}
