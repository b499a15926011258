//! The devices: who they are, and the processes of those with an official SDK.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use rehome_testing::Dice;
use rehome_testing::device::{Applicant, Protocol};
use rehome_testing::sdk::{self, Driver, Programs, Transport};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Size;
use super::body::{API_VERSION, Fast, KINDS, Proof, Sdk};
use super::ground::{Credential, GROUPS, Ground};
use super::life::{Account, Life};
use super::run::Run;

/// Devices of the fast client that appear in a second: well below what two processors can register
/// for the first time, who run the control plane and the devices too.
const APPEAR: u32 = 25;

/// The devices while they live.
pub(crate) struct Fleet {
    lives: JoinSet<Account>,
    /// Registration ids of the fast client's devices, by the number of their group.
    pub(crate) fast: Vec<Vec<String>>,
}

impl Fleet {
    /// Has every device come.
    pub(crate) fn start(
        ground: &Ground,
        programs: Option<&Programs>,
        run: &Arc<Run>,
        size: &Size,
    ) -> Result<Self> {
        let mut fleet = Self {
            lives: JoinSet::new(),
            fast: vec![Vec::new(); GROUPS],
        };
        if let Some(programs) = programs {
            for number in 0..size.sdk_processes {
                let (name, sdk) = sdk(ground, programs, number)?;
                let dice = Dice::of(size.seed, number as u64);
                let life = Life::new(sdk, &name, dice, run.clone());
                fleet.lives.spawn(life.lead());
            }
        }
        for number in 0..size.fast() {
            let (name, fast) = fast(ground, number)?;
            fleet.fast[number % GROUPS].push(name.clone());
            let dice = Dice::of(size.seed, (size.sdk_processes + number) as u64);
            let life = Life::new(fast, &name, dice, run.clone());
            let wait = Duration::from_secs(1) * u32::try_from(number)? / APPEAR;
            fleet.lives.spawn(async move {
                sleep(wait).await;
                life.lead().await
            });
        }
        Ok(fleet)
    }

    /// When all have stopped.
    pub(crate) async fn join(mut self) -> Result<Vec<Account>> {
        let mut accounts = Vec::new();
        while let Some(account) = self.lives.join_next().await {
            accounts.push(account?);
        }
        Ok(accounts)
    }
}

/// Every group has devices of every protocol.
fn fast(ground: &Ground, number: usize) -> Result<(String, Fast)> {
    let group = &ground.groups[number % GROUPS];
    let registration_id = format!("{}-{number}", group.name());
    let scope = ground.tenant.namespace.name().to_owned();
    let (proof, trust) = match group.credential(&registration_id)? {
        Credential::Key(key) => {
            let applicant = Applicant {
                scope,
                registration_id: registration_id.clone(),
                key,
                api_version: API_VERSION.to_owned(),
            };
            (Proof::Key(applicant), ground.trust().clone())
        }
        Credential::Certificate(issued) => {
            let proof = Proof::Certificate {
                scope,
                registration_id: registration_id.clone(),
            };
            let trust = ground.trust();
            (proof, trust.presenting(&issued.cert_pem, &issued.key_pem)?)
        }
    };
    let device = Fast {
        protocol: Protocol::ALL[number / GROUPS % Protocol::ALL.len()],
        proof,
        trust,
        hubs: ground.hubs.clone(),
        session: None,
    };
    Ok((registration_id, device))
}

/// What process number `number` has: its SDK, its transport, and the number of its group. Of five
/// processes of one SDK some have keys and some certificates.
fn kind(number: usize) -> (&'static str, Transport, usize) {
    let (client, transports) = KINDS[number % KINDS.len()];
    let turn = number / KINDS.len();
    let group = (number + turn) % GROUPS;
    (client, transports[turn % transports.len()], group)
}

fn sdk(ground: &Ground, programs: &Programs, number: usize) -> Result<(String, Sdk)> {
    let (client, transport, group) = kind(number);
    let group = &ground.groups[group];
    let registration_id = format!("{}-{client}-{number}", group.name());
    let credential = match group.credential(&registration_id)? {
        Credential::Key(key) => sdk::Credential::Key(key),
        Credential::Certificate(issued) => {
            let file = |what: &str| ground.directory.join(format!("{registration_id}.{what}"));
            let (chain, key) = (file("crt"), file("key"));
            std::fs::write(&chain, issued.cert_pem)?;
            std::fs::write(&key, issued.key_pem)?;
            sdk::Credential::Certificate { chain, key }
        }
    };
    let program = programs.devices(client, &ground.authority())?;
    let driver = Driver::start(&registration_id, program, &ground.directory)?;
    let device = sdk::Device {
        driver: Arc::new(driver),
        transport,
        registration_id: registration_id.clone(),
        id_scope: ground.tenant.namespace.name().to_owned(),
        credential,
    };
    let sdk = Sdk {
        client,
        device,
        hub: None,
    };
    Ok((registration_id, sdk))
}

#[cfg(test)]
mod tests {
    use super::super::ground::PLANTS;
    use super::*;

    #[test]
    fn twenty_processes_show_every_sdk_with_every_transport_keys_and_certificates() {
        let all: Vec<_> = (0..20).map(kind).collect();
        for (client, transports) in KINDS {
            let of: Vec<_> = all.iter().filter(|(it, _, _)| *it == client).collect();
            for transport in transports {
                assert!(
                    of.iter().any(|(_, it, _)| it == transport),
                    "{client}, {transport}"
                );
            }
            for has_certificate in [true, false] {
                let found = of
                    .iter()
                    .any(|(.., it)| PLANTS.contains(it) == has_certificate);
                assert!(found, "{client}, certificate: {has_certificate}");
            }
        }
    }
}
