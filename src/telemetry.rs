//! Logs: what is written, where, and in which form. Knows nothing of what happens.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// How a process logs, to its standard error.
#[derive(Debug, Clone, clap::Args)]
pub struct Logging {
    /// What is logged: a level, or levels by module like `info,rehome::hub=debug`.
    #[arg(long, env = "REHOME_LOG", default_value = "info", global = true)]
    log: String,
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
    /// Starts to log; the first call in a process counts.
    ///
    /// # Errors
    /// The filter cannot be read.
    pub fn start(&self) -> Result<(), ParseError> {
        let filter = EnvFilter::builder().parse(&self.log)?;
        let lines = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr);
        // An error means that somebody logs already, as in a test.
        let _ = match self.log_format {
            Format::Text => lines.with_ansi(false).try_init(),
            Format::Json => lines.json().try_init(),
        };
        Ok(())
    }
}
