//! How things look on a terminal: tables, ages, colours.
//!
//! Text carries colours as escape sequences; what writes it out takes them away where they do not
//! belong (`anstream`: no terminal, or `NO_COLOR`).

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use jiff::{SignedDuration, Timestamp};

use super::finding::Standing;

/// Text in the making.
#[derive(Default)]
pub(super) struct Screen {
    text: String,
}

/// One cell of a table.
pub(super) struct Cell {
    text: String,
    style: Style,
}

impl Screen {
    /// A line.
    pub(super) fn line(&mut self, text: impl AsRef<str>) {
        self.text.push_str(text.as_ref());
        self.text.push('\n');
    }

    /// The heading of a part, after an empty line.
    pub(super) fn heading(&mut self, text: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        let style = Style::new().bold();
        self.line(format!("{style}{text}{style:#}"));
    }

    /// The command to type next.
    pub(super) fn next(&mut self, command: &str) {
        let style = Style::new().bold();
        self.line(format!("\nNext: {style}{command}{style:#}"));
    }

    /// A table, indented, its columns as wide as they need be.
    pub(super) fn table(&mut self, header: &[&str], rows: &[Vec<Cell>]) {
        let wide = |at: usize| {
            let cells = rows.iter().filter_map(|row| row.get(at));
            let cells = cells.map(|cell| cell.text.chars().count());
            cells.chain([header[at].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..header.len()).map(wide).collect();
        let dim = Style::new().dimmed();
        let header = header.iter().map(|text| Cell::styled(*text, dim)).collect();
        for row in std::iter::once(&header).chain(rows) {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let Cell { text, style } = cell;
                let gap = width.saturating_sub(text.chars().count());
                // Writing to a String cannot fail.
                let _ = write!(line, "  {style}{text}{style:#}{:gap$}", "");
            }
            self.line(line.trim_end());
        }
    }

    /// All of it.
    pub(super) fn into_text(self) -> String {
        self.text
    }
}

impl Cell {
    /// Without a colour.
    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self::styled(text, Style::new())
    }

    /// Green when all is well, red when not.
    pub(super) fn verdict(text: impl Into<String>, standing: Standing) -> Self {
        Self::styled(text, style_of(standing))
    }

    fn styled(text: impl Into<String>, style: Style) -> Self {
        let text = text.into();
        // An empty cell would make the next one look like its own.
        let text = if text.is_empty() {
            "–".to_owned()
        } else {
            text
        };
        Self { text, style }
    }
}

/// The colour of a standing.
pub(super) fn style_of(standing: Standing) -> Style {
    let colour = |colour: AnsiColor| Style::new().fg_color(Some(colour.into()));
    match standing {
        Standing::Stuck => colour(AnsiColor::Red),
        Standing::Working => colour(AnsiColor::Yellow),
        Standing::Disabled => Style::new().dimmed(),
        Standing::Fine => colour(AnsiColor::Green),
    }
}

/// How long ago, to one unit: `12 s`, `5 min`, `3 h`, `4 d`.
pub(super) fn ago(then: Timestamp, now: Timestamp) -> String {
    lasting(now.duration_since(then))
}

/// A duration to one unit.
pub(super) fn lasting(duration: SignedDuration) -> String {
    match duration.as_secs().max(0) {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// `1 device`, `2 devices`.
pub(super) fn count(number: usize, one: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {one}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_one_unit() {
        let age = |seconds| lasting(SignedDuration::from_secs(seconds));
        let ages = [-3, 0, 119, 120, 7199, 7200, 172_799, 172_800].map(age);
        assert_eq!(
            ages,
            [
                "0 s", "0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 d"
            ]
        );
    }

    #[test]
    fn columns_line_up_with_and_without_colours() {
        let mut screen = Screen::default();
        let row = |name: &str, standing| {
            vec![
                Cell::plain(name),
                Cell::verdict("x", standing),
                Cell::plain(""),
            ]
        };
        let rows = [row("hub-west", Standing::Fine), row("é", Standing::Stuck)];
        screen.table(&["NAME", "READY", "WHY"], &rows);
        let text = screen.into_text();
        assert!(text.contains("\u{1b}[31m"), "{text:?}");
        let plain = anstream::adapter::strip_str(&text).to_string();
        assert_eq!(
            plain,
            "  NAME      READY  WHY\n  hub-west  x      –\n  é         x      –\n"
        );
    }
}
