//! The type system of AMQP 1.0 (part 1 of the standard): bytes to [`Value`] and back. Pure.
//!
//! A client could write a few bytes that stand for millions of values (an array of nulls), or nest
//! them without end; so a [`Reader`] counts what it makes and gives up early.

/// Values that one frame, or one section of a message, may hold: more than any SDK needs.
const VALUES: u32 = 512;
/// How deep they may be nested.
const DEPTH: u32 = 8;

/// The descriptor of a value that is described in words: nothing that is known here.
const IN_WORDS: u64 = u64::MAX;

/// These bytes are no AMQP 1.0, or more of it than is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed AMQP data")]
pub(crate) struct Malformed;

/// A value, borrowed from the bytes it was read from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value<'a> {
    Null,
    Bool(bool),
    Ubyte(u8),
    Ushort(u16),
    Uint(u32),
    Ulong(u64),
    Int(i32),
    /// Any other type of fixed width, as it was written; nothing here needs to know what it means.
    Fixed(u8, &'a [u8]),
    Binary(&'a [u8]),
    Str(&'a str),
    Symbol(&'a str),
    List(Vec<Self>),
    /// Keys and values by turns.
    Map(Vec<Self>),
    Array(Vec<Self>),
    /// Descriptor and value.
    Described(u64, Box<Self>),
    /// A value that was written before, copied as it is.
    Raw(&'a [u8]),
}

impl<'a> Value<'a> {
    pub(crate) fn text(&self) -> Option<&'a str> {
        if let Self::Str(text) | Self::Symbol(text) = self {
            return Some(text);
        }
        None
    }

    /// Nothing where it is no binary.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        if let Self::Binary(bytes) = self {
            return bytes;
        }
        &[]
    }

    /// The first field of a composite value.
    pub(crate) fn first(&self) -> Option<&Self> {
        let Self::Described(_, value) = self else {
            return None;
        };
        let Self::List(values) = &**value else {
            return None;
        };
        values.first()
    }

    /// What a map says in words, under words.
    pub(crate) fn texts(&self) -> Vec<(String, String)> {
        let Self::Map(pairs) = self else {
            return Vec::new();
        };
        let text = |pair: &[Self]| {
            let [key, value] = pair else { return None };
            Some((key.text()?.to_owned(), value.text()?.to_owned()))
        };
        pairs.chunks_exact(2).filter_map(text).collect()
    }

    pub(crate) fn bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self {
            return Some(*value);
        }
        None
    }

    /// An unsigned number, however wide it was written.
    pub(crate) fn number(&self) -> Option<u64> {
        Some(if let Self::Ubyte(value) = self {
            (*value).into()
        } else if let Self::Ushort(value) = self {
            (*value).into()
        } else if let Self::Uint(value) = self {
            (*value).into()
        } else if let Self::Ulong(value) = self {
            *value
        } else {
            return None;
        })
    }

    /// A number of 32 bits.
    pub(crate) fn uint(&self) -> Option<u32> {
        self.number().and_then(|number| u32::try_from(number).ok())
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.push(0x40),
            Self::Bool(true) => out.push(0x41),
            Self::Bool(false) => out.push(0x42),
            Self::Ubyte(value) => out.extend([0x50, *value]),
            Self::Ushort(value) => tagged(out, 0x60, &value.to_be_bytes()),
            Self::Uint(value) => tagged(out, 0x70, &value.to_be_bytes()),
            Self::Ulong(value) => tagged(out, 0x80, &value.to_be_bytes()),
            Self::Int(value) => tagged(out, 0x71, &value.to_be_bytes()),
            Self::Fixed(code, bytes) => tagged(out, *code, bytes),
            Self::Binary(bytes) => variable(out, 0xa0, bytes),
            Self::Str(text) => variable(out, 0xa1, text.as_bytes()),
            Self::Symbol(text) => variable(out, 0xa3, text.as_bytes()),
            Self::List(values) => compound(out, 0xd0, values),
            Self::Map(values) => compound(out, 0xd1, values),
            Self::Array(values) => array(out, values),
            Self::Described(descriptor, value) => {
                out.push(0);
                match u8::try_from(*descriptor) {
                    Ok(small) => out.extend([0x53, small]),
                    Err(_) => tagged(out, 0x80, &descriptor.to_be_bytes()),
                }
                value.write(out);
            }
            Self::Raw(bytes) => out.extend_from_slice(bytes),
        }
    }
}

fn tagged(out: &mut Vec<u8>, code: u8, bytes: &[u8]) {
    out.push(code);
    out.extend_from_slice(bytes);
}

/// `code` is that of a length of one byte; that of four bytes is 0x10 above.
fn variable(out: &mut Vec<u8>, code: u8, bytes: &[u8]) {
    if let Ok(length) = u8::try_from(bytes.len()) {
        out.extend([code, length]);
    } else {
        out.push(code + 0x10);
        out.extend(size(bytes.len()));
    }
    out.extend_from_slice(bytes);
}

fn compound(out: &mut Vec<u8>, code: u8, values: &[Value<'_>]) {
    out.push(code);
    let at = out.len();
    out.extend([0; 4]);
    out.extend(size(values.len()));
    for value in values {
        value.write(out);
    }
    let length = size(out.len() - at - 4);
    out.splice(at..at + 4, length);
}

/// Only symbols are ever sent in arrays.
fn array(out: &mut Vec<u8>, values: &[Value<'_>]) {
    let texts: Vec<&[u8]> = values
        .iter()
        .filter_map(|value| value.text().map(str::as_bytes))
        .collect();
    let length: usize = texts.iter().map(|text| text.len() + 4).sum();
    out.push(0xf0);
    out.extend(size(length + 5));
    out.extend(size(texts.len()));
    out.push(0xb3);
    for text in texts {
        out.extend(size(text.len()));
        out.extend_from_slice(text);
    }
}

/// What we send is far below four gigabytes.
fn size(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

/// Reads values one after the other.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    values: u32,
    depth: u32,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            values: VALUES,
            depth: DEPTH,
        }
    }

    /// What is not read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    pub(crate) fn value(&mut self) -> Result<Value<'a>, Malformed> {
        let [code] = self.take_array()?;
        self.of(code)
    }

    /// A described value whose descriptor is a number, and the bytes of the fields of its list.
    pub(crate) fn composite(&mut self) -> Result<(u64, Fields<'a>), Malformed> {
        let before = self.bytes;
        let Value::Described(descriptor, value) = self.value()? else {
            return Err(Malformed);
        };
        let Value::List(values) = *value else {
            return Err(Malformed);
        };
        let used = before.len() - self.bytes.len();
        let bytes = before.get(..used).ok_or(Malformed)?;
        Ok((descriptor, Fields { values, bytes }))
    }

    fn of(&mut self, code: u8) -> Result<Value<'a>, Malformed> {
        self.values = self.values.checked_sub(1).ok_or(Malformed)?;
        Ok(match code {
            0x00 => self.described()?,
            0x40 => Value::Null,
            0x41 => Value::Bool(true),
            0x42 => Value::Bool(false),
            0x56 => match self.take_array()? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                _ => return Err(Malformed),
            },
            0x43 => Value::Uint(0),
            0x44 => Value::Ulong(0),
            0x45 => Value::List(Vec::new()),
            0x50 => Value::Ubyte(u8::from_be_bytes(self.take_array()?)),
            0x52 => Value::Uint(u8::from_be_bytes(self.take_array()?).into()),
            0x53 => Value::Ulong(u8::from_be_bytes(self.take_array()?).into()),
            0x54 => Value::Int(i8::from_be_bytes(self.take_array()?).into()),
            0x60 => Value::Ushort(u16::from_be_bytes(self.take_array()?)),
            0x70 => Value::Uint(u32::from_be_bytes(self.take_array()?)),
            0x71 => Value::Int(i32::from_be_bytes(self.take_array()?)),
            0x80 => Value::Ulong(u64::from_be_bytes(self.take_array()?)),
            0x51 | 0x55 => Value::Fixed(code, self.take(1)?),
            0x61 => Value::Fixed(code, self.take(2)?),
            0x72..=0x74 => Value::Fixed(code, self.take(4)?),
            0x81..=0x84 => Value::Fixed(code, self.take(8)?),
            0x94 | 0x98 => Value::Fixed(code, self.take(16)?),
            0xa0 | 0xb0 => Value::Binary(self.variable(code)?),
            0xa1 | 0xb1 => Value::Str(text(self.variable(code)?)?),
            0xa3 | 0xb3 => Value::Symbol(text(self.variable(code)?)?),
            0xc0 | 0xd0 => Value::List(self.nested(code, Self::items)?),
            0xc1 | 0xd1 => {
                let items = self.nested(code, Self::items)?;
                if items.len() % 2 != 0 {
                    return Err(Malformed);
                }
                Value::Map(items)
            }
            0xe0 | 0xf0 => Value::Array(self.nested(code, Self::elements)?),
            _ => return Err(Malformed),
        })
    }

    fn described(&mut self) -> Result<Value<'a>, Malformed> {
        let mut inner = self.deeper(self.bytes)?;
        let descriptor = inner.value()?;
        let value = inner.value()?;
        self.bytes = inner.bytes;
        self.values = inner.values;
        // In words, it is a filter or the like, which is only echoed.
        let descriptor = match (descriptor.number(), descriptor.text()) {
            (Some(number), _) => number,
            (None, Some(_)) => IN_WORDS,
            (None, None) => return Err(Malformed),
        };
        Ok(Value::Described(descriptor, Box::new(value)))
    }

    /// A list, a map or an array: its size, its count, and what `read` makes of the rest.
    fn nested(
        &mut self,
        code: u8,
        read: fn(&mut Self, u32) -> Result<Vec<Value<'a>>, Malformed>,
    ) -> Result<Vec<Value<'a>>, Malformed> {
        let bytes = self.variable(code)?;
        let mut inner = self.deeper(bytes)?;
        let count = if code & 0x10 == 0 {
            u8::from_be_bytes(inner.take_array()?).into()
        } else {
            u32::from_be_bytes(inner.take_array()?)
        };
        if count > inner.values {
            return Err(Malformed);
        }
        let values = read(&mut inner, count)?;
        self.values = inner.values;
        if inner.bytes.is_empty() {
            return Ok(values);
        }
        Err(Malformed)
    }

    fn items(&mut self, count: u32) -> Result<Vec<Value<'a>>, Malformed> {
        (0..count).map(|_| self.value()).collect()
    }

    /// Elements share one constructor, which may be missing where there are none. Described ones
    /// occur nowhere here.
    fn elements(&mut self, count: u32) -> Result<Vec<Value<'a>>, Malformed> {
        if count == 0 {
            self.bytes = &[];
            return Ok(Vec::new());
        }
        let [code] = self.take_array()?;
        if code == 0 {
            return Err(Malformed);
        }
        (0..count).map(|_| self.of(code)).collect()
    }

    fn deeper(&self, bytes: &'a [u8]) -> Result<Self, Malformed> {
        Ok(Self {
            bytes,
            values: self.values,
            depth: self.depth.checked_sub(1).ok_or(Malformed)?,
        })
    }

    /// Codes with 0x10 have a length of four bytes, the others one of one byte.
    fn variable(&mut self, code: u8) -> Result<&'a [u8], Malformed> {
        let length = if code & 0x10 == 0 {
            u8::from_be_bytes(self.take_array()?).into()
        } else {
            u32::from_be_bytes(self.take_array()?)
        };
        self.take(usize::try_from(length).map_err(|_| Malformed)?)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(Malformed)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }
}

fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed)
}

/// The fields of a composite type. One that is missing is null.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    values: Vec<Value<'a>>,
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn get(&self, index: usize) -> &Value<'a> {
        self.values.get(index).unwrap_or(&Value::Null)
    }

    /// A field as it was written, to be echoed. Null where it is missing.
    pub(crate) fn raw(&self, index: usize) -> &'a [u8] {
        self.find(index).unwrap_or(&[0x40])
    }

    fn find(&self, index: usize) -> Option<&'a [u8]> {
        self.values.get(index)?;
        let mut reader = Reader::new(self.bytes);
        // The constructor of the described type, the descriptor, the head of the list.
        let [0] = reader.take_array().ok()? else {
            return None;
        };
        reader.value().ok()?;
        let [code] = reader.take_array().ok()?;
        reader.take(if code & 0x10 == 0 { 2 } else { 8 }).ok()?;
        for _ in 0..index {
            reader.value().ok()?;
        }
        let from = reader.bytes;
        reader.value().ok()?;
        from.get(..from.len() - reader.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: &Value<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        value.write(&mut out);
        out
    }

    #[test]
    fn what_is_written_is_read_again() {
        let long = "x".repeat(300);
        let value = Value::List(vec![
            Value::Null,
            Value::Bool(true),
            Value::Bool(false),
            Value::Ubyte(7),
            Value::Ushort(700),
            Value::Uint(70_000),
            Value::Ulong(1 << 40),
            Value::Int(-3),
            Value::Fixed(0x83, &[0, 1, 2, 3, 4, 5, 6, 7]),
            Value::Binary(&[1, 2]),
            Value::Str(&long),
            Value::Symbol("amqp:not-found"),
            Value::Map(vec![Value::Symbol("a"), Value::List(vec![])]),
            Value::Array(vec![Value::Symbol("PLAIN"), Value::Symbol("TPM")]),
            Value::Described(0x24, Box::new(Value::List(vec![]))),
        ]);
        let bytes = written(&value);
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.value().unwrap(), value);
        assert!(reader.rest().is_empty());
    }

    #[test]
    fn every_way_of_writing_a_number_is_understood() {
        for (bytes, number) in [
            (&[0x43][..], 0),
            (&[0x44], 0),
            (&[0x50, 9], 9),
            (&[0x52, 9], 9),
            (&[0x53, 9], 9),
            (&[0x60, 1, 0], 256),
            (&[0x70, 0, 1, 0, 0], 65_536),
            (&[0x80, 0, 0, 0, 1, 0, 0, 0, 0], 1 << 32),
        ] {
            assert_eq!(Reader::new(bytes).value().unwrap().number(), Some(number));
        }
    }

    #[test]
    fn a_field_is_found_as_it_was_written() {
        for head in [&[0xc0, 11, 3][..], &[0xd0, 0, 0, 0, 14, 0, 0, 0, 3]] {
            let fields = [0xa1, 1, b'n', 0x43, 0xa3, 4, b'a', b'b', b'c', b'd'];
            let bytes = [&[0, 0x53, 0x12][..], head, &fields].concat();
            let (descriptor, fields) = Reader::new(&bytes).composite().unwrap();
            assert_eq!(descriptor, 0x12);
            assert_eq!(fields.raw(0), [0xa1, 1, b'n']);
            assert_eq!(fields.raw(1), [0x43]);
            assert_eq!(fields.raw(2), [0xa3, 4, b'a', b'b', b'c', b'd']);
            assert_eq!(fields.raw(3), [0x40]);
            assert_eq!(fields.get(2).text(), Some("abcd"));
        }
    }

    #[test]
    fn odd_but_harmless_values_are_read() {
        let filter = [&[0, 0xa3, 1, b'f', 0xa1, 1, b'x'][..], &[0x41]].concat();
        let mut reader = Reader::new(&filter);
        let expected = Value::Described(IN_WORDS, Box::new(Value::Str("x")));
        assert_eq!(reader.value(), Ok(expected));
        assert_eq!(reader.rest(), [0x41]);
        for empty in [&[0xe0, 1, 0][..], &[0xe0, 2, 0, 0xa3]] {
            assert_eq!(Reader::new(empty).value(), Ok(Value::Array(vec![])));
        }
    }

    #[test]
    fn bombs_and_cuts_are_refused() {
        let nulls = [0xf0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0x40];
        let empty_lists = [0xf0, 0, 0, 0, 5, 0, 1, 0, 0, 0x45];
        let nested = [0xc0, 1, 1].repeat(100);
        let described = [0; 100];
        let too_long = [0xb1, 0xff, 0xff, 0xff, 0xff, b'x'];
        let trailing = [0xc0, 3, 1, 0x40, 0x40];
        let odd = [0xc1, 2, 1, 0x40];
        let no_utf8 = [0xa1, 1, 0xff];
        for bytes in [
            &nulls[..],
            &empty_lists,
            &nested,
            &described,
            &too_long,
            &trailing,
            &odd,
            &no_utf8,
            &[],
            &[0x99],
            &[0x70, 0, 0],
        ] {
            assert_eq!(Reader::new(bytes).value(), Err(Malformed), "{bytes:x?}");
        }
    }

    #[test]
    fn noise_is_never_a_panic() {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        for _ in 0..50_000 {
            let noise: Vec<u8> = (0..48)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state.to_le_bytes()[5]
                })
                .collect();
            let framed = [&[0, 0x53, 0x12, 0xc0, 47, 4][..], &noise].concat();
            for bytes in [&noise, &framed] {
                if let Ok((_, fields)) = Reader::new(bytes).composite() {
                    for index in 0..6 {
                        let _ = fields.raw(index);
                    }
                }
            }
        }
    }
}
