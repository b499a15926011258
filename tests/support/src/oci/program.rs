//! A program for an image that has nothing else: it must bring everything along.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

/// Header of a 64-bit little-endian ELF file, up to the identification of the system.
const MAGIC: &[u8] = b"\x7fELF\x02\x01";
/// The program header that names the dynamic loader.
const PT_INTERP: u32 = 3;

/// A statically linked program.
pub struct Program {
    pub architecture: Architecture,
    pub bytes: Vec<u8>,
}

/// What a program was compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    Amd64,
    Arm64,
}

impl Architecture {
    /// As image indexes and Go call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

impl Program {
    /// Reads a program; one that needs a dynamic loader, which the image has not, is refused.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path);
        let bytes = bytes.with_context(|| format!("cannot read {}", path.display()))?;
        let architecture = inspect(&bytes).with_context(|| path.display().to_string())?;
        Ok(Self {
            architecture,
            bytes,
        })
    }
}

fn inspect(bytes: &[u8]) -> Result<Architecture> {
    ensure!(bytes.starts_with(MAGIC), "it is no 64-bit ELF program");
    let architecture = match number::<2>(bytes, 18)? {
        62 => Architecture::Amd64,
        183 => Architecture::Arm64,
        other => bail!("it is for machine {other}; images are for amd64 and arm64"),
    };
    let (table, size, count) = (
        number::<8>(bytes, 32)?,
        number::<2>(bytes, 54)?,
        number::<2>(bytes, 56)?,
    );
    for index in 0..count {
        let kind = number::<4>(bytes, table + index * size)?;
        ensure!(
            kind != u64::from(PT_INTERP),
            "it is linked dynamically and would not start in an empty image: build it with \
             RUSTFLAGS=\"-C target-feature=+crt-static\""
        );
    }
    Ok(architecture)
}

/// The little-endian number of `N` bytes at `offset`.
fn number<const N: usize>(bytes: &[u8], offset: u64) -> Result<u64> {
    let field = usize::try_from(offset)
        .ok()
        .and_then(|start| bytes.get(start..)?.get(..N))
        .context("its ELF header is cut off")?;
    Ok(field
        .iter()
        .rev()
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn compiled(folder: &Path, flags: &[&str]) -> std::path::PathBuf {
        let (source, program) = (folder.join("main.c"), folder.join("main"));
        std::fs::write(&source, "int main(void) { return 0; }\n").unwrap();
        let mut cc = Command::new("cc");
        cc.args(flags).arg("-o").arg(&program).arg(source);
        assert!(cc.status().unwrap().success());
        program
    }

    #[test]
    fn only_a_program_that_needs_no_loader_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let program = Program::read(&compiled(folder.path(), &["-static"])).unwrap();
        let here = if cfg!(target_arch = "aarch64") {
            "arm64"
        } else {
            "amd64"
        };
        assert_eq!(program.architecture.name(), here);
        let error = Program::read(&compiled(folder.path(), &[])).err().unwrap();
        assert!(format!("{error:#}").contains("crt-static"), "{error:#}");
    }

    #[test]
    fn what_is_no_program_is_refused() {
        assert!(inspect(b"#!/bin/sh").is_err());
        assert!(inspect(b"\x7fELF\x02\x01").is_err());
    }
}
