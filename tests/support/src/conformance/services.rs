//! The service side: back ends with official SDKs against a hub's service API.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rehome_testing::sdk::{Programs, Transport};

use super::expectation::Service;
use super::floor::Floor;
use super::life::HUBS;

const PATIENCE: Duration = Duration::from_mins(2);
/// What the devices answer.
const METHOD: &str = "identify";

/// The operations that did what they should, and how it ended if it did not end well.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Served {
    pub(crate) done: Vec<String>,
    pub(crate) error: Option<String>,
}

/// By the name of the SDK.
pub(crate) type Services = BTreeMap<String, Served>;

/// Every back end. What keeps one from running is how it ended.
pub(crate) async fn play(floor: &Floor<'_>, programs: &Programs) -> Services {
    let mut services = Services::new();
    for service in &floor.expectation.services {
        let served = run(floor, programs, service).await;
        let served = served.unwrap_or_else(|error| Served {
            done: Vec::new(),
            error: Some(format!("{error:#}")),
        });
        services.insert(service.name.clone(), served);
    }
    services
}

async fn run(floor: &Floor<'_>, programs: &Programs, service: &Service) -> Result<Served> {
    let hub = floor.hub(HUBS[1])?;
    let device = floor.field.answering(service)?;
    let told = device.register(floor.host()).await?;
    let told = told.map_err(|said| anyhow!("the device that answers: {said}"))?;
    ensure!(told["hub"] == hub.host(), "it was told {told}");
    let connected = device.connect(&hub.host(), Transport::Mqtt).await?;
    connected.map_err(|said| anyhow!("the device that answers: {said}"))?;
    device.answer(&hub.host(), METHOD).await?;
    let mut command = programs.back_end(&service.name, &floor.authority)?;
    command
        .arg(hub.connection_string())
        .arg(format!("served-by-{}", service.name))
        .arg(&device.registration_id)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output())
        .await
        .with_context(|| format!("{} has not ended within {PATIENCE:?}", service.name))??;
    device.close(&hub.host()).await?;
    let text = String::from_utf8_lossy(&output.stdout);
    let done = text.lines().filter_map(|line| line.strip_prefix("= "));
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Ok(Served {
        done: done.map(str::to_owned).collect(),
        error: (!output.status.success()).then_some(said),
    })
}

/// One line for each back end that did not do all that is expected of it.
pub(crate) fn differences(expected: &[Service], seen: &Services) -> Vec<String> {
    let line = |service: &Service| {
        let Some(served) = seen.get(&service.name) else {
            return Some(format!("service {}: it was not run", service.name));
        };
        let is_fine = served.error.is_none() && served.done == service.operations;
        (!is_fine).then(|| {
            format!(
                "service {}: expected {}; seen {}; {}",
                service.name,
                service.operations.join(", "),
                served.done.join(", "),
                served.error.as_deref().unwrap_or("it ended well")
            )
        })
    };
    expected.iter().filter_map(line).collect()
}
