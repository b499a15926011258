//! The commands of a README, which are run as they stand there.

use anyhow::{Context, Result, ensure};

use crate::checkout;

/// The lines of each block that is marked as `sh`.
pub(crate) fn commands(file: &str) -> Result<Vec<String>> {
    let path = checkout().join(file);
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let blocks = blocks(&text);
    ensure!(!blocks.is_empty(), "{file} has no commands");
    Ok(blocks)
}

fn blocks(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("\n```sh\n") {
        let (block, more) = after.split_once("\n```\n").unwrap_or((after, ""));
        blocks.push(block.to_owned());
        rest = more;
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_blocks_that_are_commands_are_taken_whole_and_in_order() {
        let text = "a\n```sh\none \\\n  more\n```\nb\n```\noutput\n```\n```sh\ntwo\n```\n";
        assert_eq!(blocks(text), ["one \\\n  more", "two"]);
    }
}
