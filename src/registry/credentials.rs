//! Service credentials of a hub: the connection string and the tokens signed with it.
//!
//! Follows Azure's page "Control access to IoT Hub with shared access signatures".

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use crate::domain::attestation::{InvalidKey, SymmetricKey};
use crate::domain::sas::SasToken;

/// How long a token is good for.
const TOKEN_LIFE: Duration = Duration::from_hours(1);
/// How long it is used: the rest covers clocks that differ, and the call.
const TOKEN_USE: Duration = Duration::from_mins(50);

/// The value of a hub's service connection string.
pub struct ConnectionString {
    host: String,
    policy: String,
    key: SymmetricKey,
}

/// Why a text is not a service connection string. Never quotes the text: it holds a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionStringError {
    /// A part is missing.
    #[error(
        "{0} is missing; expected HostName=…;SharedAccessKeyName=…;SharedAccessKey=…, as \
         `az iot hub connection-string show` or `rehome hub` prints it"
    )]
    Missing(&'static str),
    /// The string of a device, not of a service policy.
    #[error("it is a device's connection string; the operator needs a service policy's")]
    Device,
    /// The key is not one.
    #[error("SharedAccessKey is not usable: {0}")]
    Key(InvalidKey),
}

impl ConnectionString {
    /// Parses `HostName=…;SharedAccessKeyName=…;SharedAccessKey=…`, names in any case and order.
    pub fn parse(text: &str) -> Result<Self, ConnectionStringError> {
        let part = |name: &str| {
            text.trim()
                .split(';')
                .filter_map(|part| part.split_once('='))
                .find(|(key, _)| key.trim().eq_ignore_ascii_case(name))
                .map(|(_, value)| value.trim())
                .filter(|value| !value.is_empty())
        };
        if part("DeviceId").is_some() {
            return Err(ConnectionStringError::Device);
        }
        let needed = |name: &'static str| part(name).ok_or(ConnectionStringError::Missing(name));
        let key = needed("SharedAccessKey")?;
        Ok(Self {
            host: needed("HostName")?.to_ascii_lowercase(),
            policy: needed("SharedAccessKeyName")?.to_owned(),
            key: key.parse().map_err(ConnectionStringError::Key)?,
        })
    }

    /// Host name in lower case.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Name of the shared access policy.
    pub fn policy(&self) -> &str {
        &self.policy
    }

    /// A `SharedAccessSignature` over the whole hub that ends at `expiry`.
    fn sign(&self, expiry: Timestamp) -> String {
        let expiry = u64::try_from(expiry.as_second()).unwrap_or_default();
        SasToken::sign(&self.host, &self.key, expiry, Some(&self.policy))
    }
}

impl fmt::Debug for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionString")
            .field("host", &self.host)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// Signs tokens and reuses each until near its end.
pub(super) struct Tokens {
    credentials: ConnectionString,
    cached: Mutex<Option<Cached>>,
}

struct Cached {
    token: String,
    from: Timestamp,
    until: Timestamp,
}

impl Tokens {
    pub(super) fn new(credentials: ConnectionString) -> Self {
        Self {
            credentials,
            cached: Mutex::new(None),
        }
    }

    /// A token that is good at `now`; a clock that steps back makes a new one, too.
    pub(super) fn at(&self, now: Timestamp) -> String {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*cached
            && (known.from..known.until).contains(&now)
        {
            return known.token.clone();
        }
        let token = self.credentials.sign(now + TOKEN_LIFE);
        *cached = Some(Cached {
            token: token.clone(),
            from: now,
            until: now + TOKEN_USE,
        });
        token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "HostName=Hub-West.example.com;SharedAccessKeyName=iothubowner;SharedAccessKey=c2VjcmV0LXNlY3JldC1zZWNyZXQ=";

    #[test]
    fn a_token_is_what_the_documented_algorithm_gives() {
        let credentials = ConnectionString::parse(TEXT).unwrap();
        // printf 'hub-west.example.com\n1700000000' | openssl dgst -sha256 -hmac secret-secret-secret -binary | base64
        let expected = "SharedAccessSignature sr=hub-west.example.com&sig=38MzxNPon%2BSxCPvsZa7NU%2F6TJ9B3qXSERI%2Fvpkk%2BjDs%3D&se=1700000000&skn=iothubowner";
        let token = credentials.sign(Timestamp::from_second(1_700_000_000).unwrap());
        assert_eq!(token, expected);
    }

    #[test]
    fn a_token_is_reused_until_ten_minutes_before_its_end() {
        let tokens = Tokens::new(ConnectionString::parse(TEXT).unwrap());
        let start = Timestamp::from_second(1_700_000_000).unwrap();
        let first = tokens.at(start);
        assert_eq!(tokens.at(start + Duration::from_secs(2999)), first);
        let second = tokens.at(start + Duration::from_mins(50));
        assert_ne!(second, first);
        assert_ne!(tokens.at(start - Duration::from_secs(1)), second);
    }

    #[test]
    fn what_is_missing_is_named_and_the_key_is_not() {
        for (text, error) in [
            ("", ConnectionStringError::Missing("SharedAccessKey")),
            (
                "HostName=h;SharedAccessKey=c2VjcmV0LXNlY3JldC1zZWNyZXQ=",
                ConnectionStringError::Missing("SharedAccessKeyName"),
            ),
            (
                "SharedAccessKeyName=n;SharedAccessKey=c2VjcmV0LXNlY3JldC1zZWNyZXQ=",
                ConnectionStringError::Missing("HostName"),
            ),
            (
                "HostName=h;DeviceId=d;SharedAccessKey=c2VjcmV0LXNlY3JldC1zZWNyZXQ=",
                ConnectionStringError::Device,
            ),
            (
                "HostName=h;SharedAccessKeyName=n;SharedAccessKey=not-base64!",
                ConnectionStringError::Key(InvalidKey::NotBase64),
            ),
        ] {
            assert_eq!(ConnectionString::parse(text).unwrap_err(), error, "{text}");
        }
        let debug = format!("{:?}", ConnectionString::parse(TEXT).unwrap());
        assert!(!debug.contains("c2Vj") && debug.contains("iothubowner"));
    }
}
