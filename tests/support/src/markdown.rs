//! Pages in Markdown: their blocks of code, their links, and where links can lead.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// What a page holds, apart from its words.
#[derive(Debug, Default)]
pub struct Page {
    /// Blocks of code, in their order.
    pub blocks: Vec<Block>,
    /// Links and images, in their order.
    pub links: Vec<Link>,
    /// The anchors of the headings, as GitHub and mdBook make them.
    pub anchors: BTreeSet<String>,
}

/// A block of code between fences.
#[derive(Debug, PartialEq)]
pub struct Block {
    /// What stands behind the opening fence, such as `sh`.
    pub info: String,
    /// The lines, without the end of the last.
    pub text: String,
    /// Where it begins, counted from 1.
    pub line: usize,
}

/// A link, or an image.
#[derive(Debug, PartialEq)]
pub struct Link {
    /// Where it leads.
    pub target: String,
    /// Where it stands, counted from 1.
    pub line: usize,
}

impl Page {
    /// Reads a page from its file.
    pub fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file);
        Ok(Self::of(&text.with_context(|| file.display().to_string())?))
    }

    /// The page of that text.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "whatever else there is on a page is words"
    )]
    pub fn of(text: &str) -> Self {
        let options = Options::ENABLE_TABLES | Options::ENABLE_GFM | Options::ENABLE_STRIKETHROUGH;
        let mut page = Self::default();
        let line = |range: &Range<usize>| text[..range.start].matches('\n').count() + 1;
        let (mut block, mut heading): (Option<Block>, Option<String>) = (None, None);
        for (event, range) in Parser::new_ext(text, options).into_offset_iter() {
            match event {
                Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) => {
                    block = Some(Block {
                        info: info.into_string(),
                        text: String::new(),
                        line: line(&range),
                    });
                }
                Event::End(TagEnd::CodeBlock) => page.blocks.extend(block.take().map(|block| {
                    let text = block.text.trim_end_matches('\n').to_owned();
                    Block { text, ..block }
                })),
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    let words = heading.take().unwrap_or_default();
                    page.add_anchor(&words);
                }
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push(Link {
                        target: dest_url.into_string(),
                        line: line(&range),
                    });
                }
                Event::Text(words) | Event::Code(words) => {
                    if let Some(block) = &mut block {
                        block.text.push_str(&words);
                    }
                    if let Some(heading) = &mut heading {
                        heading.push_str(&words);
                    }
                }
                _ => {}
            }
        }
        page
    }

    /// The commands that a reader is to run, and that a test runs: blocks that are marked `sh` and
    /// no more.
    pub fn commands(&self) -> impl Iterator<Item = &str> {
        let marked = self.blocks.iter().filter(|block| block.info == "sh");
        marked.map(|block| &*block.text)
    }

    /// A heading that is there already gets a number behind it.
    fn add_anchor(&mut self, words: &str) {
        let anchor = anchor(words);
        let numbered = (1..).map(|number| format!("{anchor}-{number}"));
        let free = std::iter::once(anchor.clone())
            .chain(numbered)
            .find(|one| !self.anchors.contains(one));
        self.anchors.extend(free);
    }
}

/// Letters and digits in lower case, hyphens, underscores; a hyphen for each space; nothing else.
fn anchor(heading: &str) -> String {
    let characters = heading.trim().chars().filter_map(|one| match one {
        ' ' => Some('-'),
        '-' | '_' => Some(one),
        _ => one.is_alphanumeric().then_some(one),
    });
    characters.collect::<String>().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_blocks_that_are_commands_are_taken_whole_and_in_order() {
        let page = Page::of(
            "a\n```sh\none \\\n  more\n```\nb\n```\noutput\n```\n- in a list:\n\n  ```sh\n  two\n  ```\n\n```sh not-run\nthree\n```\n",
        );
        let commands: Vec<_> = page.commands().collect();
        assert_eq!(commands, ["one \\\n  more", "two"]);
        assert_eq!(
            (page.blocks[3].info.as_str(), page.blocks[3].line),
            ("sh not-run", 16)
        );
    }

    #[test]
    fn links_are_found_wherever_they_stand_but_in_code() {
        let page = Page::of(
            "[a](a.md), `[b](b.md)`\n\n| [c][see] |\n|---|\n| ![d](d.png) |\n\n    [e](e.md)\n\n[see]: c.md#x\n",
        );
        let targets: Vec<_> = page
            .links
            .iter()
            .map(|link| (&*link.target, link.line))
            .collect();
        assert_eq!(targets, [("a.md", 1), ("c.md#x", 3), ("d.png", 5)]);
    }

    #[test]
    fn anchors_are_those_of_github() {
        let page = Page::of("# X.509: one `device`\n## Who_is – it?\n## Again\n## Again\n");
        let anchors: Vec<_> = page.anchors.iter().map(String::as_str).collect();
        assert_eq!(
            anchors,
            ["again", "again-1", "who_is--it", "x509-one-device"]
        );
    }
}
