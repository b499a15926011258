//! Logs and traces: what is told of what happens, to whom, and in which form. Knows nothing of what
//! happens.

mod filter;
mod traces;

use std::path::PathBuf;

use opentelemetry_otlp::ExporterBuildError;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

pub use filter::FilterError;
pub use traces::{begin, go_on};

use filter::FilterFile;
use traces::{Sending, Tracing};

/// How a process logs, to its standard error, and whom it tells the way of requests.
#[derive(Debug, Clone, clap::Args)]
pub struct Telemetry {
    /// What is logged: a level, or levels by module like `info,rehome::hub=debug`.
    #[arg(long, env = "REHOME_LOG", default_value = "info", global = true)]
    log: String,
    /// File that says what is logged, in the same words. It is read again when it changes; while it
    /// is not there, or empty, --log counts.
    #[arg(long, env = "REHOME_LOG_FROM", value_name = "FILE", global = true)]
    log_from: Option<PathBuf>,
    /// The form of log lines.
    #[arg(long, env = "REHOME_LOG_FORMAT", default_value = "text", global = true)]
    log_format: Format,
    #[command(flatten)]
    tracing: Tracing,
}

/// Why nothing is told.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `--log` is no filter.
    #[error("--log cannot be used")]
    Filter(#[from] FilterError),
    /// There is no way to a collector.
    #[error("nothing can be sent to the collector of traces")]
    Collector(#[from] ExporterBuildError),
}

/// Telemetry of a process that runs.
#[must_use = "what is recorded last is lost without its end"]
pub struct Running {
    sending: Option<Sending>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

impl Telemetry {
    /// Starts to log and, if there is a collector, to trace; the first call in a process counts. Within
    /// a runtime, which then looks after the file. The name of the `process` is for the collector.
    ///
    /// # Errors
    /// `--log` is no filter. A file that holds none is only told: a process must not end because
    /// somebody wanted to see more of it.
    pub fn start(&self, process: &'static str) -> Result<Running, TelemetryError> {
        let (filter, handle) = reload::Layer::new(filter::parse(&self.log)?);
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        let lines = match self.log_format {
            Format::Text => lines.with_ansi(false).with_filter(filter).boxed(),
            Format::Json => lines.json().with_filter(filter).boxed(),
        };
        let mut layers = vec![lines];
        let sending = self.tracing.start(process)?.map(|(spans, sending)| {
            layers.push(spans);
            sending
        });
        // An error means that somebody logs already, as in a test.
        let _ = tracing_subscriber::registry().with(layers).try_init();
        if let Some(path) = self.log_from.clone() {
            let mut file = FilterFile::new(path, self.log.clone(), handle);
            file.look();
            tokio::spawn(file.keep_fresh());
        }
        Ok(Running { sending })
    }
}

impl Running {
    /// Tells what is left.
    pub async fn end(self) {
        if let Some(sending) = self.sending {
            sending.end().await;
        }
    }
}
