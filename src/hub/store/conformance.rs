//! What every store must do, run against each of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::future::join_all;
use rehome_testing::Postgres;
use tokio::sync::OnceCell;

use super::forgetful::ForgetfulDisk;
use super::{
    Counts, DurableStore, MemoryStore, Migration, PostgresStore, Store, Stored, Verdict, Write,
};

fn stored(revision: u64, enabled: bool, body: &str) -> Stored {
    Stored {
        revision,
        enabled,
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

fn write(device_id: &str, replaces: Option<u64>, with: Option<Stored>) -> Write {
    Write {
        device_id: device_id.into(),
        replaces,
        with,
        capacity: 1_000,
    }
}

async fn commit_one(store: &dyn Store, write: Write) -> Verdict {
    store.commit(vec![write]).await.unwrap()[0]
}

/// Runs the claim against each implementation, afresh.
async fn of_every_store(claim: impl AsyncFn(Arc<dyn Store>)) {
    claim(Arc::new(MemoryStore::new())).await;
    let folder = tempfile::tempdir().unwrap();
    claim(Arc::new(
        DurableStore::open(&folder.path().join("hub.redb")).unwrap(),
    ))
    .await;
    claim(Arc::new(
        DurableStore::over(ForgetfulDisk::default().open()).unwrap(),
    ))
    .await;
    claim(Arc::new(in_postgres().await)).await;
}

/// A hub of its own in the one database of this process.
async fn in_postgres() -> PostgresStore {
    static SERVER: OnceCell<Postgres> = OnceCell::const_new();
    static HUBS: AtomicUsize = AtomicUsize::new(0);
    let server = SERVER.get_or_init(async || Postgres::start().await.unwrap());
    let url = server.await.url();
    let host = format!("hub-{}.test", HUBS.fetch_add(1, Ordering::Relaxed));
    PostgresStore::open(&url, &host, Migration::None)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_write_on_an_older_read_is_refused() {
    of_every_store(async |store| {
        let create = write("press-7", None, Some(stored(1, true, "a")));
        assert_eq!(commit_one(&*store, create.clone()).await, Verdict::Applied);
        assert_eq!(commit_one(&*store, create).await, Verdict::Stale);
        let update = write("press-7", Some(1), Some(stored(2, false, "b")));
        assert_eq!(commit_one(&*store, update.clone()).await, Verdict::Applied);
        assert_eq!(commit_one(&*store, update).await, Verdict::Stale);
        assert_eq!(
            store.get("press-7").await.unwrap(),
            Some(stored(2, false, "b"))
        );
        assert_eq!(
            commit_one(&*store, write("press-7", Some(1), None)).await,
            Verdict::Stale
        );
        assert_eq!(
            commit_one(&*store, write("press-7", Some(2), None)).await,
            Verdict::Applied
        );
        assert_eq!(store.get("press-7").await.unwrap(), None);
        assert_eq!(
            commit_one(&*store, write("press-7", Some(2), None)).await,
            Verdict::Stale
        );
    })
    .await;
}

#[tokio::test]
async fn each_write_of_a_batch_stands_alone_and_sees_the_ones_before_it() {
    of_every_store(async |store| {
        let verdicts = store
            .commit(vec![
                write("a", None, Some(stored(1, true, "1"))),
                write("b", Some(7), Some(stored(2, true, "2"))),
                write("a", Some(1), Some(stored(3, true, "3"))),
                write("c", None, None),
            ])
            .await
            .unwrap();
        let expected = [
            Verdict::Applied,
            Verdict::Stale,
            Verdict::Applied,
            Verdict::Applied,
        ];
        assert_eq!(verdicts, expected);
        assert_eq!(store.get("a").await.unwrap(), Some(stored(3, true, "3")));
        assert_eq!(store.get("b").await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn a_full_store_refuses_creation_only() {
    of_every_store(async |store| {
        let room_for_one = |mut write: Write| {
            write.capacity = 1;
            write
        };
        let create = |id| room_for_one(write(id, None, Some(stored(1, true, ""))));
        assert_eq!(commit_one(&*store, create("a")).await, Verdict::Applied);
        assert_eq!(commit_one(&*store, create("b")).await, Verdict::Full);
        let update = room_for_one(write("a", Some(1), Some(stored(2, true, ""))));
        assert_eq!(commit_one(&*store, update).await, Verdict::Applied);
        assert_eq!(
            commit_one(&*store, room_for_one(write("a", Some(2), None))).await,
            Verdict::Applied
        );
        assert_eq!(commit_one(&*store, create("b")).await, Verdict::Applied);
    })
    .await;
}

#[tokio::test]
async fn a_scan_pages_through_every_device_in_order() {
    of_every_store(async |store| {
        let ids = ["A", "a", "a:1", "b", "z"];
        let batch = ids
            .iter()
            .rev()
            .map(|id| write(id, None, Some(stored(1, true, id))));
        store.commit(batch.collect()).await.unwrap();
        let mut seen: Vec<Arc<str>> = Vec::new();
        loop {
            let page = store.scan(seen.last().map(|id| &**id), 2).await.unwrap();
            if page.is_empty() {
                break;
            }
            assert!(page.iter().all(|(id, stored)| stored.body == id.as_bytes()));
            seen.extend(page.into_iter().map(|(id, _)| id));
        }
        assert_eq!(seen.iter().map(|id| &**id).collect::<Vec<_>>(), ids);
    })
    .await;
}

#[tokio::test]
async fn counts_follow_every_write() {
    of_every_store(async |store| {
        let expect = async |total, enabled| {
            assert_eq!(store.counts().await.unwrap(), Counts { total, enabled });
        };
        expect(0, 0).await;
        commit_one(&*store, write("a", None, Some(stored(1, true, "")))).await;
        commit_one(&*store, write("b", None, Some(stored(1, false, "")))).await;
        expect(2, 1).await;
        commit_one(&*store, write("a", Some(1), Some(stored(2, false, "")))).await;
        expect(2, 0).await;
        commit_one(&*store, write("b", Some(1), Some(stored(2, true, "")))).await;
        commit_one(&*store, write("a", Some(9), None)).await;
        expect(2, 1).await;
        commit_one(&*store, write("b", Some(2), None)).await;
        expect(1, 0).await;
    })
    .await;
}

#[tokio::test]
async fn reserved_numbers_are_never_given_out_twice() {
    of_every_store(async |store| {
        let first = store.reserve(10).await.unwrap();
        assert!(first >= 1);
        let claims = join_all((0..20).map(|_| store.reserve(3))).await;
        let mut firsts: Vec<u64> = claims.into_iter().map(Result::unwrap).collect();
        firsts.sort_unstable();
        assert!(firsts[0] >= first + 10);
        assert!(
            firsts.windows(2).all(|pair| pair[1] >= pair[0] + 3),
            "{firsts:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn of_concurrent_writers_on_one_revision_exactly_one_wins() {
    of_every_store(async |store| {
        commit_one(&*store, write("a", None, Some(stored(1, true, "")))).await;
        let rivals = (0..30).map(|rival| {
            let body = rival.to_string();
            store.commit(vec![write(
                "a",
                Some(1),
                Some(stored(rival + 2, true, &body)),
            )])
        });
        let verdicts: Vec<Verdict> = join_all(rivals)
            .await
            .into_iter()
            .map(|verdicts| verdicts.unwrap()[0])
            .collect();
        assert_eq!(
            verdicts
                .iter()
                .filter(|verdict| **verdict == Verdict::Applied)
                .count(),
            1
        );
        let winner = store.get("a").await.unwrap().unwrap();
        assert_eq!(winner.body, (winner.revision - 2).to_string().as_bytes());
    })
    .await;
}
