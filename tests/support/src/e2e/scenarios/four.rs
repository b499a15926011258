//! The four situations that reprovisioning was made for: the READMEs of `examples` are followed word
//! by word, and what is at the hubs afterwards is looked at.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::ground::{Ground, claim, claim_equal, eventually};
use crate::hub::Hub;
use crate::readme;

pub(crate) async fn geo(ground: &mut Ground) -> Result<()> {
    let blocks = readme::commands("examples/geo/README.md")?;
    let [set_up, in_europe, sold] = &blocks[..] else {
        anyhow::bail!("the README has {} blocks of commands", blocks.len());
    };
    ground.block(set_up).await?;
    ground.block(in_europe).await?;
    let (eu, us) = (
        ground.hub("geo", "hub-eu").await?,
        ground.hub("geo", "hub-us").await?,
    );
    reported(&eu, "truck-17", 0).await?;
    // What only the back end knows must come along too.
    eu.patch_twin(
        "truck-17",
        &json!({ "tags": { "owner": "Ada" }, "properties": { "desired": { "interval": 5 } } }),
    )
    .await?;
    ground.block(sold).await?;
    let twin = reported(&us, "truck-17", 1).await?;
    claim_equal(
        "tags, desired and reported properties are at hub-us, and the truck went on counting",
        &twin,
        &json!({
            "tags": { "fleet": "trucks", "owner": "Ada" },
            "desired": { "interval": 5 },
            "reported": { "firmware": "4.2", "moves": 1 },
        }),
    )?;
    gone(&eu, "truck-17").await?;
    forget(ground, &["geo"]).await
}

pub(crate) async fn multi_tenancy(ground: &mut Ground) -> Result<()> {
    ground.follow("examples/multi-tenancy/README.md").await?;
    let mut keys = Vec::new();
    for tenant in ["contoso", "fabrikam"] {
        let hub = ground.hub(tenant, "hub").await?;
        reported(&hub, "press-7", 0).await?;
        let identity = hub
            .identity("press-7")
            .await?
            .context("the identity of press-7")?;
        keys.push(identity["authentication"]["symmetricKey"]["primaryKey"].clone());
    }
    claim(
        "the two devices of the same name have keys of their own",
        keys[0] != keys[1],
    )?;
    let scope = ground
        .field(
            "contoso",
            "pod/press-7",
            ".spec.containers[0].env[?(@.name==\"ID_SCOPE\")].value",
        )
        .await?;
    claim(
        "Contoso's device came with the ID scope that it had",
        scope == "0ne00C0NT0S",
    )?;
    // A device of Contoso that says it is Fabrikam's.
    ground
        .shell
        .run(
            "kubectl -n contoso get secret presses-keys -o json | \
             python3 -c 'import json, sys; secret = json.load(sys.stdin); \
             secret[\"metadata\"] = {\"name\": \"stolen-keys\"}; print(json.dumps(secret))' | \
             kubectl -n fabrikam apply -f - && examples/device.sh fabrikam intruder stolen-keys",
        )
        .await?;
    eventually("the intruder is refused", async || {
        let said = ground
            .shell
            .run("kubectl -n fabrikam logs intruder")
            .await?;
        ensure!(said.contains("\"failed\""), "it says {said}");
        Ok(())
    })
    .await?;
    let records = ground
        .shell
        .run("kubectl get devreg -A -o jsonpath='{.items[*].spec.registrationId}'")
        .await?;
    claim(
        "a key of Contoso opens nothing at Fabrikam, and no record is made",
        !records.contains("intruder"),
    )?;
    forget(ground, &["contoso", "fabrikam"]).await
}

pub(crate) async fn solution_change(ground: &mut Ground) -> Result<()> {
    let blocks = readme::commands("examples/solution-change/README.md")?;
    let [set_up, change, settle] = &blocks[..] else {
        anyhow::bail!("the README has {} blocks of commands", blocks.len());
    };
    ground.block(set_up).await?;
    let (machines, building) = (
        ground.hub("solutions", "machines").await?,
        ground.hub("solutions", "building").await?,
    );
    reported(&machines, "sensor-4", 0).await?;
    machines
        .patch_twin(
            "sensor-4",
            &json!({ "tags": { "secret": "of the old solution" } }),
        )
        .await?;
    ground.block(change).await?;
    ground.block(settle).await?;
    // It began to count anew: nothing of before is there.
    let twin = reported(&building, "sensor-4", 0).await?;
    claim_equal(
        "the twin is the initial one of the new solution",
        &json!([twin["tags"], twin["desired"]]),
        &json!([
            { "solution": "building", "floor": 3 }, { "temperature": true },
        ]),
    )?;
    gone(&machines, "sensor-4").await?;
    forget(ground, &["solutions"]).await
}

pub(crate) async fn quarantine(ground: &mut Ground) -> Result<()> {
    let blocks = readme::commands("examples/quarantine/README.md")?;
    let [set_up, shut_in, well] = &blocks[..] else {
        anyhow::bail!("the README has {} blocks of commands", blocks.len());
    };
    ground.block(set_up).await?;
    let (main, quarantine) = (
        ground.hub("cameras", "main").await?,
        ground.hub("cameras", "quarantine").await?,
    );
    reported(&main, "camera-1", 0).await?;
    reported(&main, "camera-2", 0).await?;
    ground.block(shut_in).await?;
    reported(&quarantine, "camera-2", 1).await?;
    gone(&main, "camera-2").await?;
    claim(
        "the other camera stays",
        main.identity("camera-1").await?.is_some(),
    )?;
    ground.block(well).await?;
    let twin = reported(&main, "camera-2", 2).await?;
    claim_equal(
        "its twin came back with it",
        &twin["desired"],
        &json!({ "resolution": "full" }),
    )?;
    gone(&quarantine, "camera-2").await?;
    forget(ground, &["cameras"]).await
}

/// Waits until the device has reported at that hub that it has moved so often.
pub(crate) async fn reported(hub: &Hub, device: &str, moves: u32) -> Result<Value> {
    let twin = eventually(&format!("{device} to report at {}", hub.host), async || {
        let twin = hub.twin(device).await?.context("no twin")?;
        ensure!(twin["reported"]["moves"] == moves, "the twin {twin}");
        Ok(twin)
    })
    .await?;
    claim(
        &format!(
            "{device} is connected to {}, for the {moves} moves that it remembers",
            hub.host
        ),
        true,
    )?;
    Ok(twin)
}

pub(crate) async fn gone(hub: &Hub, device: &str) -> Result<()> {
    let (identity, twin) = (hub.identity(device).await?, hub.twin(device).await?);
    claim(
        &format!(
            "{} has neither an identity nor a twin of {device}",
            hub.host
        ),
        identity.is_none() && twin.is_none(),
    )
}

/// Deletes the namespaces of a scenario, which go with everything in them.
pub(crate) async fn forget(ground: &Ground, namespaces: &[&str]) -> Result<()> {
    ground
        .block(&format!(
            "kubectl delete namespace {} --timeout=2m",
            namespaces.join(" ")
        ))
        .await
        .map(drop)
}
