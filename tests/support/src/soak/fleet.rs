//! The devices: who they are, and the processes of those with an official SDK.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow, bail, ensure};
use rehome_testing::device::{Applicant, Protocol};
use rehome_testing::sdk::{self, Driver, Programs, Transport};
use rehome_testing::{Dice, until};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Size;
use super::body::{API_VERSION, CLIENTS, Fast, Proof, Sdk};
use super::ground::{Credential, GROUPS, Ground, PLANTS};
use super::life::{Account, Life};
use super::run::Run;

/// Devices of the fast client that appear in a second: well below what two processors can register
/// for the first time, who run the control plane and the devices too.
const APPEAR: u32 = 25;

/// Processes that start at a time: they are busy, and all else has to wait.
const STARTING: usize = 3;
/// Longest time for one of them to have a home.
const STARTS: Duration = Duration::from_mins(2);
/// Longest time for the last device to stop: SDKs end what they have begun.
const STOPS: Duration = Duration::from_mins(5);

/// The devices while they live.
pub(crate) struct Fleet {
    lives: JoinSet<Account>,
    /// All registration ids.
    names: BTreeSet<String>,
    /// Registration ids of the fast client's devices, by the number of their group.
    pub(crate) fast: Vec<Vec<String>>,
}

impl Fleet {
    /// Has every device come: the processes, then those of the fast client, which are still on their
    /// way when this is over.
    pub(crate) async fn start(
        ground: &Ground,
        programs: Option<&Programs>,
        run: &Arc<Run>,
        size: &Size,
    ) -> Result<Self> {
        let mut fleet = Self {
            lives: JoinSet::new(),
            names: BTreeSet::new(),
            fast: vec![Vec::new(); GROUPS],
        };
        if let Some(programs) = programs {
            for number in 0..size.sdk_processes {
                arrived(run, (number + 1).saturating_sub(STARTING)).await?;
                let (name, sdk) = sdk(ground, programs, number)?;
                let dice = Dice::of(size.seed, number as u64);
                let life = Life::new(sdk, &name, dice, run.clone());
                fleet.names.insert(name);
                fleet.lives.spawn(life.lead());
            }
            arrived(run, size.sdk_processes).await?;
        }
        for number in 0..size.fast() {
            let (name, fast) = fast(ground, number)?;
            fleet.fast[number % GROUPS].push(name.clone());
            let dice = Dice::of(size.seed, (size.sdk_processes + number) as u64);
            let life = Life::new(fast, &name, dice, run.clone());
            fleet.names.insert(name);
            let wait = Duration::from_secs(1) * u32::try_from(number)? / APPEAR;
            fleet.lives.spawn(async move {
                sleep(wait).await;
                life.lead().await
            });
        }
        Ok(fleet)
    }

    /// When all have stopped, as they were told to.
    pub(crate) async fn join(mut self) -> Result<Vec<Account>> {
        let mut accounts = Vec::new();
        let all = async {
            while let Some(account) = self.lives.join_next().await {
                accounts.push(account?);
            }
            anyhow::Ok(())
        };
        if let Ok(stopped) = timeout(STOPS, all).await {
            return stopped.map(|()| accounts);
        }
        for account in &accounts {
            self.names.remove(&account.registration_id);
        }
        let left: Vec<_> = self.names.iter().take(10).map(String::as_str).collect();
        let count = self.names.len();
        bail!(
            "{count} devices have not stopped after {STOPS:?}, such as {}",
            left.join(", ")
        )
    }
}

/// Waits until so many devices have a home.
async fn arrived(run: &Run, count: usize) -> Result<()> {
    let waited = until(STARTS, async || {
        let arrived = run.arrived();
        ensure!(arrived >= count, "{arrived} processes have a home");
        Ok(())
    });
    waited.await.map_err(|last| {
        let last = last.unwrap_or_else(|| anyhow!("no answer"));
        last.context(format!(
            "waited {STARTS:?} for number {count}, and saw\n{}",
            run.faults
        ))
    })
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

/// What process number `number` has: its SDK, its transport, and the number of its group. Of the
/// processes of one SDK, some have keys and some certificates, where it knows both.
fn kind(number: usize) -> (&'static str, Transport, usize) {
    let client = &CLIENTS[number % CLIENTS.len()];
    let turn = number / CLIENTS.len();
    let group = if client.knows_keys {
        (number + turn) % GROUPS
    } else {
        PLANTS[turn % PLANTS.len()]
    };
    let transport = client.transports[turn % client.transports.len()];
    (client.name, transport, group)
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
    use clap::Parser as _;

    use super::*;

    #[test]
    fn without_options_every_sdk_is_there_with_every_transport_keys_and_certificates() {
        let size = Size::parse_from(["soak"]);
        let all: Vec<_> = (0..size.sdk_processes).map(kind).collect();
        for client in CLIENTS {
            let name = client.name;
            let of: Vec<_> = all.iter().filter(|(it, _, _)| *it == name).collect();
            for transport in client.transports {
                let found = of.iter().any(|(_, it, _)| it == transport);
                assert!(found, "{name}, {transport}");
            }
            let has_key = of.iter().any(|(.., group)| !PLANTS.contains(group));
            let has_certificate = of.iter().any(|(.., group)| PLANTS.contains(group));
            assert_eq!(has_key, client.knows_keys, "{name}");
            assert!(has_certificate, "{name}");
        }
    }
}
