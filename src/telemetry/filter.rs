//! What is logged, and the file that may say it.
//!
//! A file and not a request: whoever may change what is logged is who may change the file, which in a
//! cluster is a ConfigMap with its own rights. Content is compared, not modification times: the kubelet
//! swaps a symbolic link.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use tracing_subscriber::filter::{LevelFilter, ParseError};
use tracing_subscriber::reload::Handle;
use tracing_subscriber::{EnvFilter, Registry};

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Words that are no filter.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// Taken for a module it would silence everything else.
    #[error(
        "{0:?} is no level (off, error, warn, info, debug, trace); a level for a module is MODULE=LEVEL"
    )]
    NoLevel(String),
    /// The rest of what can be wrong.
    #[error("{0:?} is no filter for log lines: {1}")]
    Malformed(String, ParseError),
}

/// Reads a level, or levels by module.
pub(super) fn parse(words: &str) -> Result<EnvFilter, FilterError> {
    let alone = |word: &&str| !word.contains(['=', '[', ']', '{', '}']);
    let is_level = |word: &str| word.parse::<LevelFilter>().is_ok();
    let mut lone = words.split(',').map(str::trim).filter(alone);
    if let Some(word) = lone.find(|word| !word.is_empty() && !is_level(word)) {
        return Err(FilterError::NoLevel(word.to_owned()));
    }
    // What a span's field must be is that and no pattern: an id may hold a dot.
    let parsed = EnvFilter::builder().with_regex(false).parse(words);
    parsed.map_err(|error| FilterError::Malformed(words.to_owned(), error))
}

/// A file that says what is logged.
pub(super) struct FilterFile {
    path: PathBuf,
    /// What counts while the file says nothing.
    otherwise: String,
    /// What the last look found, so that it is acted on and told once.
    found: String,
    filter: Handle<EnvFilter, Registry>,
}

impl FilterFile {
    /// `otherwise` is in force when this is called.
    pub(super) fn new(
        path: PathBuf,
        otherwise: String,
        filter: Handle<EnvFilter, Registry>,
    ) -> Self {
        Self {
            path,
            found: otherwise.clone(),
            otherwise,
            filter,
        }
    }

    /// Puts into force what the file says, if that is new. What cannot be used is told, and what is
    /// in force stays.
    pub(super) fn look(&mut self) {
        let path = self.path.display();
        let read = match std::fs::read_to_string(&self.path) {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(format!("{path} cannot be read: {error}")),
        };
        let found = match &read {
            Ok(words) if words.is_empty() => &self.otherwise,
            Ok(words) => words,
            Err(complaint) => complaint,
        };
        if *found == self.found {
            return;
        }
        let filter = match &read {
            Ok(_) => parse(found).map_err(|error| format!("{path}: {error}")),
            Err(complaint) => Err(complaint.clone()),
        };
        match filter {
            Ok(filter) => {
                // An error means that nobody logs any more.
                let _ = self.filter.reload(filter);
                tracing::info!(filter = found, "what is logged has changed");
            }
            Err(complaint) => tracing::warn!("{complaint}; what is logged stays as it was"),
        }
        self.found = found.clone();
    }

    /// Looks for ever.
    pub(super) async fn keep_fresh(mut self) {
        loop {
            tokio::time::sleep(LOOK).await;
            // Files may lie on a slow volume; never block the reactor for them.
            let looked = tokio::task::spawn_blocking(move || {
                self.look();
                self
            });
            match looked.await {
                Ok(file) => self = file,
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::reload;

    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused_and_not_taken_for_a_module() {
        for words in [
            "info",
            "DEBUG",
            "off",
            "warn,rehome::gateway=debug",
            "rehome[request{registration=press-7}]=debug,info",
            "info,",
        ] {
            assert!(parse(words).is_ok(), "{words}");
        }
        for words in ["debugg", "info,verbose", "rehome=loud", "rehome["] {
            let error = parse(words).err().map(|error| error.to_string());
            assert!(error.is_some(), "{words}");
        }
    }

    #[test]
    fn what_the_file_says_is_in_force_until_it_says_something_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("filter");
        let (_layer, handle) = reload::Layer::new(parse("info").unwrap());
        let mut file = FilterFile::new(path.clone(), "info".into(), handle.clone());
        let in_force = || handle.with_current(ToString::to_string).unwrap();
        for (text, expected) in [
            (None, "info"),
            (Some("debug\n"), "debug"),
            (Some("nonsense"), "debug"),
            (Some("rehome::hub=trace"), "rehome::hub=trace"),
            (Some(" \n"), "info"),
            (Some("warn"), "warn"),
            (None, "info"),
        ] {
            match text {
                Some(text) => std::fs::write(&path, text).unwrap(),
                // It may not be there yet.
                None => drop(std::fs::remove_file(&path)),
            }
            file.look();
            assert_eq!(in_force(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("filter");
        let (_layer, handle) = reload::Layer::new(parse("warn").unwrap());
        let mut file = FilterFile::new(path.clone(), "warn".into(), handle.clone());
        std::fs::write(&path, "debug").unwrap();
        file.look();
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        file.look();
        assert_eq!(handle.with_current(ToString::to_string).unwrap(), "debug");
    }
}
