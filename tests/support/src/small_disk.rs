//! A file system of a few MiB, to see what becomes of a program when it is full.
//!
//! It is mounted in a mount namespace of its own: only programs that are started in it see it, and it
//! is gone with the last of them.

use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::Process;
use crate::warden::scratch;

/// Longest time to mount it.
const START: Duration = Duration::from_mins(1);

/// The file system. It ends with this, unless a program in it is still alive.
pub struct SmallDisk {
    path: PathBuf,
    /// Holds the namespace.
    holder: Process,
}

impl SmallDisk {
    /// Mounts one of that many MiB.
    pub async fn new(mebibytes: u32) -> Result<Self> {
        let path = scratch("disk")?;
        let mut command = Command::new("unshare");
        if !is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        let mount =
            r#"mount -t tmpfs -o "size=$1m,mode=0755" tmpfs "$2" && echo mounted && exec cat"#;
        command.args(["--mount", "sh", "-c", mount, "sh", &mebibytes.to_string()]);
        command.arg(&path);
        // `cat` waits for the end of its input, which is the end of this.
        let mut holder =
            Process::spawn_command_listening("disk", command, &path.with_extension("log"))?;
        holder.wait_for_line("mounted", START).await?;
        Ok(Self { path, holder })
    }

    /// Where it is, for programs that are started in it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where it is for everybody else.
    pub fn seen(&self) -> PathBuf {
        let inside = self.path.strip_prefix("/").unwrap_or(&self.path);
        PathBuf::from(format!("/proc/{}/root", self.holder.pid())).join(inside)
    }

    /// What comes before a command so that it runs in it, as root of what is in there.
    pub(crate) fn enter(&self) -> Vec<OsString> {
        let namespaces = format!("/proc/{}/ns", self.holder.pid());
        let mut words: Vec<OsString> = vec!["nsenter".into()];
        if !is_root() {
            words.push(format!("--user={namespaces}/user").into());
            words.push("--preserve-credentials".into());
        }
        words.push(format!("--mount={namespaces}/mnt").into());
        words
    }

    /// Starts a program in it. Its id is the one of the process.
    pub fn spawn<A: AsRef<std::ffi::OsStr>>(
        &self,
        name: &str,
        program: &Path,
        args: impl IntoIterator<Item = A>,
        log: &Path,
    ) -> Result<Process> {
        let mut words = self.enter().into_iter();
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).arg(program).args(args);
        Process::spawn_command(name, command, log)
    }

    /// Takes what room there is, but for so many bytes.
    pub fn fill_up_to(&self, bytes: u64) -> Result<()> {
        let mut file = File::create(self.filling())?;
        let chunk = [b'x'; 4096];
        let mut taken: u64 = 0;
        loop {
            match file.write(&chunk) {
                Ok(written) => taken += u64::try_from(written)?,
                Err(full) if full.kind() == ErrorKind::StorageFull => break,
                Err(error) => return Err(error).context("cannot fill the small disk"),
            }
        }
        file.set_len(taken.saturating_sub(bytes))?;
        Ok(())
    }

    /// Gives back what [`Self::fill_up_to`] took.
    pub fn make_room(&self) -> Result<()> {
        std::fs::remove_file(self.filling()).context("cannot make room on the small disk")
    }

    fn filling(&self) -> PathBuf {
        self.seen().join("filling")
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
