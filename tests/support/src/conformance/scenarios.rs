//! What one device goes through in each scenario but the restart of the gateway.
//!
//! A scenario gives how it ended. An error means that something else happened than any table could
//! expect: the device was told another hub, a twin is not what it should be.

use anyhow::{Context, Result, anyhow, bail, ensure};
use rehome_testing::device::{Applicant, Protocol, Tpm, TpmApplicant};
use rehome_testing::sdk::{Answer, Credential, Device};
use rehome_testing::until;
use serde_json::{Value, json};

use super::expectation::Variant;
use super::floor::{Floor, MINUTE, member};
use super::life::{HUBS, Life};
use super::outcome::Seen;
use super::scenario::{Outcome, Scenario};

const WEST: &str = HUBS[0];
const EAST: &str = HUBS[1];
/// How often a device may be too slow for a scenario.
const CHANCES: usize = 4;

/// Before any Enrollment changes.
pub(crate) async fn before(
    floor: &Floor<'_>,
    variant: Variant<'_>,
    life: Life,
) -> Vec<(Scenario, Result<Seen>)> {
    match life {
        Life::Migrating => {
            let first = first(floor, variant).await;
            let unchanged = match &first {
                Ok(_) => unchanged(floor, variant).await,
                Err(_) => Err(anyhow!("there was no first registration")),
            };
            vec![(Scenario::First, first), (Scenario::Unchanged, unchanged)]
        }
        Life::Resetting => vec![(Scenario::Reset, reset(floor, variant).await)],
        Life::Staying => settled(floor, variant, life, Scenario::Never).await,
        Life::WithoutPolicy => settled(floor, variant, life, Scenario::Compatibility).await,
        Life::Disabled => {
            let seen = refused(floor, variant, Life::Disabled).await;
            vec![(Scenario::Disabled, seen)]
        }
        Life::Impostor => {
            let seen = refused(floor, variant, Life::Impostor).await;
            vec![(Scenario::WrongCredential, seen)]
        }
        Life::Throttled => vec![(Scenario::Throttled, throttled(floor, variant).await)],
        Life::Restarted => vec![],
    }
}

/// After the Enrollments of [`Life::MOVED`] have been given another hub.
pub(crate) async fn after(
    floor: &Floor<'_>,
    variant: Variant<'_>,
    life: Life,
) -> Option<(Scenario, Result<Seen>)> {
    match life {
        Life::Migrating => Some((Scenario::Move, moved(floor, variant).await)),
        Life::Staying => Some((Scenario::Never, stays(floor, variant).await)),
        Life::WithoutPolicy => Some((Scenario::Compatibility, goes(floor, variant).await)),
        Life::Resetting | Life::Disabled | Life::Impostor | Life::Throttled | Life::Restarted => {
            None
        }
    }
}

async fn first(floor: &Floor<'_>, variant: Variant<'_>) -> Result<Seen> {
    let device = floor.device(variant, Life::Migrating)?;
    let west = floor.hub(WEST)?;
    let told = told(device.register(floor.host()).await?)?;
    check(floor, &device, &told, WEST, "initialAssignment")?;
    let record = floor.record(&device.registration_id).await?;
    let version = member(&record, "/spec/request/apiVersion");
    let expected = &floor.sdk(variant)?.api_version;
    ensure!(version == expected, "it sent api-version {version}");
    let host = west.host();
    told_of_hub(connect(floor, variant, &device, &host).await?)?;
    let twin = device.twin(&host).await?;
    ensure!(twin["desired"]["interval"] == 60, "its twin is {twin}");
    device.report(&host, &json!({ "at": WEST })).await?;
    let seen = west.twin(&device.registration_id).await?;
    let seen = seen.context("the hub does not know it")?;
    ensure!(seen.reported["at"] == WEST, "the hub shows {seen:?}");
    Ok(Seen::of(Outcome::Ok))
}

async fn unchanged(floor: &Floor<'_>, variant: Variant<'_>) -> Result<Seen> {
    let device = floor.device(variant, Life::Migrating)?;
    let before = floor.record(&device.registration_id).await?;
    let told = told(device.register(floor.host()).await?)?;
    check(floor, &device, &told, WEST, "initialAssignment")?;
    let after = floor.record(&device.registration_id).await?;
    ensure!(
        before.metadata.resource_version == after.metadata.resource_version,
        "the registration was written: {} and then {}",
        before.data,
        after.data
    );
    Ok(Seen::of(Outcome::Ok))
}

async fn moved(floor: &Floor<'_>, variant: Variant<'_>) -> Result<Seen> {
    let device = floor.device(variant, Life::Migrating)?;
    let (west, east) = (floor.hub(WEST)?.host(), floor.hub(EAST)?.host());
    let told = told(device.register(floor.host()).await?)?;
    check(floor, &device, &told, EAST, "deviceDataMigrated")?;
    ensure!(
        device.lost(&west).await?,
        "its connection to the old hub lives"
    );
    let refused = connect(floor, variant, &device, &west).await?;
    ensure!(refused.is_err(), "the old hub takes it");
    told_of_hub(connect(floor, variant, &device, &east).await?)?;
    let twin = device.twin(&east).await?;
    ensure!(twin["reported"]["at"] == WEST, "its twin is {twin}");
    device.close(&east).await?;
    Ok(Seen::of(Outcome::Ok))
}

async fn reset(floor: &Floor<'_>, variant: Variant<'_>) -> Result<Seen> {
    let device = floor.device(variant, Life::Resetting)?;
    let west = floor.hub(WEST)?.host();
    let first = told(device.register(floor.host()).await?)?;
    check(floor, &device, &first, WEST, "initialAssignment")?;
    told_of_hub(connect(floor, variant, &device, &west).await?)?;
    device.report(&west, &json!({ "worn": true })).await?;
    // A repetition that comes at once is the same operation.
    let operation = async || {
        let record = floor.record(&device.registration_id).await?;
        anyhow::Ok(member(&record, "/spec/request/operationId").clone())
    };
    let before = operation().await?;
    let second = until(MINUTE, async || {
        let told = told(device.register(floor.host()).await?)?;
        ensure!(operation().await? != before, "no new operation");
        anyhow::Ok(told)
    });
    let second = second.await.map_err(or_silence)?;
    check(floor, &device, &second, WEST, "deviceDataReset")?;
    // Some SDKs have connected again by themselves, and some say so when they are closed.
    let _ = device.close(&west).await;
    told_of_hub(connect(floor, variant, &device, &west).await?)?;
    let twin = device.twin(&west).await?;
    ensure!(
        twin["reported"].get("worn").is_none() && twin["desired"]["interval"] == 60,
        "its twin is {twin}"
    );
    device.close(&west).await?;
    Ok(Seen::of(Outcome::Ok))
}

/// The first half of a scenario whose second half comes after the Enrollments change.
async fn settled(
    floor: &Floor<'_>,
    variant: Variant<'_>,
    life: Life,
    scenario: Scenario,
) -> Vec<(Scenario, Result<Seen>)> {
    let first = async {
        let device = floor.device(variant, life)?;
        let told = told(device.register(floor.host()).await?)?;
        check(floor, &device, &told, WEST, "initialAssignment")
    };
    match first.await {
        Ok(()) => vec![],
        Err(error) => vec![(scenario, Err(error))],
    }
}

async fn stays(floor: &Floor<'_>, variant: Variant<'_>) -> Result<Seen> {
    let device = floor.device(variant, Life::Staying)?;
    let told = told(device.register(floor.host()).await?)?;
    check(floor, &device, &told, WEST, "initialAssignment")?;
    Ok(Seen::of(Outcome::Ok))
}

async fn goes(floor: &Floor<'_>, variant: Variant<'_>) -> Result<Seen> {
    let device = floor.device(variant, Life::WithoutPolicy)?;
    let told = told(device.register(floor.host()).await?)?;
    if told["hub"] == floor.hub(WEST)?.host() {
        check(floor, &device, &told, WEST, "initialAssignment")?;
        return Ok(Seen::of(Outcome::Stays));
    }
    check(floor, &device, &told, EAST, "deviceDataMigrated")?;
    Ok(Seen::of(Outcome::Moves))
}

async fn refused(floor: &Floor<'_>, variant: Variant<'_>, life: Life) -> Result<Seen> {
    let mut device = floor.device(variant, life)?;
    if life == Life::Impostor {
        let id = &device.registration_id;
        device.credential = floor.field.credentials.of_impostor(variant, id)?;
    }
    match device.register(floor.host()).await? {
        Err(said) => Ok(Seen::failure(Outcome::Refused, said)),
        Ok(told) => bail!("it was told {told}"),
    }
}

async fn throttled(floor: &Floor<'_>, variant: Variant<'_>) -> Result<Seen> {
    let device = floor.device(variant, Life::Throttled)?;
    let token = match &device.credential {
        Credential::Tpm(tpm) => Some(sign_at_strict(floor, variant, &device, tpm.tpm()).await?),
        Credential::Key(_) | Credential::Certificate { .. } => None,
    };
    for _ in 0..CHANCES {
        // The harness's own client uses up what this device may ask.
        let used_up = until(MINUTE, async || {
            match ask_at_strict(floor, variant, &device, token.as_deref()).await {
                Err(error) if format!("{error:#}").contains("answered 429") => Ok(()),
                Err(error) => Err(error),
                Ok(()) => bail!("not throttled yet"),
            }
        });
        used_up.await.map_err(or_silence)?;
        let before = floor.refusals(&device.registration_id)?;
        let answer = device.register(&floor.strict.host).await?;
        let is_refused = floor.refusals(&device.registration_id)? > before;
        // One that took so long to ask that it may ask again has not met the scenario.
        if is_refused || answer.is_err() {
            return ends(floor, &device, &floor.strict.host, answer, WEST).await;
        }
    }
    bail!("it was never refused")
}

/// The same device as the harness's own client sees it.
async fn ask_at_strict(
    floor: &Floor<'_>,
    variant: Variant<'_>,
    device: &Device,
    token: Option<&str>,
) -> Result<()> {
    let version = &floor.sdk(variant)?.api_version;
    let (strict, id) = (&floor.strict, &device.registration_id);
    match &device.credential {
        Credential::Key(key) => {
            let applicant = Applicant {
                scope: device.id_scope.clone(),
                registration_id: id.clone(),
                key: key.clone(),
                api_version: version.clone(),
            };
            let asked = strict.register(&applicant, Protocol::Https, None).await;
            asked.map(drop)
        }
        Credential::Certificate { chain, key } => {
            let (chain, key) = (
                std::fs::read_to_string(chain)?,
                std::fs::read_to_string(key)?,
            );
            let trust = strict.trust.presenting(&chain, &key)?;
            let asked = strict.register_presenting(&trust, &device.id_scope, id, version);
            asked.await.map(drop)
        }
        Credential::Tpm(tpm) => {
            let applicant = as_applicant(floor, variant, device, tpm.tpm())?;
            let token = token.context("a device with a TPM has a token")?;
            applicant.register(strict, token).await.map(drop)
        }
    }
}

/// A token that the device's TPM signs, whose few sessions the SDK may need later.
async fn sign_at_strict(
    floor: &Floor<'_>,
    variant: Variant<'_>,
    device: &Device,
    tpm: &Tpm,
) -> Result<String> {
    let applicant = as_applicant(floor, variant, device, tpm)?;
    let key = applicant.challenge(&floor.strict).await?;
    applicant.token(&key)
}

fn as_applicant<'d>(
    floor: &Floor<'d>,
    variant: Variant<'_>,
    device: &'d Device,
    tpm: &'d Tpm,
) -> Result<TpmApplicant<'d>> {
    Ok(TpmApplicant {
        tpm,
        scope: &device.id_scope,
        registration_id: &device.registration_id,
        api_version: &floor.sdk(variant)?.api_version,
    })
}

/// Fine, or given up: then registering once more must succeed.
pub(crate) async fn ends(
    floor: &Floor<'_>,
    device: &Device,
    host: &str,
    answer: Answer,
    hub: &str,
) -> Result<Seen> {
    let said = match answer {
        Ok(told) => {
            check(floor, device, &told, hub, "initialAssignment")?;
            return Ok(Seen::of(Outcome::Ok));
        }
        Err(said) => said,
    };
    let again = until(MINUTE, async || told(device.register(host).await?));
    let again = again
        .await
        .map_err(or_silence)
        .with_context(|| format!("after {said}"))?;
    check(floor, device, &again, hub, "initialAssignment")?;
    Ok(Seen::failure(Outcome::GivesUp, said))
}

async fn connect(
    floor: &Floor<'_>,
    variant: Variant<'_>,
    device: &Device,
    hub: &str,
) -> Result<Answer> {
    let transport = floor.sdk(variant)?.at_hub(variant.transport);
    device.connect(hub, transport).await
}

fn told(answer: Answer) -> Result<Value> {
    answer.map_err(|said| anyhow!("the SDK says: {said}"))
}

fn told_of_hub(answer: Answer) -> Result<()> {
    let answer = answer.map_err(|said| anyhow!("the SDK says of the hub: {said}"))?;
    ensure!(answer["connected"] == true, "not connected: {answer}");
    Ok(())
}

/// What every device that is told a hub is told.
fn check(
    floor: &Floor<'_>,
    device: &Device,
    told: &Value,
    hub: &str,
    substatus: &str,
) -> Result<()> {
    let host = floor.host_of(hub)?;
    // SDKs of 2018 know no substatus.
    let says_so = told["substatus"].is_null() || told["substatus"] == substatus;
    ensure!(
        told["hub"] == host && told["device"] == *device.registration_id && says_so,
        "it was told {told} and not {hub} ({host}), {substatus}"
    );
    Ok(())
}

fn or_silence(last: Option<anyhow::Error>) -> anyhow::Error {
    last.unwrap_or_else(|| anyhow!("no answer"))
}
