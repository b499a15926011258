//! The SASL mechanism `TPM`, byte by byte, as the C and Node SDKs speak it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rehome_testing::device::Tpm;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::stage::SCOPE;

const HEADER: [u8; 8] = *b"AMQP\x03\x01\x00\x00";

/// The stream after the outcome 0, or another outcome.
pub(super) async fn log_in<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    id: &str,
    tpm: &Tpm,
) -> Result<S, u8> {
    stream.write_all(&HEADER).await.unwrap();
    let mut header = [0; 8];
    stream.read_exact(&mut header).await.unwrap();
    assert_eq!(header, HEADER);
    let (code, offer) = frame(&mut stream).await;
    assert_eq!(code, 0x40);
    assert!(offer.windows(3).any(|name| name == b"TPM"));
    let raw = |text: String| STANDARD.decode(text).unwrap();
    let endorsement = raw(tpm.endorsement_key().unwrap());
    let names = format!("\0{SCOPE}\0{id}\0");
    let hello = [names.as_bytes(), &endorsement].concat();
    send(
        &mut stream,
        0x41,
        &[&[0xa3, 3][..], b"TPM", &binary(&hello)].concat(),
        2,
    )
    .await;
    assert_eq!(challenge(&mut stream).await?, [0]);
    let storage = [&[0][..], &raw(tpm.storage_root_key().unwrap())].concat();
    send(&mut stream, 0x43, &binary(&storage), 1).await;
    let first = challenge(&mut stream).await?;
    assert_eq!(first[0], 0x80);
    send(&mut stream, 0x43, &binary(&[0]), 1).await;
    let second = challenge(&mut stream).await?;
    assert_eq!(second[0], 0xC1);
    let blob = STANDARD.encode([&first[1..], &second[1..]].concat());
    let key = tpm.activate(&blob, "challenge").unwrap();
    let resource = format!("{SCOPE}/registrations/{id}");
    let token = key.token(&resource, Some("registration")).unwrap();
    assert!(token.len() <= 470, "the C SDK sends no longer one");
    let said = [&[0][..], token.as_bytes()].concat();
    send(&mut stream, 0x43, &binary(&said), 1).await;
    match challenge(&mut stream).await {
        Err(0) => Ok(stream),
        other => panic!("{other:?}"),
    }
}

/// The bytes of a challenge, or the code of an outcome.
async fn challenge<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, u8> {
    let (code, fields) = frame(stream).await;
    let fields = match fields[0] {
        0xc0 => &fields[3..],
        0xd0 => &fields[9..],
        other => panic!("a list that begins with {other:#x}"),
    };
    match (code, fields[0]) {
        (0x42, 0xa0) => Ok(fields[2..].to_vec()),
        (0x42, 0xb0) => Ok(fields[5..].to_vec()),
        (0x44, 0x50) => Err(fields[1]),
        other => panic!("{other:?}"),
    }
}

/// Code and fields of a SASL frame.
async fn frame<S: AsyncRead + Unpin>(stream: &mut S) -> (u8, Vec<u8>) {
    let size = usize::try_from(stream.read_u32().await.unwrap()).unwrap();
    assert!(size <= 512, "SASL frames have at most 512 bytes");
    let mut rest = vec![0; size - 4];
    stream.read_exact(&mut rest).await.unwrap();
    assert_eq!(rest[..2], [2, 1]);
    assert_eq!(rest[4..6], [0, 0x53]);
    (rest[6], rest[7..].to_vec())
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, code: u8, fields: &[u8], count: u32) {
    let length = u32::try_from(fields.len()).unwrap();
    let body = [
        &[0, 0x53, code, 0xd0][..],
        &(length + 4).to_be_bytes(),
        &count.to_be_bytes(),
        fields,
    ]
    .concat();
    let size = u32::try_from(body.len() + 8).unwrap();
    let frame = [&size.to_be_bytes()[..], &[2, 1, 0, 0], &body].concat();
    stream.write_all(&frame).await.unwrap();
    stream.flush().await.unwrap();
}

fn binary(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    [&[0xb0][..], &length.to_be_bytes(), bytes].concat()
}
