//! What a run does to the machine that no namespace takes along, and how it is undone: by a script that
//! grows with it, which the program outside runs in the end, or its warden when it was killed.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::docker::printed;
use crate::warden::Warden;

pub(super) struct Undo(PathBuf);

impl Undo {
    /// The script of the run with that directory.
    pub(super) fn of(directory: &Path) -> Self {
        Self(directory.join("undo.sh"))
    }

    /// Has the warden of this process run it when the process ends.
    pub(super) fn hand_over(&self, warden: &Warden) {
        warden.undo_by(&self.0);
    }

    /// Notes how something is undone; before it is done.
    pub(super) fn note(&self, command: &[impl AsRef<str>]) -> Result<()> {
        let words: Vec<_> = command.iter().map(|word| quoted(word.as_ref())).collect();
        let file = OpenOptions::new().create(true).append(true).open(&self.0);
        let mut file = file.with_context(|| format!("cannot write {}", self.0.display()))?;
        // It may not have been done, or be undone already.
        writeln!(file, "{} || true", words.join(" "))?;
        Ok(())
    }

    /// Undoes all of it, and leaves the warden nothing to do.
    pub(super) fn run(&self) -> Result<()> {
        printed(Command::new("sh").arg(&self.0))?;
        std::fs::remove_file(&self.0).context("what was undone cannot be forgotten")
    }
}

/// As a shell takes it for one word.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_run_in_order_even_after_something_that_fails() {
        let folder = tempfile::tempdir().unwrap();
        let (undo, done) = (Undo::of(folder.path()), folder.path().join("it's done"));
        let done = done.to_str().unwrap();
        let missing = format!("{done} not");
        undo.note(&["touch", done]).unwrap();
        undo.note(&["rm", &missing]).unwrap();
        undo.note(&["cp", done, &format!("{done} twice")]).unwrap();
        undo.run().unwrap();
        assert!(Path::new(&format!("{done} twice")).exists());
        assert!(undo.run().is_err(), "nothing is left to undo");
    }
}
