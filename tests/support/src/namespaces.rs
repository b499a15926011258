//! A program that runs itself again in namespaces of its own. When it ends, however it ends, everything
//! in there ends with it.

use std::process::{Command, ExitStatus};

use anyhow::{Context, Result};

use crate::warden::Warden;

/// What the program is told when it runs inside; a name of no flag of the product, which it would mean.
const INSIDE: &str = "REHOME_TESTING_INSIDE";

/// Whether this program runs inside already.
pub(crate) fn are_entered() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs this program again, with the same arguments, in namespaces that `unshare` makes, and waits for
/// its end. Its files go with the directory of this process, or stay there when it fails.
pub(crate) fn enter(flags: &[&str]) -> Result<ExitStatus> {
    let warden = Warden::get()?;
    let program = std::env::current_exe().context("where am I?")?;
    let mut child = Command::new("unshare")
        .args(flags)
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "yes")
        .env("TMPDIR", warden.directory())
        .spawn()
        .context("cannot run unshare (Debian: apt-get install util-linux)")?;
    warden.watch(child.id());
    let status = child.wait()?;
    warden.release(child.id());
    if !status.success() {
        warden.keep();
        let kept = warden.directory().display();
        eprintln!("the logs of every process are kept in {kept}");
    }
    Ok(status)
}
