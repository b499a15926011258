//! A Prometheus that reads the metrics of an installation.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rehome_testing::{Installation, Process, free_port, scratch};
use serde_json::{Value, json};

/// Longest time for it to start or to end.
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) struct Prometheus {
    process: Process,
    address: SocketAddr,
}

impl Prometheus {
    /// Starts one that looks every second.
    pub(crate) async fn start(at: &Installation) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port(Ipv4Addr::LOCALHOST)?));
        let folder = scratch("prometheus")?;
        let job = |name: &str, targets: Vec<SocketAddr>| json!({ "job_name": name, "static_configs": [{ "targets": targets }] });
        let config = json!({
            "global": { "scrape_interval": "1s" },
            "scrape_configs": [
                job("controller", vec![at.controller_health]),
                job("gateway", vec![at.gateway_health]),
                job("hubs", at.hubs.iter().map(|hub| hub.health).collect()),
            ],
        });
        // JSON is YAML.
        std::fs::write(folder.join("prometheus.yml"), config.to_string())?;
        let arguments = [
            format!("--config.file={}", folder.join("prometheus.yml").display()),
            format!("--storage.tsdb.path={}", folder.join("data").display()),
            format!("--web.listen-address={address}"),
            "--log.level=warn".to_owned(),
        ];
        let log = folder.join("prometheus.log");
        let mut process = Process::spawn("prometheus", "prometheus", arguments, [("", ""); 0], log)
            .context("prometheus, which tests/prepare installs")?;
        process.wait_for_port(address, PATIENCE).await?;
        Ok(Self { process, address })
    }

    /// The values that a query has now, without those that are no number.
    pub(crate) async fn ask(&self, query: &str) -> Result<Vec<f64>> {
        let query_text = utf8_percent_encode(query, NON_ALPHANUMERIC);
        let url = format!("http://{}/api/v1/query?query={query_text}", self.address);
        let answer: Value = reqwest::get(&url).await?.json().await?;
        ensure!(
            answer["status"] == "success",
            "{query}: {}",
            answer["error"]
        );
        let result = answer["data"]["result"].as_array().context("no result")?;
        let values = result
            .iter()
            .filter_map(|it| it["value"][1].as_str()?.parse().ok());
        Ok(values.filter(|value: &f64| value.is_finite()).collect())
    }

    pub(crate) async fn stop(mut self) -> Result<()> {
        self.process.terminate(PATIENCE).await?;
        Ok(())
    }
}
