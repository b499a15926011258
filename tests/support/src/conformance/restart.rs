//! The gateway is killed and started again while operations are open.
//!
//! The hub that the devices are to live on is stopped (SIGSTOP), so that their operations stay open,
//! and goes on once the gateway is back. One SDK after the other: its devices poll in step, so the
//! gateway can be away between two polls. Those with a TPM, which have more to do before they ask, are in
//! step with each other only.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use futures::future::join_all;
use kube::api::{DeleteParams, DynamicObject};
use rehome_testing::installation::{Hub, Replica};
use rehome_testing::sdk::Answer;
use rehome_testing::{Signal, until};

use super::expectation::{Attestation, Sdk, Variant};
use super::floor::{Floor, MINUTE};
use super::life::{HUBS, Life};
use super::outcome::Seen;
use super::scenario::Scenario;
use super::scenarios::ends;

/// The hub that is stopped.
const SLOW: &str = HUBS[2];
/// How long after it was counted an answer is surely sent.
const SENT: Duration = Duration::from_millis(200);
/// A device that asked while nobody listened has not met the scenario: it gets another chance.
const CHANCES: usize = 4;

/// What is killed or stopped. No other scenario uses it, so that the others go on meanwhile.
pub(crate) struct Fragile {
    pub(crate) gateway: Replica,
    pub(crate) hub: Hub,
}

/// Every device of one SDK.
pub(crate) async fn play<'v>(
    floor: &Floor<'_>,
    fragile: &mut Fragile,
    sdk: &'v Sdk,
) -> Vec<((Variant<'v>, Scenario), Result<Seen>)> {
    let with_tpm = |variant: &Variant<'_>| variant.attestation == Attestation::Tpm;
    let (slower, others): (Vec<_>, Vec<_>) = sdk.variants().partition(with_tpm);
    let mut cells = Vec::new();
    for in_step in [others, slower] {
        cells.extend(play_in_step(floor, fragile, in_step).await);
    }
    cells
}

async fn play_in_step<'v>(
    floor: &Floor<'_>,
    fragile: &mut Fragile,
    mut open: Vec<Variant<'v>>,
) -> Vec<((Variant<'v>, Scenario), Result<Seen>)> {
    let mut cells = Vec::new();
    if open.is_empty() {
        return cells;
    }
    for chance in 1..=CHANCES {
        let answers = match fragile.round(floor, &open).await {
            Ok(answers) => answers,
            Err(error) => vec![Err(error.to_string()); open.len()],
        };
        let (again, met): (Vec<_>, Vec<_>) = open
            .into_iter()
            .zip(answers)
            .partition(|(_, answer)| chance < CHANCES && fell_into_the_gap(answer));
        let again: Vec<_> = again.into_iter().map(|(variant, _)| variant).collect();
        let judged = met.into_iter().map(async |(variant, answer)| {
            let seen = judge(floor, variant, answer).await;
            ((variant, Scenario::Restarted), seen)
        });
        cells.extend(join_all(judged).await);
        if again.is_empty() {
            break;
        }
        for variant in &again {
            if let Err(error) = forget(floor, *variant).await {
                cells.push(((*variant, Scenario::Restarted), Err(error)));
            }
        }
        open = again;
    }
    cells
}

impl Fragile {
    async fn round(&mut self, floor: &Floor<'_>, variants: &[Variant<'_>]) -> Result<Vec<Answer>> {
        ready(floor).await?;
        let host = self.gateway.registrar.host.clone();
        let mut devices = Vec::new();
        for &variant in variants {
            devices.push(floor.device(variant, Life::Restarted)?);
        }
        self.hub.process.signal(Signal::STOP)?;
        let registering = join_all(devices.iter().map(|device| device.register(&host)));
        let restarting = self.restart(floor, variants.len());
        let (answers, restarted) = tokio::join!(registering, restarting);
        // Whatever went wrong, the hub goes on.
        self.hub.process.signal(Signal::CONT)?;
        restarted?;
        answers.into_iter().collect()
    }

    /// Waits until every device has polled, and restarts the gateway before the next poll.
    async fn restart(&mut self, floor: &Floor<'_>, devices: usize) -> Result<()> {
        let polls = ["operation=\"poll\""];
        let before = self.gateway.answers(&polls).await?;
        let expected = before + u64::try_from(devices)?;
        let polled = until(MINUTE, async || {
            let seen = self.gateway.answers(&polls).await?;
            ensure!(seen >= expected, "{} polls", seen - before);
            anyhow::Ok(())
        });
        let polled = polled.await;
        // An answer is counted before it is sent, and sent after a pause.
        tokio::time::sleep(SENT).await;
        let outcome = match polled {
            Ok(()) => self.gateway.restart(&floor.installation).await,
            Err(last) => Err(last.unwrap_or_else(|| anyhow!("no answer"))).context("no polls"),
        };
        self.hub.process.signal(Signal::CONT)?;
        outcome
    }
}

/// Whether the device asked while the gateway was away, or was about to be answered when it went.
fn fell_into_the_gap(answer: &Answer) -> bool {
    let signs = [
        "ECONNREFUSED",
        "Connection refused",
        "NotConnectedError",
        "NoConnectionError",
        "socket hang up",
        "Connection closed",
        "Operation timed out before provisioning service could respond",
    ];
    let Err(said) = answer else { return false };
    signs.iter().any(|text| said.contains(text))
}

async fn judge(floor: &Floor<'_>, variant: Variant<'_>, answer: Answer) -> Result<Seen> {
    let device = floor.device(variant, Life::Restarted)?;
    ends(floor, &device, &floor.fragile.host, answer, SLOW).await
}

/// Waits until devices may be sent to the hub.
async fn ready(floor: &Floor<'_>) -> Result<()> {
    let hubs = floor.tenant.objects("IoTHub");
    let ready = until(MINUTE, async || {
        let hub = hubs.get(SLOW).await?;
        ensure!(is_ready(&hub), "{SLOW} is not ready");
        anyhow::Ok(())
    });
    ready
        .await
        .map_err(|last| last.unwrap_or_else(|| anyhow!("no answer")))
}

fn is_ready(hub: &DynamicObject) -> bool {
    let conditions = hub.data["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|one| one["type"] == "Ready" && one["status"] == "True")
}

/// Makes the device a new one again.
async fn forget(floor: &Floor<'_>, variant: Variant<'_>) -> Result<()> {
    let name = Life::Restarted.registration_id(variant);
    let records = floor.tenant.objects("DeviceRegistration");
    records.delete(&name, &DeleteParams::default()).await?;
    let gone = until(MINUTE, async || {
        ensure!(
            records.get_opt(&name).await?.is_none(),
            "{name} is still there"
        );
        anyhow::Ok(())
    });
    gone.await
        .map_err(|last| last.unwrap_or_else(|| anyhow!("no answer")))
}
