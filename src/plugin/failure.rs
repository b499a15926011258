//! Why a command could not be carried out: what was tried, why it failed, what to do.

use std::error::Error;

use crate::cluster::apply::ApplyError;

/// A command that could not be carried out.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Failure {
    what: String,
    #[source]
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Failure {
    /// With nothing behind it.
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            source: None,
        }
    }

    /// With an error behind it.
    pub fn because(
        what: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self {
            what: what.into(),
            source: Some(source.into()),
        }
    }

    /// Of a request to the API server, `verb` of `what` in a namespace.
    pub fn of_request(verb: &str, what: &str, namespace: Option<&str>, error: ApplyError) -> Self {
        let at = namespace.map_or(" in any namespace".to_owned(), |it| {
            format!(" in namespace {it}")
        });
        let status = if let ApplyError::Api(error) = &error
            && let kube::Error::Api(status) = error.as_ref()
        {
            Some(status.clone())
        } else {
            None
        };
        let tried = format!("cannot {verb} {what}{at}");
        match status {
            Some(status) if status.is_forbidden() => {
                let flag = namespace.map_or("--all-namespaces".to_owned(), |it| format!("-n {it}"));
                let what = what.split(' ').next().unwrap_or(what);
                Self::new(format!(
                    "{tried}: {}; see kubectl auth can-i {verb} {what} {flag}",
                    status.message
                ))
            }
            // The path itself is unknown, not an object.
            Some(status)
                if status.is_not_found()
                    && status.details.as_ref().is_none_or(|it| it.name.is_empty()) =>
            {
                Self::new(format!(
                    "{tried}: this cluster does not know the kind; install Rehome's CRDs \
                     (kubectl apply -f crds/) or check the context"
                ))
            }
            Some(status) => Self::new(format!("{tried}: {}", status.message)),
            None => Self::because(tried, error),
        }
    }

    /// The whole chain in one line.
    pub fn whole(&self) -> String {
        let mut text = self.what.clone();
        let mut source = Error::source(self);
        while let Some(error) = source {
            let cause = error.to_string();
            // Some libraries repeat the cause in their message.
            if !text.contains(&cause) {
                text.push_str(": ");
                text.push_str(&cause);
            }
            source = error.source();
        }
        text
    }
}
