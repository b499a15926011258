//! Messages of AMQP 1.0 (part 3 of the standard): what of them is used here. Pure.

use super::types::{Malformed, Reader, Value};

const HEADER: u64 = 0x70;
const PROPERTIES: u64 = 0x73;
const APPLICATION_PROPERTIES: u64 = 0x74;
const DATA: u64 = 0x75;
const FOOTER: u64 = 0x78;
/// Where the correlation id stands in the properties, and the content type.
const CORRELATION_ID: usize = 5;
/// Longest correlation id that is echoed: SDKs send a UUID.
const LONGEST_ID: usize = 256;

/// What a client sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// As it was written, for the answer; empty when there is none.
    pub correlation_id: Vec<u8>,
    /// The application properties that are text.
    pub properties: Vec<(String, String)>,
    /// The data sections. A body of values is noise to us and leaves this empty.
    pub body: Vec<u8>,
}

impl Message {
    /// Reads a whole message.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut message = Self::default();
        let mut bytes = bytes;
        while !bytes.is_empty() {
            // Each section has its own budget of values.
            let mut reader = Reader::new(bytes);
            let Value::Described(section, value) = reader.value()? else {
                return Err(Malformed);
            };
            let used = bytes.len() - reader.rest().len();
            match section {
                PROPERTIES => {
                    let (_, fields) = Reader::new(bytes).composite()?;
                    let id = fields.raw(CORRELATION_ID);
                    if *fields.get(CORRELATION_ID) != Value::Null && id.len() <= LONGEST_ID {
                        message.correlation_id = id.to_vec();
                    }
                }
                APPLICATION_PROPERTIES => message.properties = value.texts(),
                DATA => {
                    let Value::Binary(data) = *value else {
                        return Err(Malformed);
                    };
                    message.body.extend_from_slice(data);
                }
                HEADER..=FOOTER => {}
                _ => return Err(Malformed),
            }
            bytes = bytes.get(used..).unwrap_or_default();
        }
        Ok(message)
    }

    /// An application property.
    pub fn property(&self, name: &str) -> Option<&str> {
        let mut found = self.properties.iter().filter(|(key, _)| key == name);
        found.next().map(|(_, value)| value.as_str())
    }
}

/// What a client is sent: JSON in one data section, which every SDK reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Of the message that is answered.
    pub correlation_id: Vec<u8>,
    /// Application properties. SDKs take numbers of 32 bits with a sign.
    pub properties: Vec<(&'static str, i32)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub(super) fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut section = |code: u64, value: Value<'_>| {
            Value::Described(code, Box::new(value)).write(&mut out);
        };
        let id = if self.correlation_id.is_empty() {
            Value::Null
        } else {
            Value::Raw(&self.correlation_id)
        };
        let mut properties = vec![Value::Null; CORRELATION_ID];
        properties.extend([id, Value::Symbol("application/json")]);
        section(PROPERTIES, Value::List(properties));
        if !self.properties.is_empty() {
            let pairs = self
                .properties
                .iter()
                .flat_map(|(name, value)| [Value::Str(name), Value::Int(*value)]);
            section(APPLICATION_PROPERTIES, Value::Map(pairs.collect()));
        }
        section(DATA, Value::Binary(&self.body));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sections(sections: Vec<(u64, Value<'_>)>) -> Vec<u8> {
        let mut out = Vec::new();
        for (code, value) in sections {
            Value::Described(code, Box::new(value)).write(&mut out);
        }
        out
    }

    #[test]
    fn a_request_of_the_node_sdk_is_understood() {
        let bytes = sections(vec![
            (HEADER, Value::List(vec![])),
            (
                PROPERTIES,
                Value::List(vec![
                    Value::Null,
                    Value::Null,
                    Value::Null,
                    Value::Null,
                    Value::Null,
                    Value::Str("d0e1"),
                ]),
            ),
            (
                APPLICATION_PROPERTIES,
                Value::Map(vec![
                    Value::Str("iotdps-operation-type"),
                    Value::Str("iotdps-register"),
                    Value::Str("iotdps-forceRegistration"),
                    Value::Bool(false),
                ]),
            ),
            (DATA, Value::Binary(b"{}")),
        ]);
        let message = Message::read(&bytes).unwrap();
        assert_eq!(message.correlation_id, [0xa1, 4, b'd', b'0', b'e', b'1']);
        assert_eq!(
            message.property("iotdps-operation-type"),
            Some("iotdps-register")
        );
        assert_eq!(message.property("iotdps-forceRegistration"), None);
        assert_eq!(message.body, b"{}");
    }

    #[test]
    fn r04_bodies_that_are_values_or_absent_say_nothing() {
        for bytes in [
            sections(vec![]),
            sections(vec![(0x77, Value::Str("iotdps-register"))]),
            sections(vec![(0x77, Value::Str(""))]),
            sections(vec![(DATA, Value::Binary(b""))]),
        ] {
            let message = Message::read(&bytes).unwrap();
            assert_eq!((message.body, message.correlation_id), (vec![], vec![]));
        }
    }

    #[test]
    fn r22_a_reply_is_one_data_section_with_the_same_correlation_id() {
        for id in [
            vec![0xa1, 1, b'x'],
            [&[0x98][..], &[7; 16]].concat(),
            vec![0x53, 9],
            vec![],
        ] {
            let reply = Reply {
                correlation_id: id.clone(),
                properties: vec![("retry-after", 3), ("Retry-After", 3)],
                body: b"{\"status\":\"assigning\"}".to_vec(),
            };
            let bytes = reply.write();
            let read = Message::read(&bytes).unwrap();
            assert_eq!((read.correlation_id, read.body), (id, reply.body));
            let int = [0x71, 0, 0, 0, 3];
            let found = bytes.windows(5).filter(|window| **window == int).count();
            assert_eq!(found, 2, "both names, as numbers with a sign");
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for bytes in [
            sections(vec![(0x60, Value::Null)]),
            sections(vec![(DATA, Value::Str("text"))]),
            sections(vec![(PROPERTIES, Value::Null)]),
            vec![0x40],
            vec![0, 0x53],
        ] {
            assert_eq!(Message::read(&bytes), Err(Malformed));
        }
    }
}
