//! Frames and protocol headers of AMQP 1.0 (part 2 of the standard). Pure.

use super::types::{Malformed, Value};

/// Bytes of a protocol header, and of the head of a frame.
pub(super) const HEAD: usize = 8;

/// What follows a protocol header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer {
    Amqp = 0,
    Sasl = 3,
}

impl Layer {
    pub(super) fn header(self) -> [u8; HEAD] {
        [b'A', b'M', b'Q', b'P', self as u8, 1, 0, 0]
    }

    /// Reads a protocol header.
    pub(super) fn read(bytes: [u8; HEAD]) -> Option<Self> {
        [Self::Amqp, Self::Sasl]
            .into_iter()
            .find(|layer| layer.header() == bytes)
    }
}

/// A whole frame.
#[derive(Debug, PartialEq)]
pub(super) struct Frame<'a> {
    pub(super) layer: Layer,
    pub(super) channel: u16,
    /// Nothing in a frame that only says that the client is there.
    pub(super) body: &'a [u8],
}

/// The first frame in `bytes` and its size; `None` while it is not all there.
pub(super) fn first(bytes: &[u8], longest: usize) -> Result<Option<(Frame<'_>, usize)>, Malformed> {
    let Some((head, _)) = bytes.split_first_chunk::<HEAD>() else {
        return Ok(None);
    };
    let [s0, s1, s2, s3, doff, kind, c0, c1] = *head;
    let size = usize::try_from(u32::from_be_bytes([s0, s1, s2, s3])).map_err(|_| Malformed)?;
    let begin = usize::from(doff) * 4;
    if begin < HEAD || begin > size || size > longest {
        return Err(Malformed);
    }
    let layer = match kind {
        0 => Layer::Amqp,
        1 => Layer::Sasl,
        _ => return Err(Malformed),
    };
    let Some(frame) = bytes.get(..size) else {
        return Ok(None);
    };
    let frame = Frame {
        layer,
        channel: u16::from_be_bytes([c0, c1]),
        body: frame.get(begin..).ok_or(Malformed)?,
    };
    Ok(Some((frame, size)))
}

/// Appends a frame with a performative and what belongs to it.
pub(super) fn write(
    out: &mut Vec<u8>,
    layer: Layer,
    channel: u16,
    performative: &Value<'_>,
    payload: &[u8],
) {
    let at = out.len();
    let kind = u8::from(layer == Layer::Sasl);
    out.extend([0, 0, 0, 0, 2, kind]);
    out.extend(channel.to_be_bytes());
    performative.write(out);
    out.extend_from_slice(payload);
    let size = u32::try_from(out.len() - at).unwrap_or(u32::MAX);
    out.splice(at..at + 4, size.to_be_bytes());
}

/// A frame that says that we are there.
pub(super) const EMPTY: [u8; HEAD] = [0, 0, 0, 8, 2, 0, 0, 0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_when_it_is_all_there() {
        let mut bytes = Vec::new();
        write(&mut bytes, Layer::Amqp, 3, &Value::Null, b"payload");
        bytes.extend(EMPTY);
        for cut in 0..16 {
            assert_eq!(first(&bytes[..cut], 512), Ok(None), "{cut}");
        }
        let (frame, size) = first(&bytes, 512).unwrap().unwrap();
        assert_eq!(
            (frame.channel, frame.body, size),
            (3, &b"\x40payload"[..], 16)
        );
        let (frame, size) = first(&bytes[16..], 512).unwrap().unwrap();
        assert_eq!((frame.body, size), (&[][..], 8));
    }

    #[test]
    fn impossible_frames_are_refused_by_their_head() {
        for head in [
            [0, 0, 0, 7, 2, 0, 0, 0],
            [0, 0, 0, 8, 1, 0, 0, 0],
            [0, 0, 0, 8, 3, 0, 0, 0],
            [0, 0, 0, 8, 2, 2, 0, 0],
            [0, 0, 2, 1, 2, 0, 0, 0],
            [0xff; 8],
        ] {
            assert_eq!(first(&head, 512), Err(Malformed), "{head:?}");
        }
    }

    #[test]
    fn r21_both_protocol_headers_are_known() {
        assert_eq!(Layer::read(*b"AMQP\x03\x01\x00\x00"), Some(Layer::Sasl));
        assert_eq!(Layer::read(*b"AMQP\x00\x01\x00\x00"), Some(Layer::Amqp));
        for other in [
            b"AMQP\x02\x01\x00\x00",
            b"AMQP\x00\x00\x09\x01",
            b"GET / HT",
        ] {
            assert_eq!(Layer::read(*other), None);
        }
    }
}
