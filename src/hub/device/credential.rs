//! Whether what a client shows proves that it is the device or module that it says it is. MQTT and
//! HTTPS ask the same question.

use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;

use crate::domain::sas::SasToken;
use crate::hub::certificates::match_thumbprints;
use crate::hub::client::Client;
use crate::hub::identity::Authentication;
use crate::hub::policy::Permission;
use crate::hub::record::Party;
use crate::hub::{Hub, scope};

/// The certificates of a TLS connection's client, leaf first.
#[derive(Clone, Debug, Default)]
pub(in crate::hub) struct ClientCertificates(Arc<[CertificateDer<'static>]>);

impl From<Arc<[CertificateDer<'static>]>> for ClientCertificates {
    fn from(chain: Arc<[CertificateDer<'static>]>) -> Self {
        Self(chain)
    }
}

/// What a client shows.
pub(in crate::hub) enum Proof {
    Token(SasToken),
    Certificates(ClientCertificates),
}

impl Proof {
    /// A token where there is one, even a bad one; else the certificates. `None` where a token
    /// cannot be read.
    pub(in crate::hub) fn of(
        token: Option<&[u8]>,
        certificates: &ClientCertificates,
    ) -> Option<Self> {
        match token.filter(|token| !token.is_empty()) {
            None => Some(Self::Certificates(certificates.clone())),
            Some(token) => {
                let text = std::str::from_utf8(token).ok()?;
                SasToken::parse(text).ok().map(Self::Token)
            }
        }
    }

    /// How long it speaks for the client from now; `None` where it does not.
    pub(in crate::hub) fn speaks_for(
        &self,
        hub: &Hub,
        client: &Client,
        party: &Party<'_>,
    ) -> Option<Duration> {
        let left = match self {
            Self::Token(token) => token_counts(hub, client, party, token)?,
            Self::Certificates(chain) => {
                let now = hub.now();
                let until = match party.authentication {
                    Authentication::Sas(_) => None,
                    Authentication::SelfSigned { primary, secondary } => {
                        let known = [primary.as_deref(), secondary.as_deref()];
                        match_thumbprints(&chain.0, known, now)
                    }
                    Authentication::CertificateAuthority => {
                        hub.authorities.load().vouch(&chain.0, client, now)
                    }
                };
                let left = until?.saturating_sub(now.as_second());
                Duration::from_secs(u64::try_from(left).ok()?)
            }
        };
        party.enabled.then_some(left)
    }
}

fn token_counts(
    hub: &Hub,
    client: &Client,
    party: &Party<'_>,
    token: &SasToken,
) -> Option<Duration> {
    let is_signed = match (token.key_name(), party.authentication) {
        (Some(name), _) => hub.policies.load().find(name).is_some_and(|policy| {
            policy.permissions.contains(&Permission::DeviceConnect)
                && policy.keys.have_signed(token)
        }),
        (None, Authentication::Sas(keys)) => keys.have_signed(token),
        (None, Authentication::SelfSigned { .. } | Authentication::CertificateAuthority) => false,
    };
    let covers = scope::covers(token, hub.host_name(), &client.resource());
    let left = scope::remaining(token, hub.now());
    left.filter(|_| is_signed && covers)
}
