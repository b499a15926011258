//! From the text of a query to what it asks.

use serde_json::Value;

use super::lexer::{Token, tokens};
use crate::hub::error::Refusal;

/// A query understood.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::hub) struct Query {
    pub(super) selection: Selection,
    pub(super) source: Source,
    pub(super) condition: Option<Condition>,
}

/// Whose twins are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Devices,
    Modules,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Selection {
    Twins,
    /// With the name of the result.
    Count(String),
    Columns(Vec<Column>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Column {
    pub(super) path: Path,
    pub(super) name: String,
}

/// Steps from the root of a twin, at least one.
pub(super) type Path = Vec<String>;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Condition {
    Or(Box<Self>, Box<Self>),
    And(Box<Self>, Box<Self>),
    Not(Box<Self>),
    IsDefined(Path),
    StartsWith(Path, String),
    Compare(Operand, Comparison, Operand),
    In {
        path: Path,
        values: Vec<Value>,
        negated: bool,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operand {
    Path(Path),
    Literal(Value),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    Greater,
    LessOrEqual,
    GreaterOrEqual,
}

/// Deepest nesting of conditions.
const DEPTH: usize = 50;
const COLUMNS: usize = 50;

impl Query {
    pub(in crate::hub) fn parse(text: &str) -> Result<Self, Refusal> {
        let tokens = tokens(text)?;
        let mut parser = Parser {
            rest: &tokens,
            depth: 0,
        };
        parser.expect_word("SELECT")?;
        let selection = parser.selection()?;
        parser.expect_word("FROM")?;
        let source = parser.source().ok_or_else(|| {
            Refusal::invalid("this hub answers queries FROM devices and FROM devices.modules only")
        })?;
        let condition = if parser.take_word("WHERE") {
            Some(parser.or()?)
        } else {
            None
        };
        if let Some(token) = parser.rest.first() {
            return Err(unexpected(Some(token)));
        }
        Ok(Self {
            selection,
            source,
            condition,
        })
    }
}

struct Parser<'a> {
    rest: &'a [Token],
    depth: usize,
}

impl Parser<'_> {
    fn take_mark(&mut self, mark: &str) -> bool {
        self.take_if(|token| matches!(token, Token::Mark(found) if *found == mark))
    }

    fn take_word(&mut self, word: &str) -> bool {
        self.take_if(|token| matches!(token, Token::Word(it) if it.eq_ignore_ascii_case(word)))
    }

    fn take_if(&mut self, wanted: impl Fn(&Token) -> bool) -> bool {
        let takes = self.rest.first().is_some_and(wanted);
        if takes {
            self.rest = &self.rest[1..];
        }
        takes
    }

    fn expect_word(&mut self, word: &str) -> Result<(), Refusal> {
        if self.take_word(word) {
            Ok(())
        } else {
            Err(self.wanted(word))
        }
    }

    fn expect_mark(&mut self, mark: &str) -> Result<(), Refusal> {
        if self.take_mark(mark) {
            Ok(())
        } else {
            Err(self.wanted(mark))
        }
    }

    fn wanted(&self, what: &str) -> Refusal {
        let found = unexpected(self.rest.first()).message;
        Refusal::invalid(format!("{found}, where {what} should stand"))
    }

    fn next(&mut self) -> Option<Token> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first.clone())
    }

    fn source(&mut self) -> Option<Source> {
        if !self.take_word("devices") {
            return None;
        }
        if !self.take_mark(".") {
            return Some(Source::Devices);
        }
        self.take_word("modules").then_some(Source::Modules)
    }

    fn selection(&mut self) -> Result<Selection, Refusal> {
        if self.take_mark("*") {
            return Ok(Selection::Twins);
        }
        let count = [Token::Mark("("), Token::Mark(")")];
        if self.rest.get(1..3) == Some(&count) && self.take_word("COUNT") {
            self.rest = &self.rest[2..];
            return Ok(Selection::Count(
                self.alias()?.unwrap_or_else(|| "count".into()),
            ));
        }
        let mut columns = Vec::new();
        loop {
            let path = self.path()?;
            let name = self
                .alias()?
                .or_else(|| path.last().cloned())
                .unwrap_or_default();
            columns.push(Column { path, name });
            if !self.take_mark(",") {
                return Ok(Selection::Columns(columns));
            }
            if columns.len() == COLUMNS {
                return Err(Refusal::invalid(format!(
                    "a query selects at most {COLUMNS} columns"
                )));
            }
        }
    }

    fn alias(&mut self) -> Result<Option<String>, Refusal> {
        if !self.take_word("AS") {
            return Ok(None);
        }
        match self.next() {
            Some(Token::Word(name) | Token::Quoted(name)) => Ok(Some(name)),
            token => Err(unexpected(token.as_ref())),
        }
    }

    fn path(&mut self) -> Result<Path, Refusal> {
        let mut path = Vec::new();
        loop {
            match self.next() {
                Some(Token::Word(step) | Token::Quoted(step)) => path.push(step),
                token => return Err(unexpected(token.as_ref())),
            }
            if !self.take_mark(".") {
                return Ok(path);
            }
        }
    }

    fn or(&mut self) -> Result<Condition, Refusal> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(Refusal::invalid(
                "the query's conditions are nested too deeply",
            ));
        }
        let mut left = self.and()?;
        while self.take_word("OR") {
            left = Condition::Or(Box::new(left), Box::new(self.and()?));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn and(&mut self) -> Result<Condition, Refusal> {
        let mut left = self.not()?;
        while self.take_word("AND") {
            left = Condition::And(Box::new(left), Box::new(self.not()?));
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Condition, Refusal> {
        let mut negations = 0;
        while self.take_word("NOT") {
            negations += 1;
        }
        let condition = self.primary()?;
        // NOT NOT changes nothing, not even an undefined result.
        let negated = negations % 2 == 1;
        Ok(if negated {
            Condition::Not(Box::new(condition))
        } else {
            condition
        })
    }

    fn primary(&mut self) -> Result<Condition, Refusal> {
        if self.take_mark("(") {
            let inner = self.or()?;
            self.expect_mark(")")?;
            return Ok(inner);
        }
        let is_call = self.rest.get(1) == Some(&Token::Mark("("));
        if is_call && self.take_word("IS_DEFINED") {
            self.expect_mark("(")?;
            let path = self.path()?;
            self.expect_mark(")")?;
            return Ok(Condition::IsDefined(path));
        }
        if is_call && self.take_word("STARTSWITH") {
            self.expect_mark("(")?;
            let path = self.path()?;
            self.expect_mark(",")?;
            let Some(Token::Literal(Value::String(prefix))) = self.next() else {
                return Err(Refusal::invalid(
                    "STARTSWITH takes a path and a text in quotes",
                ));
            };
            self.expect_mark(")")?;
            return Ok(Condition::StartsWith(path, prefix));
        }
        let left = self.operand()?;
        if let Operand::Path(path) = &left {
            let (path, negated) = (path.clone(), self.take_word("NIN"));
            if negated || self.take_word("IN") {
                return Ok(Condition::In {
                    path,
                    values: self.list()?,
                    negated,
                });
            }
        }
        let comparison = self.comparison()?;
        Ok(Condition::Compare(left, comparison, self.operand()?))
    }

    fn comparison(&mut self) -> Result<Comparison, Refusal> {
        match self.next() {
            Some(Token::Mark("=")) => Ok(Comparison::Equal),
            Some(Token::Mark("!=" | "<>")) => Ok(Comparison::NotEqual),
            Some(Token::Mark("<")) => Ok(Comparison::Less),
            Some(Token::Mark(">")) => Ok(Comparison::Greater),
            Some(Token::Mark("<=")) => Ok(Comparison::LessOrEqual),
            Some(Token::Mark(">=")) => Ok(Comparison::GreaterOrEqual),
            token => Err(unexpected(token.as_ref())),
        }
    }

    fn operand(&mut self) -> Result<Operand, Refusal> {
        match self.literal() {
            Some(value) => Ok(Operand::Literal(value)),
            None => self.path().map(Operand::Path),
        }
    }

    fn literal(&mut self) -> Option<Value> {
        let value = match self.rest.first()? {
            Token::Literal(value) => value.clone(),
            Token::Word(word) => match word.to_ascii_lowercase().as_str() {
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                "null" => Value::Null,
                _ => return None,
            },
            Token::Quoted(_) | Token::Mark(_) => return None,
        };
        self.rest = &self.rest[1..];
        Some(value)
    }

    fn list(&mut self) -> Result<Vec<Value>, Refusal> {
        self.expect_mark("[")?;
        let mut values = Vec::new();
        loop {
            values.push(self.literal().ok_or_else(|| self.wanted("a value"))?);
            if !self.take_mark(",") {
                self.expect_mark("]")?;
                return Ok(values);
            }
        }
    }
}

fn unexpected(token: Option<&Token>) -> Refusal {
    let found = match token {
        None => "ends too early".to_owned(),
        Some(Token::Word(word) | Token::Quoted(word)) => format!("has an unexpected '{word}'"),
        Some(Token::Literal(value)) => format!("has an unexpected {value}"),
        Some(Token::Mark(mark)) => format!("has an unexpected '{mark}'"),
    };
    Refusal::invalid(format!("the query {found}"))
}
