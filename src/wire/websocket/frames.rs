//! Frames (RFC 6455, section 5), without I/O and without holding payload.

use std::cmp::min;

/// Longest head that a client sends: two bytes, eight of length, four of mask.
const LONGEST_HEAD: usize = 14;
/// Payload of a control frame.
pub(super) const CONTROL: usize = 125;

/// Why a client's frames are not understood, as its close code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Violation {
    /// A frame that the RFC forbids here.
    Protocol = 1002,
    /// Text: nothing that is spoken here is text.
    NotBinary = 1003,
}

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Close,
    Ping,
    Pong,
}

impl Kind {
    fn opcode(self) -> u8 {
        match self {
            Self::Data => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }
}

/// One frame of a client, whose head is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    /// Bytes of payload still to come.
    pub(super) left: u64,
    mask: [u8; 4],
}

impl Frame {
    /// Takes the next bytes of payload; what follows them belongs to another frame. Unmasks in
    /// place and returns how many they were.
    pub(super) fn take(&mut self, bytes: &mut [u8]) -> usize {
        let count = min(
            usize::try_from(self.left).unwrap_or(usize::MAX),
            bytes.len(),
        );
        for byte in bytes.iter_mut().take(count) {
            let [first, second, third, fourth] = self.mask;
            *byte ^= first;
            self.mask = [second, third, fourth, first];
        }
        self.left -= count as u64;
        count
    }
}

/// Reads the heads of frames.
#[derive(Debug, Default)]
pub(super) struct Heads {
    head: [u8; LONGEST_HEAD],
    have: usize,
    /// A fragmented message is open.
    fragmented: bool,
}

impl Heads {
    /// How many bytes to offer next: never more than the head has.
    pub(super) fn wants(&self) -> usize {
        let (short, ext) = (self.head[1] & 0x7f, self.have >= 2);
        let whole = match short {
            _ if !ext => 2,
            126 => 8,
            127 => LONGEST_HEAD,
            _ => 6,
        };
        whole - self.have
    }

    /// Takes at most [`Self::wants`] bytes; the frame, once its head is complete.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<Option<Frame>, Violation> {
        for (to, from) in self.head.iter_mut().skip(self.have).zip(bytes) {
            *to = *from;
        }
        self.have += bytes.len();
        if self.have == 2 {
            self.check()?;
        }
        if self.wants() > 0 {
            return Ok(None);
        }
        let frame = self.frame()?;
        self.have = 0;
        Ok(Some(frame))
    }

    /// As soon as the first two bytes are there.
    fn check(&self) -> Result<(), Violation> {
        let [first, second, ..] = self.head;
        let reserved = first & 0x70 != 0;
        let unmasked = second & 0x80 == 0;
        let long_control = first & 8 != 0 && (first & 0x80 == 0 || second & 0x7f > 125);
        if reserved || unmasked || long_control {
            return Err(Violation::Protocol);
        }
        Ok(())
    }

    fn frame(&mut self) -> Result<Frame, Violation> {
        let [
            first,
            second,
            b2,
            b3,
            b4,
            b5,
            b6,
            b7,
            b8,
            b9,
            b10,
            b11,
            b12,
            b13,
        ] = self.head;
        let (left, mask) = match second & 0x7f {
            126 => (u64::from(u16::from_be_bytes([b2, b3])), [b4, b5, b6, b7]),
            127 => (
                u64::from_be_bytes([b2, b3, b4, b5, b6, b7, b8, b9]),
                [b10, b11, b12, b13],
            ),
            short => (u64::from(short), [b2, b3, b4, b5]),
        };
        if left > i64::MAX as u64 {
            return Err(Violation::Protocol);
        }
        let last = first & 0x80 != 0;
        let kind = match first & 0x0f {
            0 if self.fragmented => {
                self.fragmented = !last;
                Kind::Data
            }
            2 if !self.fragmented => {
                self.fragmented = !last;
                Kind::Data
            }
            1 => return Err(Violation::NotBinary),
            8 => Kind::Close,
            9 => Kind::Ping,
            10 => Kind::Pong,
            _ => return Err(Violation::Protocol),
        };
        Ok(Frame { kind, left, mask })
    }
}

/// Appends a whole frame of ours, which are never masked.
pub(super) fn write(out: &mut Vec<u8>, kind: Kind, payload: &[u8]) {
    out.reserve(payload.len() + 10);
    out.push(0x80 | kind.opcode());
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ ..=125), _) => out.push(short),
        (_, Ok(medium)) => {
            out.push(126);
            out.extend(medium.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend((payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads frames with whole payloads, offering at most `step` bytes at once.
    fn read(mut bytes: &[u8], step: usize) -> Result<Vec<(Kind, Vec<u8>)>, Violation> {
        let (mut heads, mut frames) = (Heads::default(), Vec::new());
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(min(min(heads.wants(), step), bytes.len()));
            bytes = later;
            let Some(mut frame) = heads.feed(now)? else {
                continue;
            };
            let mut payload = Vec::new();
            while frame.left > 0 && !bytes.is_empty() {
                let mut some = bytes[..min(step, bytes.len())].to_vec();
                let count = frame.take(&mut some);
                payload.extend_from_slice(&some[..count]);
                bytes = &bytes[count..];
            }
            frames.push((frame.kind, payload));
        }
        Ok(frames)
    }

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes, Kind::Data, payload);
        bytes[0] = first;
        bytes[1] |= 0x80;
        let head = bytes.len() - payload.len();
        let mask = [0xde, 0xad, 0xbe, 0xef];
        for (byte, key) in bytes[head..].iter_mut().zip(mask.iter().cycle()) {
            *byte ^= key;
        }
        bytes.splice(head..head, mask);
        bytes
    }

    #[test]
    fn the_example_of_the_rfc_is_read() {
        let hello = [
            0x82, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
        ];
        let expected = vec![(Kind::Data, b"Hello".to_vec())];
        assert_eq!(read(&hello, 99).unwrap(), expected);
    }

    #[test]
    fn frames_of_every_length_are_read_however_they_are_cut() {
        let lengths = [0, 1, 125, 126, 127, 65_535, 65_536, 70_000];
        let sent: Vec<Vec<u8>> = lengths.map(|length| vec![7; length]).to_vec();
        let bytes: Vec<u8> = sent.iter().flat_map(|it| masked(0x82, it)).collect();
        for step in [1, 2, 3, 5, 100_000] {
            let frames = read(&bytes, step).unwrap();
            let payloads: Vec<Vec<u8>> = frames.into_iter().map(|(_, payload)| payload).collect();
            assert_eq!(payloads, sent, "{step}");
        }
    }

    #[test]
    fn control_frames_may_stand_between_fragments() {
        let bytes = [
            masked(0x02, b"a"),
            masked(0x89, b"p"),
            masked(0x00, b"b"),
            masked(0x80, b"c"),
            masked(0x88, &[3, 232]),
        ];
        let kinds: Vec<Kind> = read(&bytes.concat(), 4)
            .unwrap()
            .into_iter()
            .map(|it| it.0)
            .collect();
        let expected = [Kind::Data, Kind::Ping, Kind::Data, Kind::Data, Kind::Close];
        assert_eq!(kinds, expected);
    }

    #[test]
    fn what_the_rfc_forbids_is_refused() {
        for (what, bytes, violation) in [
            ("unmasked", vec![0x82, 0x01, 0x00], Violation::Protocol),
            ("compressed", masked(0xc2, b"x"), Violation::Protocol),
            ("text", masked(0x81, b"x"), Violation::NotBinary),
            (
                "nothing to continue",
                masked(0x80, b"x"),
                Violation::Protocol,
            ),
            (
                "a message in a message",
                [masked(0x02, b"x"), masked(0x82, b"y")].concat(),
                Violation::Protocol,
            ),
            ("a fragmented ping", masked(0x09, b"x"), Violation::Protocol),
            ("a long ping", masked(0x89, &[0; 126]), Violation::Protocol),
            ("an unknown kind", masked(0x83, b"x"), Violation::Protocol),
            (
                "an impossible length",
                [&[0x82, 0xff][..], &[0xff; 12]].concat(),
                Violation::Protocol,
            ),
        ] {
            assert_eq!(read(&bytes, 99).unwrap_err(), violation, "{what}");
        }
    }

    #[test]
    fn noise_is_never_a_panic() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..20_000 {
            let noise: Vec<u8> = (0..40)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state.to_le_bytes()[3]
                })
                .collect();
            let _ = read(&noise, 7);
        }
    }
}
