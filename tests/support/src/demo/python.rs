//! The unmodified Python device: an environment with the official SDK from PyPI, and a process that
//! runs it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use rehome_testing::device::{Applicant, Registrar};
use rehome_testing::{Process, packages};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_mins(3);

/// Files of the demo's device.
pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo")
}

/// A Python with exactly the packages that `requirements.txt` names.
pub(crate) fn environment() -> Result<PathBuf> {
    packages::python(&directory().join("requirements.txt"))
}

/// One process that is the device from the beginning to the end.
pub(crate) struct Device {
    process: Process,
    answers: usize,
}

impl Device {
    pub(crate) fn start(
        python: &Path,
        applicant: &Applicant,
        registrar: &Registrar,
        ca_file: &Path,
        log: &Path,
    ) -> Result<Self> {
        let arguments = [
            "-u".to_owned(),
            directory().join("device.py").display().to_string(),
            format!("--host={}", registrar.host),
            format!("--id-scope={}", applicant.scope),
            format!("--registration-id={}", applicant.registration_id),
            format!("--key={}", applicant.key.to_base64()),
            format!("--ca-file={}", ca_file.display()),
        ];
        Ok(Self {
            process: Process::spawn_listening("device", python, arguments, log)?,
            answers: 0,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Tells it to do something and waits for the answer. What the SDK refuses is an error.
    pub(crate) async fn ask(&mut self, command: &str) -> Result<Value> {
        self.process.tell(command)?;
        let number = self.answers;
        self.answers += 1;
        let what = format!("its answer to {command:?}");
        let answer = self.process.wait_until(&what, PATIENCE, async |process| {
            let output = process.output()?;
            let mut answers = output
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n'));
            Ok(answers
                .by_ref()
                .filter_map(|line| line.strip_prefix("= "))
                .nth(number)
                .map(str::to_owned))
        });
        let answer: Value = serde_json::from_str(&answer.await?)?;
        if let Some(error) = answer["error"].as_str() {
            bail!("the device answered {command:?} with {error}");
        }
        Ok(answer)
    }
}
