//! What every scenario stands on: the place with its images, and a shell.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rehome_testing::{Mark, until};
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::hub::Hub;
use crate::place::Place;
use crate::plant::Plant;
use crate::scenarios::DEVICES;
use crate::shell::Shell;
use crate::{device_image, readme};

/// The longest that anything takes that is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// What is brought to the node.
pub(crate) struct Images {
    pub(crate) rehome: PathBuf,
    /// What an upgrade begins with: a folder with an image and its chart.
    pub(crate) older: PathBuf,
    /// The interpreter of an environment with the SDK.
    pub(crate) python: PathBuf,
}

pub(crate) struct Ground {
    pub(crate) place: Place,
    pub(crate) shell: Shell,
    pub(crate) images: Images,
    /// The beginning of the audit log.
    pub(crate) began: Mark,
    plant: OnceCell<Plant>,
}

impl Ground {
    pub(crate) fn prepare(place: Place, images: Images) -> Result<Self> {
        let device = device_image::write(&images.python)?;
        for archive in [&images.rehome, &device] {
            place.import(archive)?;
        }
        let began = place.cluster().audit()?.mark()?;
        let shell = Shell::new(place.cluster().kubeconfig().to_owned())?;
        Ok(Self {
            place,
            shell,
            images,
            began,
            plant: OnceCell::new(),
        })
    }

    /// The devices that move, from the first time that they are asked for.
    pub(crate) async fn plant(&self) -> Result<&Plant> {
        self.plant
            .get_or_try_init(|| Plant::found(self, DEVICES))
            .await
    }

    /// At which hub the devices are.
    pub(crate) async fn plant_at(&self) -> Result<usize> {
        let plant = self.plant().await?;
        let host = self
            .field("plant", "devreg/robot-0", ".status.assignedHub")
            .await?;
        plant
            .hubs
            .iter()
            .position(|hub| hub.host == host)
            .with_context(|| format!("robot-0 is at {host:?}"))
    }

    /// Waits until every workload is as it is wanted.
    pub(crate) async fn wait_for_rollouts(&self) -> Result<()> {
        self.shell
            .run(
                "kubectl -n rehome-system rollout status deployment/rehome --timeout=3m
                 for namespace in first plant; do
                   for hub in $(kubectl -n $namespace get statefulset -o name); do
                     kubectl -n $namespace rollout status $hub --timeout=3m
                   done
                   kubectl -n $namespace wait iothub --all --for=condition=Ready --timeout=3m
                 done",
            )
            .await
            .map(drop)
    }

    /// The operator's pods, by their uids and the restarts of their containers.
    pub(crate) async fn pods(&self) -> Result<Vec<String>> {
        let path = "{range .items[*]}{.metadata.uid} {.status.containerStatuses[*].restartCount} \
                    {.status.initContainerStatuses[*].restartCount}{\"\\n\"}{end}";
        let printed = self
            .shell
            .run(&format!(
                "kubectl -n rehome-system get pods -o 'jsonpath={path}'"
            ))
            .await?;
        let mut pods: Vec<_> = printed.lines().map(str::to_owned).collect();
        pods.sort();
        Ok(pods)
    }

    /// Waits until all of the operator's containers run one image, not `other`, and gives its digest.
    pub(crate) async fn one_running_image(&self, other: &str) -> Result<String> {
        let path = "{.items[*].status.containerStatuses[*].imageID} \
                    {.items[*].status.initContainerStatuses[*].imageID}";
        eventually("the operator to run one image", async || {
            let printed = self
                .shell
                .run(&format!(
                    "kubectl -n rehome-system get pods -o 'jsonpath={path}'"
                ))
                .await?;
            let images: BTreeSet<_> = printed.split_whitespace().collect();
            ensure!(
                images.len() == 1 && !images.contains(other),
                "it runs {images:?}"
            );
            Ok(images.into_iter().collect())
        })
        .await
    }

    /// Waits until every managed hub runs that image and is ready; they take their turns.
    pub(crate) async fn hubs_run(&self, image: &str) -> Result<()> {
        let path = "{range .items[*]}{.metadata.name} {.status.containerStatuses[0].ready} \
                    {.status.containerStatuses[0].imageID}{\"\\n\"}{end}";
        let look = format!("kubectl get pods -A -l rehome.dev/component=hub -o 'jsonpath={path}'");
        let wanted = format!(" true {image}");
        eventually("every hub to run the operator's image", async || {
            let printed = self.shell.run(&look).await?;
            let all = printed.lines().all(|line| line.ends_with(&wanted));
            ensure!(all && !printed.is_empty(), "not {image}:\n{printed}");
            Ok(())
        })
        .await?;
        claim("every hub runs the image that the operator runs", true)
    }

    /// Runs the commands of an example's README, all of them.
    pub(crate) async fn follow(&self, file: &str) -> Result<()> {
        for block in readme::commands(file)? {
            self.block(&block).await?;
        }
        Ok(())
    }

    /// Runs one block of commands and shows it.
    pub(crate) async fn block(&self, block: &str) -> Result<String> {
        for line in block.lines() {
            println!("  $ {line}");
        }
        let begin = Instant::now();
        let environment = [("SERVICE_TYPE", "LoadBalancer")];
        let printed = self.shell.run_with(block, &environment).await?;
        for line in printed.lines() {
            println!("    {line}");
        }
        println!("  ({:.1} s)", begin.elapsed().as_secs_f64());
        Ok(printed)
    }

    pub(crate) async fn hub(&self, namespace: &str, name: &str) -> Result<Hub> {
        Hub::of(&self.shell, namespace, name).await
    }

    /// A field of an object, by its JSON path.
    pub(crate) async fn field(&self, namespace: &str, object: &str, path: &str) -> Result<String> {
        self.shell
            .run(&format!(
                "kubectl -n {namespace} get {object} -o 'jsonpath={{{path}}}'"
            ))
            .await
    }

    /// The address of a load balancer.
    pub(crate) async fn address(&self, namespace: &str, service: &str) -> Result<IpAddr> {
        let path = ".status.loadBalancer.ingress[0].ip";
        eventually("the load balancer to have an address", async || {
            let address = self
                .field(namespace, &format!("service/{service}"), path)
                .await?;
            Ok(address.parse()?)
        })
        .await
    }

    /// What the pods are doing, for whoever reads why a scenario failed.
    pub(crate) async fn state(&self) -> String {
        let lines = "kubectl get pods -A -o wide; kubectl get rehome -A; kubectl get pvc -A
            kubectl get events -A --sort-by=.lastTimestamp | tail -40
            for pod in $(kubectl -n rehome-system get pods -o name); do
              echo \"-- $pod\"; kubectl -n rehome-system logs $pod --all-containers --tail=30 || true; done";
        match self.shell.run(lines).await {
            Ok(printed) => printed,
            Err(error) => format!("{error:#}"),
        }
    }
}

/// Asks until it is so.
pub(crate) async fn eventually<T>(
    what: &str,
    mut probe: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let seen = until(PATIENCE, async || probe().await).await;
    seen.map_err(|error| error.unwrap_or_else(|| anyhow!("no answer")))
        .with_context(|| format!("waited {PATIENCE:?} for: {what}"))
}

/// Says what holds, or ends with what was seen instead.
pub(crate) fn claim(what: &str, holds: bool) -> Result<()> {
    ensure!(holds, "this is not so: {what}");
    println!("  ✓ {what}");
    Ok(())
}

/// As [`claim`], for two values that must be equal.
pub(crate) fn claim_equal(what: &str, seen: &Value, wanted: &Value) -> Result<()> {
    ensure!(
        seen == wanted,
        "this is not so: {what}; seen {seen}, expected {wanted}"
    );
    claim(what, true)
}
