//! The plugin on a real cluster, with a real controller, gateway and hubs.

use std::path::Path;
use std::time::Duration;

use rehome_testing::fleet::Tenant;
use rehome_testing::{Cluster, Installation};

use super::{checks, scenes, thousand};

/// Longest wait for anything: the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_mins(4);

/// What the scenes share.
pub(crate) struct Floor {
    pub(crate) cluster: Cluster,
    pub(crate) installation: Installation,
    pub(crate) tenant: Tenant,
}

#[tokio::test]
async fn people_see_explain_plan_and_move() {
    let cluster = Cluster::shared().await.unwrap();
    let rehome = Path::new(env!("CARGO_BIN_EXE_rehome"));
    let installation = Installation::start(&cluster, rehome, &["hub-west", "hub-east"]);
    let installation = installation.await.unwrap();
    let tenant = Tenant::start(&cluster, &installation, "plugin")
        .await
        .unwrap();
    let floor = Floor {
        cluster,
        installation,
        tenant,
    };
    scenes::looking(&floor).await;
    scenes::moving(&floor).await;
    scenes::keys(&floor).await;
    checks::checking(&floor).await;
    checks::certificates(&floor).await;
    thousand::a_plan_names_exactly_the_devices_that_move(&floor).await;
    floor.installation.stop().await.unwrap();
}
