//! Ends the children of this process when the process ends, by whatever cause.
//!
//! A test that is killed runs no destructor. So every process of the harness has a warden: a small
//! shell script in a process group of its own that holds the reading end of a pipe. It is told
//! which children live; when the pipe closes it kills the rest, each by its id, and removes the
//! directory, unless something failed and the logs in it are wanted.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, Once, OnceLock, PoisonError};

use anyhow::{Context, Result, anyhow};

static WARDEN: OnceLock<Result<Warden, String>> = OnceLock::new();

pub(crate) struct Warden {
    directory: PathBuf,
    orders: Mutex<ChildStdin>,
}

impl Warden {
    /// The warden of this process; the first call starts it with a temporary directory.
    pub(crate) fn get() -> Result<&'static Self> {
        Self::get_or_start(|| {
            let directory = tempfile::Builder::new().prefix("rehome-").tempdir()?;
            Ok(directory.keep())
        })
    }

    /// The warden of this process, watching over `directory`, which goes when the process ends.
    pub(crate) fn over(directory: &Path) -> Result<&'static Self> {
        Self::get_or_start(|| {
            std::fs::create_dir_all(directory)?;
            Ok(directory.to_owned())
        })
    }

    fn get_or_start(make: impl FnOnce() -> Result<PathBuf>) -> Result<&'static Self> {
        WARDEN
            .get_or_init(|| {
                make()
                    .and_then(Self::start)
                    .map_err(|error| format!("{error:#}"))
            })
            .as_ref()
            .map_err(|error| anyhow!("no directory or no warden for the processes: {error}"))
    }

    fn start(directory: PathBuf) -> Result<Self> {
        let mut shell = Command::new("sh")
            .arg("-c")
            .arg(include_str!("warden.sh"))
            .arg("rehome-warden")
            .arg(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start sh")?;
        let orders = shell.stdin.take().context("sh has no standard input")?;
        Ok(Self {
            directory,
            orders: Mutex::new(orders),
        })
    }

    /// The directory of this process: logs, certificates, state.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// From now on the child dies with this process.
    pub(crate) fn watch(&self, pid: u32) {
        self.tell(&format!("+ {pid}\n"));
    }

    /// The child has ended; its id may belong to somebody else from now on.
    pub(crate) fn release(&self, pid: u32) {
        self.tell(&format!("- {pid}\n"));
    }

    /// Control groups of this name, and those in them, go when this process has ended.
    pub(crate) fn remove_control_groups(&self, name: &str) {
        self.tell(&format!("cgroup {name}\n"));
    }

    /// Runs that script, if it is still there, when this process has ended.
    pub(crate) fn undo_by(&self, script: &Path) {
        self.tell(&format!("undo {}\n", script.display()));
    }

    /// Leaves the directory where it is when the process ends.
    pub(crate) fn keep(&self) {
        self.tell("keep\n");
    }

    /// Keeps the directory once a test panics, and says where it is.
    pub(crate) fn keep_when_a_test_fails(&'static self) {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let previous = std::panic::take_hook();
            let said = Once::new();
            std::panic::set_hook(Box::new(move |panic| {
                previous(panic);
                said.call_once(|| {
                    self.keep();
                    eprintln!(
                        "the logs of this test run are kept in {}",
                        self.directory.display()
                    );
                });
            }));
        });
    }

    fn tell(&self, order: &str) {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        // A warden that is gone has been killed by hand: the destructors still end the children.
        let _ = orders.write_all(order.as_bytes());
    }
}

/// Leaves the files of this process where they are when it ends, and says where that is.
pub fn keep_files() -> Result<PathBuf> {
    let warden = Warden::get()?;
    warden.keep();
    Ok(warden.directory().to_owned())
}

/// A new directory for the files of one test; it goes with the test process, or stays with the
/// logs when a test fails.
pub fn scratch(prefix: &str) -> Result<PathBuf> {
    let warden = Warden::get()?;
    warden.keep_when_a_test_fails();
    let directory = tempfile::Builder::new()
        .prefix(&format!("{prefix}-"))
        .tempdir_in(warden.directory())?;
    Ok(directory.keep())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use anyhow::ensure;

    use super::*;
    use crate::wait::until;

    #[tokio::test]
    async fn what_is_left_to_undo_is_undone_before_the_files_go() {
        let folder = tempfile::tempdir().unwrap();
        let [files, undone] = ["files", "undone"].map(|name| folder.path().join(name));
        std::fs::create_dir(&files).unwrap();
        let script = files.join("undo.sh");
        std::fs::write(&script, format!("touch '{}'\n", undone.display())).unwrap();
        let warden = Warden::start(files.clone()).unwrap();
        warden.undo_by(&script);
        assert!(!undone.exists());
        // As the end of the process would.
        drop(warden);
        let gone = until(Duration::from_secs(20), async || {
            ensure!(!files.exists(), "the files are still there");
            Ok(())
        });
        gone.await.unwrap();
        assert!(undone.exists());
    }
}
