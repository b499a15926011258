//! A disk that loses everything since its last sync, and what the durable store makes of it.

use std::sync::{Arc, Mutex};

use redb::{Database, StorageBackend};

/// What the file holds now, and what it would hold after the power went.
#[derive(Debug, Default)]
struct Platter {
    written: Vec<u8>,
    synced: Vec<u8>,
    syncs: u64,
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
    pub(super) fn after_power_loss(&self) -> Self {
        let synced = self.0.lock().unwrap().synced.clone();
        Self(Arc::new(Mutex::new(Platter {
            written: synced.clone(),
            synced,
            syncs: 0,
        })))
    }

    fn syncs(&self) -> u64 {
        self.0.lock().unwrap().syncs
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
        platter.synced = platter.written.clone();
        platter.syncs += 1;
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        let from = usize::try_from(offset).unwrap();
        self.0.lock().unwrap().written[from..from + data.len()].copy_from_slice(data);
        Ok(())
    }
}

mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
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
