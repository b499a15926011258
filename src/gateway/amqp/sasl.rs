//! What a client says of itself before it opens the connection (SASL). Pure: what it said is judged
//! later, with each request.
//!
//! | mechanism | from whom | proof |
//! |---|---|---|
//! | `PLAIN` | devices with a symmetric key | a shared access signature in place of the password |
//! | `TPM` | devices with a TPM | a token signed by the key that a challenge brought into the TPM |
//! | `EXTERNAL`, `ANONYMOUS` | generic clients | the certificate of the TLS connection, if any |
//! | none | devices with a certificate | the certificate of the TLS connection |

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::address::{Names, names};
use crate::gateway::body::TpmKeys;
use crate::wire::amqp::SaslInit;

/// Offered to every client.
pub(super) const MECHANISMS: &[&str] = &["PLAIN", "EXTERNAL", "ANONYMOUS", "TPM"];

/// Before what is no segment of a challenge.
const CONTROL: u8 = 0x00;
/// Before the first segment of a challenge: number 0.
const FIRST_SEGMENT: u8 = 0x80;
/// Before the last one: number 1.
const LAST_SEGMENT: u8 = 0xC1;

/// What a client said of itself.
#[derive(Clone, Default)]
pub(super) struct Proof {
    /// Who it is; unsaid where the certificate says it.
    pub(super) names: Option<Names>,
    /// A shared access signature.
    pub(super) token: Option<Arc<str>>,
    /// Of a TPM, in base64.
    pub(super) storage_root_key: Option<Arc<str>>,
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proof")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

/// What follows what a client said.
#[derive(Debug)]
pub(super) enum Step {
    /// It is asked for more, which [`Exchange::respond`] takes.
    Challenge(Vec<u8>, Exchange),
    /// A TPM wants a challenge, with which [`Exchange::send`] goes on.
    Seal(Names, TpmKeys),
    Done(Proof),
    Refused(&'static str),
}

/// An authentication that takes more than one step: where it stands.
#[derive(Debug)]
pub(super) enum Exchange {
    /// A client that chose `PLAIN` has not said anything yet.
    Plain,
    /// A TPM has shown its endorsement key and is asked for its storage root key.
    Endorsed {
        names: Names,
        endorsement_key: String,
    },
    /// The first half of a challenge is on its way to a TPM; this is the second.
    Half {
        names: Names,
        storage_root_key: Arc<str>,
        rest: Vec<u8>,
    },
    /// The whole challenge is; a token comes next.
    Whole {
        names: Names,
        storage_root_key: Arc<str>,
    },
}

impl Exchange {
    /// The first step.
    pub(super) fn begin(init: &SaslInit, has_certificate: bool) -> Step {
        match init.mechanism.as_str() {
            "PLAIN" if init.response.is_empty() => Step::Challenge(Vec::new(), Self::Plain),
            "PLAIN" => plain(&init.response),
            "TPM" => endorsement(&init.response),
            "EXTERNAL" if !has_certificate => {
                Step::Refused("EXTERNAL without a client certificate")
            }
            "EXTERNAL" | "ANONYMOUS" => Step::Done(Proof::default()),
            _ => Step::Refused("a mechanism that was not offered"),
        }
    }

    /// Sends a challenge to a TPM, in two segments: the Java SDK takes no other number.
    pub(super) fn send(names: Names, keys: &TpmKeys, mut challenge: Vec<u8>) -> Step {
        let rest = challenge.split_off(challenge.len() / 2);
        let half = Self::Half {
            names,
            storage_root_key: Arc::from(keys.storage_root_key.as_str()),
            rest,
        };
        Step::Challenge([&[FIRST_SEGMENT][..], &challenge].concat(), half)
    }

    /// The next step.
    pub(super) fn respond(self, response: &[u8]) -> Step {
        match self {
            Self::Plain => plain(response),
            Self::Endorsed {
                names,
                endorsement_key,
            } => match response.strip_prefix(&[CONTROL]) {
                Some(key) => {
                    let storage_root_key = STANDARD.encode(key);
                    let keys = TpmKeys {
                        endorsement_key,
                        storage_root_key,
                    };
                    Step::Seal(names, keys)
                }
                None => Step::Refused("a TPM's storage root key has a zero before it"),
            },
            Self::Half {
                names,
                storage_root_key,
                rest,
            } => {
                let whole = Self::Whole {
                    names,
                    storage_root_key,
                };
                Step::Challenge([&[LAST_SEGMENT][..], &rest].concat(), whole)
            }
            Self::Whole {
                names,
                storage_root_key,
            } => {
                let token = response.strip_prefix(&[CONTROL]);
                match token.and_then(|token| std::str::from_utf8(token).ok()) {
                    Some(token) if !token.is_empty() => Step::Done(Proof {
                        names: Some(names),
                        token: Some(Arc::from(token)),
                        storage_root_key: Some(storage_root_key),
                    }),
                    _ => Step::Refused("a TPM's token has a zero before it"),
                }
            }
        }
    }
}

/// `NUL ID scope NUL registration id NUL endorsement key`.
fn endorsement(response: &[u8]) -> Step {
    let mut parts = response.splitn(4, |byte| *byte == 0);
    let (Some([]), Some(scope), Some(id), Some(key)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Step::Refused(
            "TPM needs the ID scope, the registration id and the endorsement key",
        );
    };
    let text = |bytes| std::str::from_utf8(bytes).ok();
    let scope = text(scope).and_then(|scope| scope.parse().ok());
    let id = text(id).and_then(|id| id.parse().ok());
    let Some(names) = scope.zip(id) else {
        return Step::Refused("TPM with an ID scope or a registration id that is none");
    };
    let endorsement_key = STANDARD.encode(key);
    let exchange = Exchange::Endorsed {
        names,
        endorsement_key,
    };
    Step::Challenge(vec![CONTROL], exchange)
}

/// `authorization NUL user name NUL password`.
fn plain(response: &[u8]) -> Step {
    let unreadable =
        "PLAIN needs the user name {idScope}/registrations/{registrationId} and a token";
    let mut parts = response.splitn(3, |byte| *byte == 0);
    let mut text = || std::str::from_utf8(parts.next()?).ok();
    let (Some(_), Some(user), Some(token)) = (text(), text(), text()) else {
        return Step::Refused(unreadable);
    };
    let Some(names) = names(user).filter(|_| !token.is_empty()) else {
        return Step::Refused(unreadable);
    };
    Step::Done(Proof {
        names: Some(names),
        token: Some(Arc::from(token)),
        storage_root_key: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn init(mechanism: &str, response: &[u8]) -> SaslInit {
        SaslInit {
            mechanism: mechanism.to_owned(),
            response: response.to_vec(),
            hostname: None,
        }
    }

    const SAID: &[u8] = b"\0s/registrations/device-001\0SharedAccessSignature sr=s&sig=x&se=1";

    #[test]
    fn plain_carries_names_and_token_at_once_or_when_asked() {
        let Step::Challenge(empty, exchange) = Exchange::begin(&init("PLAIN", b""), false) else {
            panic!("a client that says nothing is asked");
        };
        assert!(empty.is_empty());
        for step in [
            exchange.respond(SAID),
            Exchange::begin(&init("PLAIN", SAID), false),
        ] {
            let Step::Done(proof) = step else {
                panic!("{step:?}");
            };
            assert_eq!(proof.names.unwrap().1.as_str(), "device-001");
            assert!(proof.token.unwrap().ends_with("se=1"));
        }
    }

    #[test]
    fn what_plain_cannot_mean_is_refused() {
        for said in [
            &b"\0"[..],
            b"\0\0",
            b"user",
            b"\0s/registrations/device-001",
            b"\0s/registrations/device-001\0",
            b"\0s/devices/device-001\0token",
            b"\0\xff\0token",
        ] {
            let step = Exchange::begin(&init("PLAIN", said), true);
            assert!(matches!(step, Step::Refused(_)), "{said:?}");
        }
    }

    #[test]
    fn a_certificate_needs_no_words() {
        let step = Exchange::begin(&init("EXTERNAL", b""), true);
        assert!(matches!(
            step,
            Step::Done(Proof {
                names: None,
                token: None,
                storage_root_key: None
            })
        ));
        let step = Exchange::begin(&init("EXTERNAL", b""), false);
        assert!(matches!(step, Step::Refused(_)));
        let step = Exchange::begin(&init("ANONYMOUS", b"trace"), false);
        assert!(matches!(step, Step::Done(_)));
        let step = Exchange::begin(&init("SCRAM-SHA-1", b""), true);
        assert!(matches!(step, Step::Refused(_)));
    }

    #[test]
    fn tokens_are_not_shown() {
        let step = Exchange::begin(&init("PLAIN", SAID), false);
        assert!(!format!("{step:?} {:?}", init("PLAIN", SAID)).contains("SharedAccess"));
    }
}
