//! Two processes of one hub, of which one does not know yet that the other has taken over.

use std::time::Duration;

use bytes::Bytes;
use rehome_testing::{Postgres, expect};
use sqlx::{Connection as _, PgConnection, raw_sql};

use super::{Migration, PostgresStore, Store, Stored, Verdict, Write};

const HOST: &str = "hub-west.test";
const PATIENCE: Duration = Duration::from_mins(1);

fn write(replaces: Option<u64>, revision: u64) -> Vec<Write> {
    let with = Stored {
        revision,
        enabled: true,
        body: Bytes::from_static(b"{}"),
    };
    vec![Write {
        device_id: "press-7".into(),
        replaces,
        with: Some(with),
        capacity: 10,
    }]
}

/// Ends the connections that hold locks, and no other.
async fn take_locks_away(server: &Postgres) {
    let mut administrator = PgConnection::connect(&server.url()).await.unwrap();
    let end = "SELECT pg_terminate_backend(pid) FROM pg_locks \
               WHERE locktype = 'advisory' AND granted";
    raw_sql(end).execute(&mut administrator).await.unwrap();
}

#[tokio::test]
async fn a_process_that_lost_its_lock_writes_nothing_until_it_has_it_again() {
    let server = Postgres::start().await.unwrap();
    let open = async || PostgresStore::open(&server.url(), HOST, Migration::None).await;
    let first = open().await.unwrap();
    let written = first.commit(write(None, 1)).await.unwrap();
    assert_eq!(written, [Verdict::Applied]);
    let second = expect("another process", PATIENCE, async || {
        // Again and again: the first may have noticed and been quicker.
        take_locks_away(&server).await;
        open().await.ok()
    });
    let second = second.await;

    assert!(first.commit(write(Some(1), 2)).await.is_err());
    let found = second.get("press-7").await.unwrap().unwrap();
    assert_eq!(found.revision, 1);
    let written = second.commit(write(Some(1), 3)).await.unwrap();
    assert_eq!(written, [Verdict::Applied]);

    drop(second);
    let regained = expect("the first again", PATIENCE, async || {
        first.get("press-7").await.ok().flatten()
    });
    assert_eq!(regained.await.revision, 3);
    assert!(*first.losses().borrow() > 0, "who counts on it is not told");
    let written = first.commit(write(Some(3), 4)).await.unwrap();
    assert_eq!(written, [Verdict::Applied]);
}
