//! A disk that loses everything since its last sync, and what the durable store makes of it.

use std::sync::{Arc, Mutex};

use redb::{Database, StorageBackend};

/// What the file holds now, and what of it would be left after the power went.
#[derive(Debug, Default)]
struct Platter {
    written: Vec<u8>,
    synced: Vec<u8>,
    /// Since the last sync, in order: a disk may have kept any of them.
    unsynced: Vec<(usize, Vec<u8>)>,
    syncs: u64,
    /// Whether it fails to sync from now on.
    fails: bool,
    /// Shown what could be left of the disk just before each sync.
    witness: Option<Witness>,
}

#[derive(Clone)]
struct Witness(Arc<dyn Fn([ForgetfulDisk; 3]) + Send + Sync>);

impl std::fmt::Debug for Witness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Witness")
    }
}

/// Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(super) struct ForgetfulDisk(Arc<Mutex<Platter>>);

impl ForgetfulDisk {
    pub(super) fn open(&self) -> Database {
        Database::builder()
            .create_with_backend(self.clone())
            .unwrap()
    }

    /// A new disk with what would be left if the power went now.
    fn after_power_loss(&self) -> Self {
        self.0.lock().unwrap().after_power_loss(|_| false)
    }

    fn syncs(&self) -> u64 {
        self.0.lock().unwrap().syncs
    }
}

impl Platter {
    /// What was synced, and of the later writes those that `keeps` picks.
    fn after_power_loss(&self, keeps: impl Fn(usize) -> bool) -> ForgetfulDisk {
        let mut left = self.synced.clone();
        for (at, (offset, data)) in self.unsynced.iter().enumerate() {
            if keeps(at) {
                let end = offset + data.len();
                left.resize(left.len().max(end), 0);
                left[*offset..end].copy_from_slice(data);
            }
        }
        let platter = Self {
            written: left.clone(),
            synced: left,
            ..Self::default()
        };
        ForgetfulDisk(Arc::new(Mutex::new(platter)))
    }
}

impl StorageBackend for ForgetfulDisk {
    fn len(&self) -> Result<u64, std::io::Error> {
        Ok(self.0.lock().unwrap().written.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        let from = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.0.lock().unwrap().written[from..from + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        self.0
            .lock()
            .unwrap()
            .written
            .resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), std::io::Error> {
        let mut platter = self.0.lock().unwrap();
        if platter.fails {
            return Err(std::io::Error::other("the disk is full"));
        }
        if let Some(Witness(witness)) = platter.witness.clone() {
            let none = platter.after_power_loss(|_| false);
            let all = platter.after_power_loss(|_| true);
            let torn = platter.after_power_loss(|at| at % 2 == 0);
            drop(platter);
            witness([none, all, torn]);
            platter = self.0.lock().unwrap();
        }
        platter.synced = platter.written.clone();
        platter.unsynced.clear();
        platter.syncs += 1;
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        let from = usize::try_from(offset).unwrap();
        let mut platter = self.0.lock().unwrap();
        platter.written[from..from + data.len()].copy_from_slice(data);
        platter.unsynced.push((from, data.to_vec()));
        Ok(())
    }
}

mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use futures::FutureExt;
    use futures::executor::block_on;
    use futures::future::join_all;

    use super::*;
    use crate::hub::store::{DurableStore, Store, Stored, Verdict, Write};

    fn put(device: u64, replaces: Option<u64>, revision: u64) -> Write {
        let body = Bytes::from(format!("device {device} at {revision}").repeat(20));
        let with = Some(Stored {
            revision,
            enabled: true,
            body,
        });
        Write {
            device_id: format!("d{device}").into(),
            replaces,
            with,
            capacity: u64::MAX,
        }
    }

    #[tokio::test]
    async fn every_acknowledged_write_survives_the_loss_of_power_at_once() {
        let disk = ForgetfulDisk::default();
        let store = DurableStore::over(disk.open()).unwrap();
        let mut acknowledged: BTreeMap<u64, u64> = BTreeMap::new();
        let mut reserved = 0;
        for round in 1..=40 {
            let devices = (0..30_u64).filter(|device| !(device + round).is_multiple_of(3));
            let writers = devices.map(|device| {
                let replaces = acknowledged.get(&device).copied();
                let commit = store.commit(vec![put(device, replaces, round)]);
                async move { (device, commit.await.unwrap()[0]) }
            });
            for (device, verdict) in join_all(writers).await {
                assert_eq!(verdict, Verdict::Applied);
                acknowledged.insert(device, round);
            }
            let first = store.reserve(5).await.unwrap();
            assert!(first > reserved);
            reserved = first + 4;

            let survivor = DurableStore::over(disk.after_power_loss().open()).unwrap();
            for (device, revision) in &acknowledged {
                let found = survivor.get(&format!("d{device}")).await.unwrap().unwrap();
                assert_eq!(
                    Some(found),
                    put(*device, None, *revision).with,
                    "round {round}"
                );
            }
            assert_eq!(
                survivor.counts().await.unwrap().total,
                acknowledged.len() as u64
            );
            assert!(
                survivor.reserve(1).await.unwrap() > reserved,
                "round {round}"
            );
        }
    }

    /// The power goes just before every sync, while writers are at work. Of what was not synced
    /// the disk keeps nothing, everything, or every other write.
    #[tokio::test]
    async fn what_was_acknowledged_is_there_whenever_the_power_goes() {
        let disk = ForgetfulDisk::default();
        let store = Arc::new(DurableStore::over(disk.open()).unwrap());
        let acknowledged: Arc<Mutex<BTreeMap<u64, u64>>> = Arc::default();
        let failures: Arc<Mutex<Vec<String>>> = Arc::default();
        let (promised, seen) = (acknowledged.clone(), failures.clone());
        let witness = Witness(Arc::new(move |disks| {
            let promised = promised.lock().unwrap().clone();
            for (kept, left) in disks.into_iter().enumerate() {
                seen.lock().unwrap().extend(missing(&left, &promised, kept));
            }
        }));
        disk.0.lock().unwrap().witness = Some(witness);
        let writers = (0..4).map(|device| {
            let (store, acknowledged) = (store.clone(), acknowledged.clone());
            tokio::spawn(async move {
                for revision in 1..=25 {
                    let replaces = (revision > 1).then(|| revision - 1);
                    let verdicts = store.commit(vec![put(device, replaces, revision)]).await;
                    assert_eq!(verdicts.unwrap(), [Verdict::Applied]);
                    acknowledged.lock().unwrap().insert(device, revision);
                }
            })
        });
        for writer in join_all(writers).await {
            writer.unwrap();
        }
        let failures = failures.lock().unwrap();
        assert!(failures.is_empty(), "{failures:?}");
        assert!(disk.syncs() > 25, "{} syncs", disk.syncs());
    }

    /// What the hub would lack after a start from this disk.
    fn missing(left: &ForgetfulDisk, promised: &BTreeMap<u64, u64>, kept: usize) -> Vec<String> {
        let survivor = DurableStore::over(left.open()).unwrap();
        let lacks = |(device, revision): (&u64, &u64)| {
            let found = block_on(survivor.get(&format!("d{device}"))).unwrap();
            let whole = found.is_some_and(|found| {
                found.revision >= *revision
                    && Some(&found) == put(*device, None, found.revision).with.as_ref()
            });
            (!whole).then(|| format!("d{device} at {revision}, variant {kept}"))
        };
        promised.iter().filter_map(lacks).collect()
    }

    #[tokio::test]
    async fn a_write_that_fails_is_not_acknowledged_and_tells_that_the_store_is_broken() {
        let disk = ForgetfulDisk::default();
        let store = DurableStore::over(disk.open()).unwrap();
        store.commit(vec![put(1, None, 1)]).await.unwrap();
        assert_eq!(store.broken().now_or_never(), None);
        disk.0.lock().unwrap().fails = true;
        let why = store.commit(vec![put(1, Some(1), 2)]).await.unwrap_err();
        assert!(why.to_string().contains("the disk is full"), "{why}");
        store.broken().await;

        let survivor = DurableStore::over(disk.after_power_loss().open()).unwrap();
        assert_eq!(survivor.get("d1").await.unwrap(), put(1, None, 1).with);
    }

    #[tokio::test]
    async fn the_disk_does_forget_what_was_not_synced() {
        let disk = ForgetfulDisk::default();
        let database = disk.open();
        disk.write(0, b"scribble").unwrap();
        assert_ne!(
            disk.after_power_loss().0.lock().unwrap().written[..8],
            *b"scribble"
        );
        drop(database);
    }

    #[tokio::test]
    async fn concurrent_writers_share_a_sync() {
        let disk = ForgetfulDisk::default();
        let store = DurableStore::over(disk.open()).unwrap();
        let before = disk.syncs();
        let writers = (0..200).map(|device| store.commit(vec![put(device, None, 1)]));
        for verdicts in join_all(writers).await {
            assert_eq!(verdicts.unwrap(), [Verdict::Applied]);
        }
        let syncs = disk.syncs() - before;
        assert!(
            (1..100).contains(&syncs),
            "{syncs} syncs for 200 concurrent writers"
        );
    }
}
