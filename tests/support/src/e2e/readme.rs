//! The commands of a page, which are run as they stand there.

use anyhow::{Result, ensure};
use rehome_testing::markdown::Page;

use crate::checkout;

/// The lines of each block that is marked as `sh`.
pub(crate) fn commands(file: &str) -> Result<Vec<String>> {
    let page = Page::read(&checkout().join(file))?;
    let blocks: Vec<_> = page.commands().map(str::to_owned).collect();
    ensure!(!blocks.is_empty(), "{file} has no commands");
    Ok(blocks)
}
