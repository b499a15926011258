//! What clients say, written by hand, and what they are told.

use rehome::wire::amqp::Session;

pub(crate) const BARE: &[u8] = b"AMQP\x00\x01\x00\x00";
pub(crate) const SASL: &[u8] = b"AMQP\x03\x01\x00\x00";
pub(crate) const OPEN: u8 = 0x10;
pub(crate) const BEGIN: u8 = 0x11;
pub(crate) const ATTACH: u8 = 0x12;
pub(crate) const FLOW: u8 = 0x13;
pub(crate) const TRANSFER: u8 = 0x14;
pub(crate) const DISPOSITION: u8 = 0x15;
pub(crate) const DETACH: u8 = 0x16;
pub(crate) const END: u8 = 0x17;
pub(crate) const CLOSE: u8 = 0x18;

/// The fields of a performative, and how its list is written.
pub(crate) fn list(code: u8, fields: &[Vec<u8>]) -> Vec<u8> {
    let body = fields.concat();
    let count = u8::try_from(fields.len()).unwrap();
    let head = match u8::try_from(body.len() + 1) {
        _ if fields.is_empty() => vec![0x45],
        Ok(size) => vec![0xc0, size, count],
        Err(_) => {
            let size = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
            [&[0xd0][..], &size, &[0, 0, 0, count]].concat()
        }
    };
    [&[0, 0x53, code][..], &head, &body].concat()
}

pub(crate) fn frame(kind: u8, channel: u8, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len() + 8).unwrap().to_be_bytes();
    [&size[..], &[2, kind, 0, channel], body].concat()
}

pub(crate) fn amqp(code: u8, fields: &[Vec<u8>]) -> Vec<u8> {
    frame(0, 0, &list(code, fields))
}

pub(crate) fn null() -> Vec<u8> {
    vec![0x40]
}

pub(crate) fn text(text: &str) -> Vec<u8> {
    [&[0xa1, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

pub(crate) fn symbol(text: &str) -> Vec<u8> {
    [&[0xa3, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

pub(crate) fn binary(bytes: &[u8]) -> Vec<u8> {
    [&[0xa0, u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

pub(crate) fn uint(value: u32) -> Vec<u8> {
    [&[0x70][..], &value.to_be_bytes()].concat()
}

pub(crate) fn no() -> Vec<u8> {
    vec![0x42]
}

pub(crate) fn yes() -> Vec<u8> {
    vec![0x41]
}

pub(crate) fn open(largest: u32) -> Vec<u8> {
    amqp(OPEN, &[text(""), text("host:5671"), uint(largest)])
}

pub(crate) fn begin() -> Vec<u8> {
    amqp(BEGIN, &[null(), uint(7), uint(2048), uint(2048)])
}

/// An ATTACH; `receives` is the client's role.
pub(crate) fn attach(name: &str, handle: u32, receives: bool, address: &str) -> Vec<u8> {
    let source = list(0x28, &[text(address)]);
    let target = list(0x29, &[text(address)]);
    let version = [symbol("com.microsoft:api-version"), text("2019-03-31")].concat();
    let size = u8::try_from(version.len() + 1).unwrap();
    let properties = [&[0xc1, size, 2][..], &version].concat();
    let role = if receives { yes() } else { no() };
    let count = if receives { null() } else { uint(0) };
    let mut fields = vec![
        text(name),
        uint(handle),
        role,
        null(),
        null(),
        source,
        target,
    ];
    fields.extend([null(), null(), count, null(), null(), null(), properties]);
    amqp(ATTACH, &fields)
}

pub(crate) fn flow(handle: u32, credit: u32, drain: bool) -> Vec<u8> {
    let drain = if drain { yes() } else { no() };
    let mut fields = vec![uint(0), uint(2048), uint(0), uint(2048)];
    fields.extend([uint(handle), uint(0), uint(credit), null(), drain]);
    amqp(FLOW, &fields)
}

pub(crate) fn transfer(handle: u32, id: u32, more: bool, payload: &[u8]) -> Vec<u8> {
    let more = if more { yes() } else { no() };
    let head = list(
        TRANSFER,
        &[
            uint(handle),
            uint(id),
            binary(&id.to_be_bytes()),
            uint(0),
            no(),
            more,
        ],
    );
    frame(0, 0, &[&head, payload].concat())
}

/// A message that registers, with a data section of that size.
pub(crate) fn message(size: usize) -> Vec<u8> {
    let size = u32::try_from(size).unwrap();
    let mut bytes = vec![0, 0x53, 0x75, 0xb0];
    bytes.extend(size.to_be_bytes());
    bytes.extend(vec![b' '; size as usize]);
    bytes
}

/// The performatives that were said, with their whole frames.
pub(crate) fn said(session: &mut Session) -> Vec<(u8, Vec<u8>)> {
    let out = session.take_outgoing();
    let mut rest = &out[..];
    let mut frames = Vec::new();
    while !rest.is_empty() {
        if rest.starts_with(b"AMQP") {
            frames.push((0, rest[..8].to_vec()));
            rest = &rest[8..];
            continue;
        }
        let size = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
        frames.push((rest[10], rest[..size].to_vec()));
        rest = &rest[size..];
    }
    frames
}

pub(crate) fn codes(session: &mut Session) -> Vec<u8> {
    said(session).into_iter().map(|(code, _)| code).collect()
}

pub(crate) fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}
