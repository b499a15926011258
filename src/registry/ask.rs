//! What is asked of a hub, before it is signed.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::Call;
use super::pacing::OpClass;

/// What a path segment leaves as it is.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// One request, before it is signed.
pub(super) struct Ask<'a> {
    pub(super) call: Call,
    pub(super) class: OpClass,
    pub(super) device: Option<&'a str>,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl<'a> Ask<'a> {
    pub(super) fn new(call: Call, class: OpClass, method: Method) -> Self {
        Self {
            call,
            class,
            device: None,
            method,
            path: String::new(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    pub(super) fn about(mut self, collection: &str, device_id: &'a str) -> Self {
        self.path = format!(
            "/{collection}/{}",
            utf8_percent_encode(device_id, UNRESERVED)
        );
        self.device = Some(device_id);
        self
    }

    /// One segment further.
    pub(super) fn within(mut self, segment: &str) -> Self {
        let segment = utf8_percent_encode(segment, UNRESERVED);
        self.path = format!("{}/{segment}", self.path);
        self
    }

    /// Sent in quotes, as every SDK does; an etag that no header can carry matches nothing.
    pub(super) fn if_match(mut self, etag: &str) -> Self {
        let value = HeaderValue::from_str(&format!("\"{etag}\""))
            .unwrap_or_else(|_| HeaderValue::from_static("\"\""));
        self.headers.insert(header::IF_MATCH, value);
        self
    }

    pub(super) fn with_json(mut self, body: &impl serde::Serialize) -> Self {
        // Maps with string keys and plain values always serialize.
        self.body = serde_json::to_vec(body).unwrap_or_default().into();
        let json = HeaderValue::from_static("application/json; charset=utf-8");
        self.headers.insert(header::CONTENT_TYPE, json);
        self
    }
}
