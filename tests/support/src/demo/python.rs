//! The unmodified Python device: an environment with the official SDK from PyPI, and a process that
//! runs it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use aws_lc_rs::digest;
use rehome_testing::device::{Applicant, Registrar};
use rehome_testing::{Process, tools};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_mins(3);

/// Files of the demo's device.
pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo")
}

/// A Python with exactly the packages that `requirements.txt` names; made once per machine.
pub(crate) fn environment() -> Result<PathBuf> {
    let requirements = directory().join("requirements.txt");
    let pins = std::fs::read(&requirements)?;
    let hash = digest::digest(&digest::SHA256, &pins);
    let mut short = [0; 8];
    short.copy_from_slice(&hash.as_ref()[..8]);
    let cache = tools::cache()?;
    let environment = cache.join(format!("venv-{:016x}", u64::from_be_bytes(short)));
    let (python, complete) = (environment.join("bin/python"), environment.join("complete"));
    let lock = File::create(cache.join("venv.lock"))?;
    lock.lock()?;
    // An upgrade of the system's Python may have taken the interpreter away.
    if complete.is_file() && python.exists() {
        return Ok(python);
    }
    eprintln!("getting azure-iot-device and what it needs from PyPI");
    let advice = "python3 with venv is needed (Debian: apt-get install python3-venv)";
    run(
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&environment),
        advice,
    )?;
    let mut pip = Command::new(&python);
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]);
    run(
        pip.arg("--requirement").arg(&requirements),
        "is PyPI reachable?",
    )?;
    File::create(complete)?;
    Ok(python)
}

fn run(command: &mut Command, advice: &str) -> Result<()> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| advice.to_owned())?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("{advice}\n{}", String::from_utf8_lossy(&said).trim());
    }
    Ok(())
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
