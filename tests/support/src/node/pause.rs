//! The container that holds a pod's namespaces. There is no registry to pull the usual one from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::oci::{Image, Program, Tree};

pub(super) const NAME: &str = "registry.local/pause:1";

const SOURCE: &str = r"
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void end(int signal) { _exit(0); }
static void reap(int signal) { while (waitpid(-1, 0, WNOHANG) > 0); }

int main(void) {
    signal(SIGINT, end);
    signal(SIGTERM, end);
    signal(SIGCHLD, reap);
    for (;;) pause();
}
";

/// Compiles it and writes its image.
pub(super) fn archive(directory: &Path) -> Result<PathBuf> {
    let [source, program, archive] =
        ["pause.c", "pause", "pause.tar"].map(|name| directory.join(name));
    std::fs::write(&source, SOURCE)?;
    let mut cc = Command::new("cc");
    cc.args(["-static", "-Os", "-o"]).arg(&program).arg(&source);
    let output = cc.output().context("a C compiler is needed")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "cc cannot link statically: {}",
        said.trim()
    );
    let program = Program::read(&program)?;
    let mut files = Tree::default();
    files.program("pause", program.bytes);
    let image = Image {
        name: NAME.into(),
        architecture: program.architecture,
        created: "1970-01-01T00:00:00Z".into(),
        files,
        entrypoint: vec!["/pause".into()],
        user: "65535:65535".into(),
        environment: Vec::new(),
        labels: BTreeMap::new(),
    };
    image.write(&archive)?;
    Ok(archive)
}
