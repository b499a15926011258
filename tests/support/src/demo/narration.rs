//! What the demo says, and what it claims.

use anyhow::{Result, bail};
use serde_json::Value;

/// Tells the story. A claim that is not so ends it.
#[derive(Default)]
pub(crate) struct Narration {
    chapters: usize,
    claims: usize,
}

impl Narration {
    pub(crate) fn chapter(&mut self, title: &str) {
        self.chapters += 1;
        println!("\n== {}. {title}", self.chapters);
    }

    pub(crate) fn say(&self, text: &str) {
        println!("{text}");
    }

    /// Shows somebody's words, set apart.
    pub(crate) fn quote(&self, text: &str) {
        for line in text.trim_end().lines() {
            println!("    {line}");
        }
    }

    /// Checks what the demo says.
    pub(crate) fn claim(&mut self, what: &str, holds: bool) -> Result<()> {
        if !holds {
            bail!("this is not so: {what}");
        }
        self.claims += 1;
        println!("  ✓ {what}");
        Ok(())
    }

    /// As [`Self::claim`], for two values that must be equal; shows them if they are not.
    pub(crate) fn claim_equal(&mut self, what: &str, seen: &Value, wanted: &Value) -> Result<()> {
        if seen != wanted {
            bail!("this is not so: {what}; seen {seen}, expected {wanted}");
        }
        self.claim(what, true)
    }

    /// How many claims held.
    pub(crate) fn claims(&self) -> usize {
        self.claims
    }
}
