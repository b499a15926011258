//! What happens to an installation while devices move: killed processes, a lost node, an upgrade.

use std::cell::Cell;

use anyhow::{Context, Result};
use rehome_testing::scratch;
use serde_json::json;

use crate::ground::{Ground, claim, claim_equal};
use crate::plant::{EAST, WEST};
use crate::scenarios::four::reported;

/// Devices that move at a time.
pub(crate) const DEVICES: usize = 120;

/// A device is given back as it left the factory, without leaving its hub.
pub(crate) async fn factory_reset(ground: &mut Ground) -> Result<()> {
    let hub = ground.hub("first", "hub").await?;
    reported(&hub, "press-1", 0).await?;
    hub.patch_twin("press-1", &json!({ "tags": { "owner": "Ada" } }))
        .await?;
    let before = hub.identity("press-1").await?.context("press-1")?;
    ground
        .block(
            "kubectl -n first patch devreg press-1 --type=merge \
             -p '{\"spec\":{\"reprovision\":{\"id\":\"return-1\",\"mode\":\"ResetData\"}}}'\n\
             kubectl -n first wait devreg/press-1 --for=jsonpath='{.status.substatus}'=DeviceDataReset --timeout=60s\n\
             kubectl -n first wait devreg/press-1 --for=condition=Ready --timeout=60s",
        )
        .await?;
    let after = hub.identity("press-1").await?.context("press-1")?;
    claim(
        "the identity was made anew at the same hub",
        before["generationId"] != after["generationId"],
    )?;
    let twin = reported(&hub, "press-1", 0).await?;
    claim_equal(
        "nothing of before is in the twin",
        &twin["tags"],
        &json!({}),
    )
}

/// Controller, gateway and hubs are killed by SIGKILL while moves are open.
pub(crate) async fn kills(ground: &mut Ground) -> Result<()> {
    let operator = [
        ("rehome-system", "controller"),
        ("rehome-system", "gateway"),
    ];
    let hub = [("plant", "iothub-east-0")];
    let blows = [
        ("controller and gateway", EAST, &operator[..]),
        ("the source", WEST, &hub[..]),
        ("the target", EAST, &hub[..]),
    ];
    for (who, target, containers) in blows {
        let plant = ground.plant().await?;
        plant.move_to(target).await?;
        let kill = async {
            let device = plant.moving().await?;
            let mut killed = 0;
            for (namespace, container) in containers {
                killed += ground.place.kill_container(namespace, container)?;
            }
            println!("  {device} was moving when {killed} containers were killed: {who}");
            claim("something was killed", killed > 0)
        };
        let (told, killed) = tokio::join!(plant.everybody_registers(), kill);
        killed?;
        plant.everybody_goes_to(target, &told?).await?;
        plant.is_whole(target).await?;
    }
    ground.wait_for_rollouts().await
}

/// The node loses its power and comes back.
pub(crate) async fn node_restart(ground: &mut Ground) -> Result<()> {
    let home = ground.plant_at().await?;
    ground.place.crash().await?;
    println!("  every process on the node is dead");
    ground.place.boot().await?;
    ground.wait_for_rollouts().await?;
    let plant = ground.plant().await?;
    // What the API server says just then may still be of the time before.
    plant.hubs_answer().await?;
    plant.is_whole(home).await?;
    let told = plant.everybody_registers().await?;
    claim("every device registers again", told.len() == DEVICES)?;
    plant.move_to(1 - home).await?;
    plant.everybody_registers().await?;
    plant.is_whole(1 - home).await
}

/// The cluster is lost and made anew from a backup that was taken before devices moved. The hubs know
/// better than the records, and so do devices.
pub(crate) async fn backup(ground: &mut Ground) -> Result<()> {
    let before = ground.plant_at().await?;
    let now = 1 - before;
    let folder = scratch("backup")?.join("etcd");
    ground.place.own()?.back_up(&folder).await?;
    ground.wait_for_rollouts().await?;
    let plant = ground.plant().await?;
    plant.move_to(now).await?;
    plant.everybody_registers().await?;
    plant.is_whole(now).await?;
    ground.place.own()?.restore(&folder).await?;
    ground.wait_for_rollouts().await?;
    let at = ground.plant_at().await?;
    claim(
        "the records are those of the backup: they name the hub of before",
        at == before,
    )?;
    let plant = ground.plant().await?;
    // As docs/operations.md says; and what people declare comes from where they keep it.
    ground.block("kubectl annotate namespace plant first rehome.dev/restored-at=$(date -u +%Y-%m-%dT%H:%M:%SZ)").await?;
    plant.move_to(now).await?;
    let told = plant.everybody_registers().await?;
    let healed = told.iter().all(|told| told.hub == plant.hubs[now].host);
    claim("every device is told the hub where it really is", healed)?;
    plant.is_whole(now).await
}

/// The operator is upgraded from an older release while devices move, and the hubs with it.
pub(crate) async fn upgrade(ground: &mut Ground) -> Result<()> {
    let newer = ground.one_running_image("").await?;
    let older = ground.images.older.clone();
    ground.place.import(&older.join("rehome.tar"))?;
    let upgrade = |chart: &str, more: &str| {
        format!(
            "helm upgrade rehome {chart} -n rehome-system -f examples/values.yaml{more} \
             --wait --timeout 3m >/dev/null"
        )
    };
    let chart = older.join("chart").display().to_string();
    ground
        .block(&upgrade(&chart, " --set image.tag=older"))
        .await?;
    // Pods of before serve on for a while.
    let image = ground.one_running_image(&newer).await?;
    claim(&format!("the operator runs the older image, {image}"), true)?;
    ground.hubs_run(&image).await?;
    let mut target = ground.plant_at().await?;
    let plant = ground.plant().await?;
    let upgraded = Cell::new(false);
    let upgrading = async {
        let device = plant.moving().await?;
        println!("  {device} is moving when the upgrade begins");
        ground.block(&upgrade("charts/rehome", "")).await?;
        ground.hubs_run(&newer).await?;
        upgraded.set(true);
        anyhow::Ok(())
    };
    // All of them, there and back, for as long as it takes.
    let moving = async {
        let mut rounds = 0;
        while !upgraded.get() {
            target = 1 - target;
            plant.move_to(target).await?;
            let told = plant.everybody_registers().await?;
            plant.everybody_goes_to(target, &told).await?;
            rounds += 1;
        }
        anyhow::Ok(rounds)
    };
    let ((), rounds) = tokio::try_join!(upgrading, moving)?;
    println!("  every device was sent to the other hub {rounds} times meanwhile");
    let now = ground.one_running_image(&image).await?;
    claim("the operator runs the newer image again", now == newer)?;
    ground.wait_for_rollouts().await?;
    plant.is_whole(target).await
}
