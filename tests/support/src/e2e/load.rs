//! Devices that register at a rate and try nothing twice, from outside.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use futures::future::join_all;
use rehome_testing::device::{Applicant, Key, Protocol, Registrar, Trust};
use serde::{Deserialize, Serialize};

#[derive(Args, Clone)]
pub(crate) struct Load {
    #[arg(long)]
    host: String,
    #[arg(long)]
    address: IpAddr,
    #[arg(long)]
    ca_file: PathBuf,
    #[arg(long)]
    scope: String,
    /// The key of the group, in base64
    #[arg(long)]
    key: String,
    /// Beginning of registration ids
    #[arg(long)]
    prefix: String,
    #[arg(long)]
    per_second: u32,
    /// It goes on for this long, or until this file is there, whatever is longer
    #[arg(long)]
    seconds: u32,
    #[arg(long)]
    until: Option<PathBuf>,
}

/// What became of the devices; printed as JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) registered: usize,
    pub(crate) failed: usize,
    /// The first few reasons.
    pub(crate) errors: Vec<String>,
    pub(crate) p50_ms: u128,
    pub(crate) p99_ms: u128,
    pub(crate) longest_ms: u128,
}

impl Load {
    pub(crate) async fn run(&self) -> Result<()> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let pem = std::fs::read_to_string(&self.ca_file).context("the CA")?;
        let at = |port| SocketAddr::new(self.address, port);
        let registrar = Registrar {
            host: self.host.clone(),
            https: at(443),
            mqtt: at(8883),
            amqp: at(5671),
            trust: Trust::new(&pem)?,
        };
        let group = Key::from_base64(&self.key)?;
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / self.per_second);
        let (begin, mut devices) = (Instant::now(), Vec::new());
        let least = Duration::from_secs(self.seconds.into());
        let is_over =
            || begin.elapsed() >= least && self.until.as_ref().is_none_or(|file| file.exists());
        while !is_over() {
            ticks.tick().await;
            let number = devices.len();
            let registration_id = format!("{}-{number}", self.prefix);
            let applicant = Applicant {
                scope: self.scope.clone(),
                key: group.of_device(&registration_id),
                registration_id,
                api_version: "2021-10-01".into(),
            };
            let registrar = registrar.clone();
            // Every protocol in turn.
            let protocol = Protocol::ALL[number % Protocol::ALL.len()];
            devices.push(tokio::spawn(async move {
                let begin = Instant::now();
                let told = registrar.register(&applicant, protocol, None).await;
                let outcome = match told {
                    Ok(told) if told.status == "assigned" => Ok(()),
                    Ok(told) => Err(format!("{told:?}")),
                    Err(error) => Err(format!("{error:#}")),
                };
                let after = begin.elapsed();
                outcome.map(|()| after).map_err(|error| {
                    format!(
                        "{} over {protocol}, after {after:?}: {error}",
                        applicant.registration_id
                    )
                })
            }));
        }
        let mut took = Vec::new();
        let mut errors = Vec::new();
        for outcome in join_all(devices).await {
            match outcome? {
                Ok(time) => took.push(time.as_millis()),
                Err(error) => errors.push(error),
            }
        }
        took.sort_unstable();
        let part = |percent: usize| {
            took.get((took.len() * percent / 100).min(took.len().saturating_sub(1)))
        };
        let outcome = Outcome {
            registered: took.len(),
            failed: errors.len(),
            errors: errors.into_iter().take(5).collect(),
            p50_ms: part(50).copied().unwrap_or_default(),
            p99_ms: part(99).copied().unwrap_or_default(),
            longest_ms: took.last().copied().unwrap_or_default(),
        };
        println!("{}", serde_json::to_string(&outcome)?);
        Ok(())
    }
}
