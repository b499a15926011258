//! Logs: what is written, where, and in which form. Knows nothing of what happens.

mod filter;

use std::path::PathBuf;

use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

pub use filter::FilterError;

use filter::FilterFile;

/// How a process logs, to its standard error.
#[derive(Debug, Clone, clap::Args)]
pub struct Logging {
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
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

impl Logging {
    /// Starts to log; the first call in a process counts. Within a runtime, which then looks after
    /// the file.
    ///
    /// # Errors
    /// `--log` is no filter. A file that holds none is only told: a process must not end because
    /// somebody wanted to see more of it.
    pub fn start(&self) -> Result<(), FilterError> {
        let (filter, handle) = reload::Layer::new(filter::parse(&self.log)?);
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        let lines = match self.log_format {
            Format::Text => lines.with_ansi(false).with_filter(filter).boxed(),
            Format::Json => lines.json().with_filter(filter).boxed(),
        };
        // An error means that somebody logs already, as in a test.
        let _ = tracing_subscriber::registry().with(lines).try_init();
        if let Some(path) = self.log_from.clone() {
            let mut file = FilterFile::new(path, self.log.clone(), handle);
            file.look();
            tokio::spawn(file.keep_fresh());
        }
        Ok(())
    }
}
