//! Words of a query.

use serde_json::Value;

use crate::hub::error::Refusal;

/// One word.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A keyword, a name or one step of a path.
    Word(String),
    /// A step of a path in double brackets: never a keyword.
    Quoted(String),
    Literal(Value),
    /// An operator or a punctuation mark.
    Mark(&'static str),
}

const MARKS: [&str; 14] = [
    "<>", "!=", "<=", ">=", "=", "<", ">", "(", ")", "[", "]", ",", ".", "*",
];
/// Longest query, in bytes.
const LENGTH: usize = 8 * 1024;

pub(super) fn tokens(query: &str) -> Result<Vec<Token>, Refusal> {
    if query.len() > LENGTH {
        return Err(Refusal::invalid(format!(
            "the query is longer than {LENGTH} bytes"
        )));
    }
    let mut tokens = Vec::new();
    let mut rest = query.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            '\'' | '"' => text(rest, first)?,
            '[' if rest.starts_with("[[") => {
                let end = rest.find("]]").ok_or_else(|| unfinished(rest))?;
                (Token::Quoted(rest[2..end].to_owned()), end + 2)
            }
            '0'..='9' | '-' | '+' => number(rest)?,
            _ if is_name(first) => {
                let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
                (Token::Word(rest[..end].to_owned()), end)
            }
            _ => {
                let mark = MARKS.iter().find(|mark| rest.starts_with(**mark));
                let mark = mark.ok_or_else(|| {
                    Refusal::invalid(format!("the query has an unexpected {first:?}"))
                })?;
                (Token::Mark(mark), mark.len())
            }
        };
        tokens.push(token);
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '$' | '@' | '%')
}

/// A text in quotes; the quote itself is written twice or behind a backslash.
fn text(rest: &str, quote: char) -> Result<(Token, usize), Refusal> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        let next = chars.peek().map(|(_, c)| *c);
        if c == '\\' && next.is_some_and(|next| next == quote || next == '\\')
            || c == quote && next == Some(quote)
        {
            text.extend(next);
            chars.next();
        } else if c == quote {
            return Ok((Token::Literal(text.into()), at + 1));
        } else {
            text.push(c);
        }
    }
    Err(unfinished(rest))
}

fn number(rest: &str) -> Result<(Token, usize), Refusal> {
    let in_number = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '-' | '+');
    let end = rest.find(|c| !in_number(c)).unwrap_or(rest.len());
    let number = serde_json::from_str::<Value>(rest[..end].trim_start_matches('+'))
        .map_err(|_| Refusal::invalid(format!("the query has {:?} for a number", &rest[..end])))?;
    Ok((Token::Literal(number), end))
}

fn unfinished(rest: &str) -> Refusal {
    let start: String = rest.chars().take(20).collect();
    Refusal::invalid(format!("the query has a quote that does not end: {start}…"))
}
