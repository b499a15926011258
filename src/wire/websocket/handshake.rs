//! The opening handshake (RFC 6455, section 4): a request in, a response or a refusal out. Pure.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};

/// Where devices ask for a WebSocket: most SDKs, .NET, and the MQTT of Java.
pub const PATHS: [&str; 3] = ["/$iothub/websocket", "/", "/mqtt"];

/// Appended to the client's key before it is hashed.
const MAGIC: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What is spoken over the WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subprotocol {
    Mqtt,
    Amqp,
}

impl Subprotocol {
    /// Its registered name. Clients write it as they like: the C SDK says `MQTT`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Amqp => "AMQPWSB10",
        }
    }
}

/// Why a request is not turned into a WebSocket; the text is for the device's developer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    #[error("a WebSocket is asked for with GET")]
    Method,
    #[error("the request lacks Connection: Upgrade, Upgrade: websocket or Sec-WebSocket-Key")]
    Incomplete,
    #[error("only version 13 of WebSocket is spoken here")]
    Version,
    #[error("Sec-WebSocket-Protocol names nothing that is spoken here; offer mqtt or AMQPWSB10")]
    Subprotocol,
}

/// Whether the request asks for a WebSocket at all.
pub fn is_wanted(headers: &HeaderMap) -> bool {
    names(headers, &UPGRADE).any(|name| name.eq_ignore_ascii_case("websocket"))
}

/// A handshake that can be completed.
#[derive(Debug)]
pub struct Handshake {
    pub subprotocol: Subprotocol,
    /// As the client spells it.
    spelling: HeaderValue,
    accept: HeaderValue,
}

impl Handshake {
    /// Reads a request. The first subprotocol that the client offers and `served` holds is spoken.
    /// The key is taken as it is: the one of the Java SDK has no fixed length.
    ///
    /// # Errors
    /// The request is no handshake, or offers nothing that is served.
    pub fn read(
        method: &Method,
        headers: &HeaderMap,
        served: &[Subprotocol],
    ) -> Result<Self, HandshakeError> {
        if method != Method::GET {
            return Err(HandshakeError::Method);
        }
        let upgrades = names(headers, &CONNECTION).any(|name| name.eq_ignore_ascii_case("upgrade"));
        let key = headers
            .get(SEC_WEBSOCKET_KEY)
            .filter(|_| upgrades && is_wanted(headers))
            .ok_or(HandshakeError::Incomplete)?;
        if headers
            .get(SEC_WEBSOCKET_VERSION)
            .map(HeaderValue::as_bytes)
            != Some(b"13")
        {
            return Err(HandshakeError::Version);
        }
        let (subprotocol, spelling) = names(headers, &SEC_WEBSOCKET_PROTOCOL)
            .find_map(|offered| {
                let spoken = served
                    .iter()
                    .find(|it| it.name().eq_ignore_ascii_case(offered))?;
                Some((*spoken, HeaderValue::from_str(offered).ok()?))
            })
            .ok_or(HandshakeError::Subprotocol)?;
        let accept = accept_of(key.as_bytes()).ok_or(HandshakeError::Incomplete)?;
        Ok(Self {
            subprotocol,
            spelling,
            accept,
        })
    }

    /// The answer that completes it.
    pub fn response(&self) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        // The Java SDK refuses a Connection whose raw value it does not expect: exactly this one.
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, self.accept.clone());
        headers.insert(SEC_WEBSOCKET_PROTOCOL, self.spelling.clone());
        response
    }
}

fn accept_of(key: &[u8]) -> Option<HeaderValue> {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key);
    context.update(MAGIC);
    HeaderValue::from_str(&STANDARD.encode(context.finish())).ok()
}

/// The names in a comma-separated header that may occur more than once.
fn names<'a>(headers: &'a HeaderMap, header: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(header)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &[Subprotocol] = &[Subprotocol::Mqtt, Subprotocol::Amqp];

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = lines.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        pairs.collect()
    }

    fn offering(subprotocols: &'static str) -> HeaderMap {
        headers(&[
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", subprotocols),
        ])
    }

    fn read(headers: &HeaderMap) -> Result<Handshake, HandshakeError> {
        Handshake::read(&Method::GET, headers, BOTH)
    }

    #[test]
    fn the_key_of_the_rfc_is_accepted_as_the_rfc_says() {
        let response = read(&offering("mqtt")).unwrap().response();
        assert_eq!(response.status(), 101);
        assert_eq!(
            response.headers()[SEC_WEBSOCKET_ACCEPT],
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        assert_eq!(response.headers()[UPGRADE], "websocket");
    }

    #[test]
    fn r19_subprotocols_are_known_in_any_spelling_which_comes_back() {
        for (offered, spoken, spelling) in [
            ("mqtt", Subprotocol::Mqtt, "mqtt"),
            ("MQTT", Subprotocol::Mqtt, "MQTT"),
            ("AMQPWSB10", Subprotocol::Amqp, "AMQPWSB10"),
            ("amqpwsb10", Subprotocol::Amqp, "amqpwsb10"),
            ("mqttv3.1, Mqtt", Subprotocol::Mqtt, "Mqtt"),
        ] {
            let handshake = read(&offering(offered)).unwrap();
            assert_eq!(handshake.subprotocol, spoken, "{offered}");
            let response = handshake.response();
            assert_eq!(response.headers()[SEC_WEBSOCKET_PROTOCOL], spelling);
        }
        let only_mqtt = &[Subprotocol::Mqtt];
        let refused = Handshake::read(&Method::GET, &offering("AMQPWSB10"), only_mqtt);
        assert_eq!(refused.unwrap_err(), HandshakeError::Subprotocol);
    }

    #[test]
    fn r19_the_key_of_the_java_sdk_is_taken_whatever_its_length() {
        for key in ["bXF0dDMtMTc5NTM4MTA4Mg==", "bXF0dDMtMQ==", "x"] {
            let mut request = offering("mqtt");
            request.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static(key));
            let response = read(&request).unwrap().response();
            // It compares the raw value, with its leading space, to "upgrade".
            assert_eq!(response.headers()[CONNECTION], "Upgrade", "{key}");
        }
    }

    #[test]
    fn extensions_are_declined() {
        let mut request = offering("mqtt");
        let deflate = HeaderValue::from_static("permessage-deflate; client_max_window_bits");
        request.insert("sec-websocket-extensions", deflate);
        let response = read(&request).unwrap().response();
        assert_eq!(response.headers().get("sec-websocket-extensions"), None);
    }

    #[test]
    fn what_is_no_handshake_is_told_so() {
        let without = |name: &str| {
            let mut request = offering("mqtt");
            request.remove(name);
            read(&request).unwrap_err()
        };
        assert_eq!(without("connection"), HandshakeError::Incomplete);
        assert_eq!(without("upgrade"), HandshakeError::Incomplete);
        assert_eq!(without("sec-websocket-key"), HandshakeError::Incomplete);
        assert_eq!(without("sec-websocket-version"), HandshakeError::Version);
        assert_eq!(
            without("sec-websocket-protocol"),
            HandshakeError::Subprotocol
        );
        let post = Handshake::read(&Method::POST, &offering("mqtt"), BOTH);
        assert_eq!(post.unwrap_err(), HandshakeError::Method);
        let browser = headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "chat"),
        ]);
        assert_eq!(read(&browser).unwrap_err(), HandshakeError::Subprotocol);
    }
}
