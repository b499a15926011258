//! Files of a hub's configuration that are read again when they change. A change that cannot be
//! used is told, and what is in use stays.

use std::marker::PhantomData;
use std::path::PathBuf;
use std::time::Duration;

use super::certificates::{Authorities, AuthoritiesError};
use super::policy::{Policies, PoliciesError};

/// How often a file is looked at.
pub(super) const REFRESH: Duration = Duration::from_secs(10);

/// What a file can hold.
pub(super) trait Content: Sized {
    /// For people: "the … file".
    const WHAT: &'static str;
    type Error: std::error::Error + Send + Sync + 'static;

    fn parse(text: &str) -> Result<Self, Self::Error>;
}

impl Content for Policies {
    const WHAT: &'static str = "policies";
    type Error = PoliciesError;

    fn parse(text: &str) -> Result<Self, PoliciesError> {
        Self::parse(text)
    }
}

impl Content for Authorities {
    const WHAT: &'static str = "device authorities";
    type Error = AuthoritiesError;

    fn parse(text: &str) -> Result<Self, AuthoritiesError> {
        Self::parse(text)
    }
}

/// Why a file cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("the {what} file {path} cannot be read")]
    Read {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the {what} file {path} cannot be used")]
    Content {
        what: &'static str,
        path: PathBuf,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A file, as last read.
pub(super) struct WatchedFile<T> {
    path: PathBuf,
    text: String,
    content: PhantomData<fn() -> T>,
}

impl<T: Content> WatchedFile<T> {
    pub(super) fn read(path: PathBuf) -> Result<Self, FileError> {
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Self {
                path,
                text,
                content: PhantomData,
            }),
            Err(source) => Err(FileError::Read {
                what: T::WHAT,
                path,
                source,
            }),
        }
    }

    pub(super) fn parse(&self) -> Result<T, FileError> {
        T::parse(&self.text).map_err(|source| FileError::Content {
            what: T::WHAT,
            path: self.path.clone(),
            source: source.into(),
        })
    }

    /// Hands over every usable change of the file, for ever.
    pub(super) async fn keep_fresh(mut self, take: impl Fn(T))
    where
        T: 'static,
    {
        loop {
            tokio::time::sleep(REFRESH).await;
            let path = self.path.clone();
            let Ok(read) = tokio::task::spawn_blocking(|| Self::read(path)).await else {
                continue;
            };
            let next = match read {
                Ok(next) if next.text == self.text => continue,
                Ok(next) => next,
                Err(why) => {
                    tracing::warn!("{}; what is in use stays", describe(&why));
                    continue;
                }
            };
            match next.parse() {
                Ok(content) => {
                    take(content);
                    tracing::info!(file = %next.path.display(), "{} reloaded", T::WHAT);
                }
                Err(why) => tracing::warn!("{}; what is in use stays", describe(&why)),
            }
            self = next;
        }
    }
}

/// An error with its causes, on one line.
fn describe(why: &dyn std::error::Error) -> String {
    let mut text = why.to_string();
    let mut source = why.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::json;

    use super::*;

    fn file_with(name: &str) -> String {
        let policy = json!({ "name": name, "permissions": ["ServiceConnect"],
            "primaryKey": "cHJpbWFyeS1rZXktMDEyMw==", "secondaryKey": "c2Vjb25kYXJ5LWtleS0wMQ==" });
        json!({ "policies": [policy] }).to_string()
    }

    #[tokio::test(start_paused = true)]
    async fn usable_changes_of_a_file_are_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policies.json");
        std::fs::write(&path, file_with("first")).unwrap();
        let file = WatchedFile::<Policies>::read(path.clone()).unwrap();
        let policies = Mutex::new(file.parse().unwrap());
        let knows = |name| policies.lock().unwrap().find(name).is_some();
        let rounds = async {
            for (text, known) in [
                (file_with("second"), "second"),
                ("{".to_owned(), "second"),
                (file_with("third"), "third"),
            ] {
                std::fs::write(&path, text).unwrap();
                tokio::time::sleep(REFRESH * 3).await;
                assert!(knows(known), "{known}");
            }
            assert!(!knows("first") && !knows("second"));
            std::fs::remove_file(&path).unwrap();
            tokio::time::sleep(REFRESH * 3).await;
            assert!(knows("third"));
        };
        tokio::select! {
            () = rounds => {}
            () = file.keep_fresh(|next| *policies.lock().unwrap() = next) => {}
        }
    }

    #[test]
    fn an_error_is_told_with_its_causes_on_one_line() {
        let why = FileError::Content {
            what: "policies",
            path: "p.json".into(),
            source: PoliciesError::Count(0).into(),
        };
        let expected = "the policies file p.json cannot be used: it holds 0 policies, and a hub \
                        takes 1 to 16";
        assert_eq!(describe(&why), expected);
    }
}
