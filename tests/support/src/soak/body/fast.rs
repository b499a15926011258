//! A device of the harness's own client, of which one process runs thousands.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rehome_testing::device::{
    Applicant, Protocol, Refused, Registrar, Session, Told, Trust, Unregistered,
};
use serde_json::{Value, json};

use super::{Body, Failure, Home, Kind};

/// What it speaks, whatever its credential.
pub(crate) const API_VERSION: &str = "2021-06-01";
/// Longest time for a hub to end a connection that it has to end.
const CUT_OFF: Duration = Duration::from_secs(20);

/// See [`Body`].
pub(crate) struct Fast {
    pub(crate) protocol: Protocol,
    pub(crate) proof: Proof,
    /// What it trusts; for a certificate, what presents it too.
    pub(crate) trust: Trust,
    /// Where hubs listen, by host name.
    pub(crate) hubs: Arc<BTreeMap<String, SocketAddr>>,
    pub(crate) session: Option<Session>,
}

/// How it proves who it is.
pub(crate) enum Proof {
    Key(Applicant),
    Certificate {
        scope: String,
        registration_id: String,
    },
}

impl Fast {
    fn session(&mut self) -> Result<&mut Session> {
        self.session.as_mut().context("it is not connected")
    }

    async fn ask(&self, at: &Registrar) -> Result<Told> {
        match &self.proof {
            Proof::Key(applicant) => at.register(applicant, self.protocol, None).await,
            Proof::Certificate {
                scope,
                registration_id,
            } => {
                let (protocol, trust) = (self.protocol, &self.trust);
                at.register_presenting_over(protocol, trust, scope, registration_id, API_VERSION)
                    .await
            }
        }
    }
}

impl Body for Fast {
    fn kind(&self) -> Kind {
        Kind {
            client: "fast client",
            protocol: match self.protocol {
                Protocol::Https => "https",
                Protocol::Mqtt => "mqtt",
                Protocol::Amqp => "amqp",
            },
        }
    }

    async fn register(&mut self, at: &Registrar) -> Result<Home, Failure> {
        let told = self.ask(at).await.map_err(|error| {
            let answered = error.downcast_ref::<Unregistered>().is_some()
                || error.downcast_ref::<Refused>().is_some();
            let why = format!("{error:#}");
            if answered {
                Failure::Refused(why)
            } else {
                Failure::Broken(why)
            }
        })?;
        if told.status != "assigned" {
            return Err(Failure::Refused(format!("it was told {told:?}")));
        }
        Ok(Home {
            hub: told.hub,
            device_id: told.device_id,
        })
    }

    async fn connect(&mut self, home: &Home) -> Result<()> {
        let Home { hub, device_id } = home;
        let address = self.hubs.get(hub);
        let address = *address.with_context(|| format!("it was told the hub {hub:?}"))?;
        let session = match &self.proof {
            Proof::Key(Applicant { key, .. }) => {
                Session::connect(hub, address, &self.trust, device_id, key).await?
            }
            Proof::Certificate { .. } => {
                Session::connect_presenting(hub, address, &self.trust, device_id).await?
            }
        };
        self.session = Some(session);
        Ok(())
    }

    async fn reported(&mut self) -> Result<Value> {
        Ok(self.session()?.twin().await?["reported"].take())
    }

    async fn report(&mut self, count: u64) -> Result<()> {
        self.session()?.report(&json!({ "count": count })).await
    }

    async fn send(&mut self) -> Result<()> {
        let message = json!({ "temperature": 21.5, "pressure": 1013 });
        self.session()?.send(&message).await
    }

    async fn stay(&mut self, time: Duration) -> bool {
        match &mut self.session {
            Some(session) => !session.is_ended(time).await,
            None => false,
        }
    }

    async fn is_cut_off(&mut self) -> bool {
        match self.session.take() {
            Some(mut session) => session.is_ended(CUT_OFF).await,
            None => true,
        }
    }

    async fn close(&mut self) {
        if let Some(session) = self.session.take() {
            // It may be over already.
            let _ = session.close().await;
        }
    }
}
