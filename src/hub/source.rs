//! Where a hub's devices are: a file of its own, or PostgreSQL.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::store::{DurableStore, Migration, OpenError, PostgresStore, Store, StoreError};

/// Between tries to open a store in PostgreSQL.
const RETRY: Duration = Duration::from_secs(1);

/// Where the devices are.
#[derive(Debug, Clone)]
pub(super) enum Source {
    File(PathBuf),
    /// Of the file with the connection URL.
    Postgres(PathBuf),
}

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum Unopened {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the file {0} with the connection URL of PostgreSQL cannot be read")]
    Url(PathBuf, #[source] std::io::Error),
    #[error(transparent)]
    Postgres(OpenError),
}

impl Source {
    /// Opens the store. Waits for a database that does not answer, and for another process of this
    /// hub to end, and tells what it waits for.
    pub(super) async fn open(
        &self,
        host: &str,
        tell: impl Fn(&str),
    ) -> Result<Arc<dyn Store>, Unopened> {
        match self {
            Self::File(path) => Ok(Arc::new(DurableStore::open(path)?)),
            Self::Postgres(file) => {
                let url = read_url(file).await?;
                Ok(Arc::new(
                    open_postgres(&url, host, Migration::None, tell).await?,
                ))
            }
        }
    }
}

/// The connection URL in a file.
pub(super) async fn read_url(file: &PathBuf) -> Result<String, Unopened> {
    let read = tokio::fs::read_to_string(file).await;
    read.map_err(|why| Unopened::Url(file.clone(), why))
}

/// Opens the store in PostgreSQL, however long that takes; what it waits for is told, and logged once.
pub(super) async fn open_postgres(
    url: &str,
    host: &str,
    migration: Migration,
    tell: impl Fn(&str),
) -> Result<PostgresStore, Unopened> {
    let mut told = String::new();
    loop {
        let why = match PostgresStore::open(url, host, migration).await {
            Ok(store) => return Ok(store),
            Err(why @ (OpenError::Url | OpenError::Parameter(_) | OpenError::Unfinished(_))) => {
                return Err(Unopened::Postgres(why));
            }
            Err(why) => why.to_string(),
        };
        if why != told {
            tell(&why);
            tracing::warn!("{why}; it is tried again until that has changed");
            told = why;
        }
        tokio::time::sleep(RETRY).await;
    }
}
