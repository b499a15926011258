//! The quickstart is followed word by word, from a cluster with nothing on it to one with nothing on it.

use anyhow::Result;
use serde_json::json;

use crate::ground::{Ground, claim, claim_equal};
use crate::readme;
use crate::scenarios::four::{gone, reported};

const DEVICE: &str = "press-7";
const NAMESPACE: &str = "quickstart";

pub(crate) async fn play(ground: &mut Ground) -> Result<()> {
    let blocks = readme::commands("docs/quickstart.md")?;
    let [install, hubs, enroll, device, relocate, clean_up] = &blocks[..] else {
        anyhow::bail!("the page has {} blocks of commands", blocks.len());
    };
    for block in [install, hubs, enroll, device] {
        ground.block(block).await?;
    }
    let (west, east) = (
        ground.hub(NAMESPACE, "hub-west").await?,
        ground.hub(NAMESPACE, "hub-east").await?,
    );
    reported(&west, DEVICE, 0).await?;
    west.patch_twin(DEVICE, &json!({ "tags": { "owner": "night shift" } }))
        .await?;
    let printed = ground.block(relocate).await?;
    claim("describe tells of the move", printed.contains("Moved"))?;
    let twin = reported(&east, DEVICE, 1).await?;
    claim_equal(
        "tags, desired and reported properties came along",
        &twin,
        &json!({
            "tags": { "line": 3, "owner": "night shift" },
            "desired": { "interval": 60 },
            "reported": { "firmware": "4.2", "moves": 1 },
        }),
    )?;
    gone(&west, DEVICE).await?;
    ground.block(clean_up).await?;
    let left = "kubectl get crd,clusterrole,clusterrolebinding,validatingadmissionpolicy,\
                validatingadmissionpolicybinding,namespace -o name";
    let left = ground.shell.run(left).await?;
    let left: Vec<_> = left
        .lines()
        .filter(|name| name.contains("rehome") || name.contains(NAMESPACE))
        .collect();
    claim(
        &format!("nothing is left on the cluster: {left:?}"),
        left.is_empty(),
    )?;
    // Pods that were uninstalled and still ended were refused what they asked for: that is no fault of
    // the Roles, which a later scenario judges.
    ground.began = ground.place.cluster().audit()?.mark()?;
    Ok(())
}
