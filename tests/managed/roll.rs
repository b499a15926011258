//! A new image reaches one hub after the other.

use k8s_openapi::api::apps::v1::StatefulSet;
use kube::api::ListParams;
use rehome_testing::expect_ok;
use serde_json::json;

use super::world::{IMAGE, PATIENCE, World, image};

const NEXT: &str = "registry.example/rehome:2";
const HUBS: [&str; 3] = ["east", "north", "south"];

impl World {
    /// Hubs whose pod template has the next image.
    async fn changed(&self) -> Vec<String> {
        let sets = self.namespace.api::<StatefulSet>();
        let sets = sets.list(&ListParams::default()).await.unwrap();
        let changed = sets.items.iter().filter(|set| image(set) == NEXT);
        changed
            .map(|set| set.metadata.name.clone().unwrap())
            .collect()
    }

    async fn settled(&self, hub: &str) {
        self.hub_is(hub, "WorkloadReady", "True", "Settled").await;
    }
}

#[tokio::test]
async fn an_upgrade_restarts_one_hub_at_a_time_and_stops_at_one_that_does_not_start() {
    let mut world = World::new().await;
    for hub in HUBS {
        world.hub(hub, json!({})).await;
        world.pod_runs(hub).await;
        world.settled(hub).await;
    }
    world.upgrade(NEXT).await;
    for (position, hub) in HUBS.iter().enumerate() {
        let expected: Vec<_> = HUBS[..=position]
            .iter()
            .map(|hub| format!("iothub-{hub}"))
            .collect();
        expect_ok("the next hub's turn", PATIENCE, async || {
            let changed = world.changed().await;
            if changed == expected {
                Ok(())
            } else {
                Err(changed)
            }
        })
        .await;
        world.pod_with_image(hub, NEXT).await;
        world.pod_waits(hub, "ImagePullBackOff", json!({})).await;
        world
            .hub_is(hub, "WorkloadReady", "False", "ImageUnavailable")
            .await;
        for other in &HUBS[position + 1..] {
            let message = world
                .hub_is(other, "WorkloadReady", "True", "WaitingForTurn")
                .await;
            assert!(
                message.contains("restarts with its new template after hub"),
                "{message}"
            );
            assert_eq!(world.image(other).await, IMAGE);
        }
        assert_eq!(world.changed().await, expected, "somebody went ahead");
        world.pod_runs(hub).await;
        world.settled(hub).await;
    }
}

#[tokio::test]
async fn a_hub_that_is_down_takes_the_image_that_may_help_it_at_once() {
    let mut world = World::new().await;
    for hub in ["east", "north"] {
        world.hub(hub, json!({})).await;
        world.pod_waits(hub, "ImagePullBackOff", json!({})).await;
        world
            .hub_is(hub, "WorkloadReady", "False", "ImageUnavailable")
            .await;
    }
    world.upgrade(NEXT).await;
    for hub in ["east", "north"] {
        world.pod_with_image(hub, NEXT).await;
        world.pod_runs(hub).await;
        world.settled(hub).await;
    }
}
