//! The device of the examples as an image, made of this machine's Python: what `examples/device/Dockerfile`
//! makes with a container engine.
//!
//! Everything lies where it lies on this machine, so that Python finds it: the interpreter, its
//! standard library, the packages from PyPI, and the shared libraries that any of them need.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rehome_testing::oci::{Architecture, Image, Tree};
use rehome_testing::scratch;

use crate::checkout;

const NAME: &str = "docker.io/library/rehome-device:latest";
/// Prints the interpreter and the folders of its library, a line each.
const PLACES: &str = "import os, sys, sysconfig
print(os.path.realpath(sys.executable))
for name in sorted({sysconfig.get_path('stdlib'), sysconfig.get_path('platstdlib')}): print(name)";
/// What no device needs, and much of it.
const LEFT_OUT: [&str; 10] = [
    "__pycache__",
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "turtledemo",
    "ensurepip",
    "lib2to3",
    "pip",
    "dist-packages",
];

/// Writes the archive; `python` is the interpreter of an environment with the SDK.
pub(crate) fn write(python: &Path) -> Result<PathBuf> {
    let environment = python
        .ancestors()
        .nth(2)
        .context("an interpreter is in bin")?;
    let printed = printed(Command::new(python).args(["-c", PLACES]))?;
    let mut lines = printed.lines().map(PathBuf::from);
    let interpreter = lines.next().context("Python printed nothing")?;
    let mut files = Tree::default();
    let leave_out = |path: &Path| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| LEFT_OUT.contains(&name) || name.starts_with("config-"))
    };
    let mut native = BTreeSet::from([interpreter.clone()]);
    // Packages that are installed beside the standard library are somebody else's.
    let standard = |path: &Path| leave_out(path) || path.ends_with("site-packages");
    for library in lines {
        files.copy(inside(&library)?, &library, &standard)?;
        collect(&library, &standard, &mut native)?;
    }
    files.copy(inside(environment)?, environment, &leave_out)?;
    collect(environment, &leave_out, &mut native)?;
    files.copy(inside(&interpreter)?, &interpreter, &leave_out)?;
    // Through however many links the environment led to it.
    files.link(inside(python)?, &interpreter.display().to_string());
    for library in libraries(&native)? {
        let real = library.canonicalize()?;
        files.program(inside(&library)?, std::fs::read(&real)?);
    }
    files.file(
        "device.py",
        std::fs::read(checkout().join("examples/device/device.py"))?,
    );
    files.file(
        "etc/passwd",
        "device:x:65532:65532:device:/:/sbin/nologin\n",
    );
    files.folder("tmp", 0o1777);
    let image = Image {
        name: NAME.into(),
        architecture: if cfg!(target_arch = "aarch64") {
            Architecture::Arm64
        } else {
            Architecture::Amd64
        },
        created: "1970-01-01T00:00:00Z".into(),
        files,
        entrypoint: vec![
            python.display().to_string(),
            "-u".into(),
            "/device.py".into(),
        ],
        user: "65532:65532".into(),
        environment: vec!["PYTHONDONTWRITEBYTECODE=1".into()],
        labels: BTreeMap::new(),
    };
    let archive = scratch("device-image")?.join("device.tar");
    image.write(&archive)?;
    Ok(archive)
}

/// A path in the image.
fn inside(path: &Path) -> Result<&str> {
    let path = path.to_str().context("a path in UTF-8")?;
    Ok(path.trim_start_matches('/'))
}

/// Finds what is linked to shared libraries.
fn collect(
    folder: &Path,
    leave_out: &dyn Fn(&Path) -> bool,
    found: &mut BTreeSet<PathBuf>,
) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if leave_out(&path) || path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            collect(&path, leave_out, found)?;
        } else if path.to_string_lossy().contains(".so") {
            found.insert(path);
        }
    }
    Ok(())
}

/// The shared libraries and the loader that these need, as `ldd` tells.
fn libraries(of: &BTreeSet<PathBuf>) -> Result<BTreeSet<PathBuf>> {
    let printed = printed(Command::new("ldd").args(of))?;
    let mut found = BTreeSet::new();
    for line in printed.lines().filter(|line| line.starts_with('\t')) {
        let path = line.split_whitespace().find(|word| word.starts_with('/'));
        ensure!(!line.contains("not found"), "a library is missing: {line}");
        found.extend(path.map(PathBuf::from));
    }
    Ok(found)
}

fn printed(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}", said.trim());
    Ok(String::from_utf8(output.stdout)?)
}
