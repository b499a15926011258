//! The chart is installed as a user installs it, and the first device is assigned.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rehome_testing::device::Key;
use rehome_testing::health::{Judgement, judge};
use rehome_testing::scratch;
use serde_json::Value;
use tokio::process::Command;

use crate::checkout;
use crate::ground::{Ground, claim, eventually};
use crate::plant::{HOST, secret};
use crate::scenarios::four::reported;

/// How long a person should have to wait for the first device.
const FIRST_DEVICE: u64 = 60;

pub(crate) async fn play(ground: &mut Ground) -> Result<()> {
    let begin = Instant::now();
    // Whoever installs it asks for this: no pod of the chart needs more.
    ground
        .block(
            "kubectl create namespace rehome-system\n\
         kubectl label namespace rehome-system pod-security.kubernetes.io/enforce=restricted",
        )
        .await?;
    let printed = ground.block("helm install rehome charts/rehome -n rehome-system -f examples/values.yaml --wait --timeout 3m").await?;
    ensure!(printed.contains("STATUS: deployed"), "helm said {printed}");
    println!("  installed after {:.1} s", begin.elapsed().as_secs_f64());
    let ready = ground
        .field(
            "rehome-system",
            "deployment/rehome",
            ".status.readyReplicas",
        )
        .await?;
    claim(
        "both replicas are ready in a namespace that enforces restricted",
        ready == "2",
    )?;
    let tested = ground
        .block("helm test rehome -n rehome-system --timeout 2m")
        .await?;
    claim("helm test passes", tested.contains("Succeeded"))?;
    let warnings = ground
        .shell
        .run("kubectl -n rehome-system get events --field-selector reason=FailedCreate -o name")
        .await?;
    claim("no pod was refused", warnings.trim().is_empty())?;
    ground
        .block(
            "kubectl create namespace first\n\
         kubectl label namespace first pod-security.kubernetes.io/enforce=restricted\n\
         examples/hub.sh first hub\n\
         examples/keys.sh first presses-keys\n\
         kubectl -n first apply -f examples/multi-tenancy/presses.yaml\n\
         examples/device.sh first press-1 presses-keys\n\
         kubectl -n first wait --for=create devreg/press-1 --timeout=60s\n\
         kubectl -n first wait devreg/press-1 --for=condition=Ready --timeout=60s\n\
         kubectl -n first get devreg",
        )
        .await?;
    let seconds = begin.elapsed().as_secs();
    claim(
        &format!("from nothing to the first device assigned: {seconds} s, at most {FIRST_DEVICE}"),
        seconds <= FIRST_DEVICE,
    )?;
    all_is_well(ground).await?;
    from_outside(ground).await
}

/// Those who deploy with these tools see that they need not wait.
async fn all_is_well(ground: &Ground) -> Result<()> {
    let what = "Argo CD, Flux and kstatus find hub, Enrollment and registration well";
    eventually(what, async || {
        let printed = "kubectl -n first get iothub,enrollment,devreg -o json";
        let list: Value = serde_json::from_str(&ground.shell.run(printed).await?)?;
        let objects = list["items"].as_array().context("a list")?;
        ensure!(objects.len() == 3, "{} objects", objects.len());
        let judged = judge(objects)?;
        ensure!(judged.iter().all(Judgement::is_well), "{judged:?}");
        Ok(())
    })
    .await?;
    claim(what, true)
}

/// The same program, which is no pod: it comes in by the load balancer.
async fn from_outside(ground: &Ground) -> Result<()> {
    let names = [
        ("rehome-system", "rehome", HOST),
        ("first", "iothub-hub", "iothub-hub.first.svc.cluster.local"),
    ];
    for (namespace, service, name) in names {
        let address = ground.address(namespace, service).await?;
        ground.place.name(name, address)?;
    }
    let folder = scratch("outside")?;
    let trust = folder.join("ca.crt");
    let authorities = [
        secret(
            &ground.shell,
            "rehome-system",
            "rehome-gateway-tls",
            "ca.crt",
        )
        .await?,
        secret(&ground.shell, "first", "iothub-ca", "ca.crt").await?,
    ];
    std::fs::write(&trust, authorities.concat())?;
    let key =
        Key::from_base64(&secret(&ground.shell, "first", "presses-keys", "primaryKey").await?)?;
    let mut device = Command::from(ground.place.outside(&ground.images.python));
    device
        .args(["-u", "examples/device/device.py"])
        .current_dir(checkout())
        .env("PROVISIONING_HOST", HOST)
        .env("ID_SCOPE", "first")
        .env("REGISTRATION_ID", "press-2")
        .env("SYMMETRIC_KEY", key.of_device("press-2").to_base64())
        .env("CA_FILE", &trust)
        .stdout(std::fs::File::create(folder.join("device.log"))?)
        .kill_on_drop(true);
    let _device = device.spawn()?;
    let hub = ground.hub("first", "hub").await?;
    reported(&hub, "press-2", 0).await?;
    claim(
        "a device outside registers and lives at its hub through load balancers",
        true,
    )
}
