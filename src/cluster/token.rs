//! The gateway's token.
//!
//! A pod has one ServiceAccount, the controller's. The gateway beside it must not hold that one's
//! rights, so the controller asks for a token of the gateway's own ServiceAccount
//! (`TokenRequest`) and leaves it in a memory volume that only the two share.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::time::sleep;

use super::apply::{ApplyError, bounded};
use crate::clock::Clock;

/// Name of the token's file in its directory.
pub const TOKEN_FILE: &str = "token";
/// Life that is asked for; the API server may give another.
const LIFE_SECONDS: i64 = 3600;
/// How soon a failed renewal is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// The wall clock may step: look at the token's age at least this often.
const LONGEST_SLEEP: Duration = Duration::from_mins(1);

/// `NAMESPACE/NAME` of a ServiceAccount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccountRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A text that does not name a ServiceAccount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not NAMESPACE/NAME of a ServiceAccount")]
pub struct NotAServiceAccount(String);

/// A token that could not be provided.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The API server gave none.
    #[error("no token of ServiceAccount {account} from the API server")]
    Request {
        /// Whose token.
        account: String,
        /// Why.
        #[source]
        source: ApplyError,
    },
    /// The API server's answer holds no token.
    #[error("the API server's answer holds no token")]
    Empty,
    /// The file cannot be written.
    #[error("the token cannot be written to {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl FromStr for ServiceAccountRef {
    type Err = NotAServiceAccount;

    fn from_str(text: &str) -> Result<Self, NotAServiceAccount> {
        match text.split_once('/') {
            Some((namespace, name))
                if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
            {
                Ok(Self {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                })
            }
            _ => Err(NotAServiceAccount(text.to_owned())),
        }
    }
}

/// Keeps a current token of `account` in `directory`, for ever. Renews it after four fifths of
/// its life, by the wall clock, because that is what the API server judges it by.
pub async fn keep_token(
    client: Client,
    account: ServiceAccountRef,
    directory: PathBuf,
    clock: Arc<dyn Clock>,
) {
    loop {
        let renew_at = match renew(&client, &account, &directory, clock.now()).await {
            Ok(renew_at) => renew_at,
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(%error, cause, "the gateway's token was not renewed");
                sleep(RETRY).await;
                continue;
            }
        };
        let issued_at = clock.now();
        loop {
            let now = clock.now();
            let left = Duration::try_from(renew_at.duration_since(now)).unwrap_or_default();
            if left.is_zero() || now < issued_at {
                break;
            }
            sleep(left.min(LONGEST_SLEEP)).await;
        }
    }
}

/// Writes a new token and returns when it is due for renewal.
async fn renew(
    client: &Client,
    account: &ServiceAccountRef,
    directory: &Path,
    now: Timestamp,
) -> Result<Timestamp, TokenError> {
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), &account.namespace);
    let request = TokenRequest {
        spec: TokenRequestSpec {
            expiration_seconds: Some(LIFE_SECONDS),
            ..TokenRequestSpec::default()
        },
        ..TokenRequest::default()
    };
    let params = PostParams::default();
    let answer = bounded(api.create_token_request(&account.name, &params, &request))
        .await
        .map_err(|source| TokenError::Request {
            account: format!("{}/{}", account.namespace, account.name),
            source,
        })?;
    let status = answer.status.ok_or(TokenError::Empty)?;
    let path = directory.join(TOKEN_FILE);
    write_atomically(&path, status.token.as_bytes())
        .await
        .map_err(|source| TokenError::Write { path, source })?;
    let life = status.expiration_timestamp.0.duration_since(now);
    Ok(now + life * 4 / 5)
}

/// A reader sees the old token or the new one, whole. Owner and group may read it: the two
/// containers may run as different users of one group.
async fn write_atomically(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    let _ = tokio::fs::remove_file(&temporary).await;
    let mut options = tokio::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o640);
    let mut file = options.open(&temporary).await?;
    tokio::io::AsyncWriteExt::write_all(&mut file, content).await?;
    file.set_permissions(Permissions::from_mode(0o640)).await?;
    file.sync_all().await?;
    tokio::fs::rename(&temporary, path).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_account_is_a_namespace_and_a_name() {
        let parsed: ServiceAccountRef = "rehome-system/rehome-gateway".parse().unwrap();
        assert_eq!(parsed.namespace, "rehome-system");
        assert_eq!(parsed.name, "rehome-gateway");
        for wrong in ["", "a", "/a", "a/", "a/b/c"] {
            assert!(wrong.parse::<ServiceAccountRef>().is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_token_replaces_the_old_one_whole_and_is_not_for_everyone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(TOKEN_FILE);
        std::fs::write(directory.path().join("token.new"), "left by a crash").unwrap();
        write_atomically(&path, b"a rather long first token")
            .await
            .unwrap();
        write_atomically(&path, b"second").await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
