//! What must not be noticed by devices: a rollout, a new certificate, an installation that is taken
//! away and put back.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use rehome_testing::device::Protocol;
use rehome_testing::scratch;
use tokio::process::Command;

use crate::ground::{Ground, claim, eventually};
use crate::load::Outcome;
use crate::plant::{self, HOST, WEST};

const PER_SECOND: u32 = 50;

/// Gateway and controller are rolled out while 50 devices a second register and try nothing twice.
pub(crate) async fn rollout(ground: &mut Ground) -> Result<()> {
    let ended = scratch("rollout")?.join("ended");
    let ca = ended.with_file_name("ca.crt");
    std::fs::write(
        &ca,
        plant::secret(
            &ground.shell,
            "rehome-system",
            "rehome-gateway-tls",
            "ca.crt",
        )
        .await?,
    )?;
    let plant = ground.plant().await?;
    let address = plant::registrar(&ground.shell).await?.https.ip();
    let mut load = Command::from(ground.place.outside(&std::env::current_exe()?));
    load.arg("load")
        .arg(format!("--host={HOST}"))
        .arg(format!("--address={address}"))
        .arg(format!("--ca-file={}", ca.display()))
        .args(["--scope=plant", "--prefix=visitor", "--seconds=20"])
        .arg(format!("--key={}", plant.key.to_base64()))
        .arg(format!("--per-second={PER_SECOND}"))
        .arg(format!("--until={}", ended.display()));
    let load = load
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()?;
    let before = ground.pods().await?;
    let rolled = ground
        .block(
            "kubectl -n rehome-system rollout restart deployment/rehome\n\
             kubectl -n rehome-system rollout status deployment/rehome --timeout=3m",
        )
        .await;
    // The old pods are there until they have ended well.
    let gone = eventually("the old pods to be gone", async || {
        let now = ground.pods().await?;
        let old: Vec<_> = before.iter().filter(|pod| now.contains(pod)).collect();
        ensure!(old.is_empty(), "{old:?}");
        Ok(())
    });
    let gone = gone.await;
    std::fs::write(&ended, "")?;
    let output = load.wait_with_output().await?;
    rolled?;
    gone?;
    let outcome: Outcome =
        serde_json::from_slice(&output.stdout).context("what the load printed")?;
    println!("  {outcome:?}");
    ensure!(
        outcome.failed == 0,
        "{} of {} registrations failed: {:#?}",
        outcome.failed,
        outcome.failed + outcome.registered,
        outcome.errors
    );
    claim(
        &format!(
            "{} registrations at {PER_SECOND} a second during the rollout, none failed; p99 {} ms, longest {} ms",
            outcome.registered, outcome.p99_ms, outcome.longest_ms
        ),
        outcome.registered > 500,
    )?;
    ground.shell.run("kubectl -n plant get devreg -o name | grep visitor | xargs -P8 -n64 kubectl -n plant delete --wait=false").await?;
    eventually("the visitors to be gone", async || {
        let left = ground
            .shell
            .run("kubectl -n plant get devreg -o name | grep -c visitor || true")
            .await?;
        ensure!(left.trim() == "0", "{left} are left");
        Ok(())
    })
    .await
}

/// Certificates are replaced while everything runs.
pub(crate) async fn certificates(ground: &mut Ground) -> Result<()> {
    certificate_of_gateway(ground).await?;
    certificate_of_hub(ground).await
}

/// The one of a hub is made anew by the operator, as it is before it ends.
async fn certificate_of_hub(ground: &Ground) -> Result<()> {
    let hub = &ground.plant().await?.hubs[WEST];
    let pod = ground
        .field("plant", "pod/iothub-west-0", ".metadata.uid")
        .await?;
    let look = format!(
        "openssl s_client -connect {} -servername {} </dev/null 2>/dev/null | openssl x509 -noout -serial",
        hub.https(),
        hub.host
    );
    let before = ground.shell.run(&look).await?;
    ground
        .block("kubectl -n plant delete secret iothub-west-tls")
        .await?;
    eventually("the hub to show a new certificate", async || {
        let now = ground.shell.run(&look).await?;
        ensure!(now != before, "it still shows {now}");
        Ok(())
    })
    .await?;
    let plant = ground.plant().await?;
    plant.everybody_registers().await?;
    plant.is_whole(ground.plant_at().await?).await?;
    let same = ground
        .field("plant", "pod/iothub-west-0", ".metadata.uid")
        .await?;
    claim("the hub was not restarted for it", same == pod)
}

/// The gateway's is replaced by one of another authority.
async fn certificate_of_gateway(ground: &Ground) -> Result<()> {
    let before = ground.pods().await?;
    let plant = ground.plant().await?;
    let applicant = plant.applicant(&plant.devices[0]);
    let old = plant::registrar(&ground.shell).await?;
    old.register(&applicant, Protocol::Https, None).await?;
    ground
        .block(&format!(
            "cd $(mktemp -d)\n\
             openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj '/CN=new CA' \
               -keyout ca.key -out ca.crt 2>/dev/null\n\
             openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=gateway -keyout tls.key -out tls.csr 2>/dev/null\n\
             printf 'subjectAltName=DNS:{HOST},DNS:rehome.rehome-system.svc.cluster.local' >names\n\
             openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile names -out tls.crt 2>/dev/null\n\
             data=$(for file in ca.crt tls.crt tls.key; do printf ',\"%s\":\"%s\"' $file $(base64 -w0 $file); done)\n\
             kubectl -n rehome-system patch secret rehome-gateway-tls --type=merge -p \"{{\\\"data\\\":{{${{data#,}}}}}}\""
        ))
        .await?;
    let new = plant::registrar(&ground.shell).await?;
    ensure!(
        new.trust.pem() != old.trust.pem(),
        "the authority is the same"
    );
    eventually("every replica to show the new certificate", async || {
        // Each connection may meet another replica.
        for _ in 0..8 {
            new.register(&applicant, Protocol::Https, None).await?;
        }
        Ok(())
    })
    .await?;
    let refused = old.register(&applicant, Protocol::Https, None).await;
    claim(
        "whoever trusts only the old authority is not let down silently: TLS fails",
        refused.is_err(),
    )?;
    claim(
        "no pod was restarted for it",
        ground.pods().await? == before,
    )
}

/// The release is uninstalled and installed again.
pub(crate) async fn reinstall(ground: &mut Ground) -> Result<()> {
    let home = ground.plant_at().await?;
    let records = "kubectl get devreg,enr,iothub -A -o jsonpath='{range .items[*]}{.metadata.uid}{\"\\n\"}{end}' | sort";
    let before = ground.shell.run(records).await?;
    let trusted = plant::registrar(&ground.shell).await?.trust;
    ground
        .block("helm uninstall rehome -n rehome-system --wait --timeout 2m")
        .await?;
    claim(
        "the CRDs and every record are still there",
        ground.shell.run(records).await? == before,
    )?;
    ground.block("helm install rehome charts/rehome -n rehome-system -f examples/values.yaml --wait --timeout 3m >/dev/null").await?;
    let trust = plant::registrar(&ground.shell).await?.trust;
    claim(
        "devices trust the gateway as before",
        trust.pem() == trusted.pem(),
    )?;
    let plant = ground.plant().await?;
    plant.is_whole(home).await?;
    let told = plant.everybody_registers().await?;
    let same = told.iter().all(|told| told.hub == plant.hubs[home].host);
    claim("every device registers again and stays where it was", same)?;
    claim(
        "and no record was made anew",
        ground.shell.run(records).await? == before,
    )?;
    plant.is_whole(home).await
}
