//! Where a command's result goes: text for people, or data for programs.

use std::io::{self, Write as _};

use clap::ValueEnum;
use serde::Serialize;

use super::Failure;

/// The form of a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
    /// For programs and people.
    Yaml,
}

/// Writes a result to standard output: the text, or the data behind it.
pub(super) fn print(
    format: Format,
    data: &impl Serialize,
    text: impl FnOnce() -> String,
) -> Result<(), Failure> {
    let out = match format {
        Format::Text => text(),
        Format::Json => {
            let json = serde_json::to_string_pretty(data);
            json.map_err(|error| Failure::because("the result cannot be written as JSON", error))?
                + "\n"
        }
        Format::Yaml => serde_saphyr::to_string(data)
            .map_err(|error| Failure::because("the result cannot be written as YAML", error))?,
    };
    write(&out)
}

/// Writes text to standard output, without colours where none belong.
pub(super) fn write(text: &str) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever read it has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => {
            written.map_err(|error| Failure::because("standard output cannot be written", error))
        }
    }
}

/// Says something beside the result, on standard error.
pub(super) fn remark(text: &str) {
    // Nobody to tell is no reason to fail.
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}
