//! Device ids.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::hub::error::Refusal;

/// A case-sensitive id of 1–128 characters, each a letter, a digit or one of `-:.+%_#*?!(),=@;$'`
/// (Azure's page "Understand the identity registry").
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId(Arc<str>);

const LENGTH: usize = 128;

impl DeviceId {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl FromStr for DeviceId {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-:.+%_#*?!(),=@;$'".contains(c);
        if text.is_empty() || text.len() > LENGTH || !text.chars().all(allowed) {
            let start: String = text.chars().take(LENGTH).collect();
            return Err(Refusal::invalid(format!(
                "{start:?} is not a device id: use 1 to {LENGTH} of the letters, digits and \
                 -:.+%_#*?!(),=@;$'"
            )));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_characters_make_an_id() {
        for text in ["a", "A-z:0.+%_#*?!(),=@;$'", &"x".repeat(128)] {
            assert!(text.parse::<DeviceId>().is_ok(), "{text}");
        }
        for text in ["", "a b", "a/b", "ä", "a\n", &"x".repeat(129)] {
            assert!(text.parse::<DeviceId>().is_err(), "{text}");
        }
    }
}
