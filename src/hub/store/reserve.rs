//! Room on the volume that is kept back, so that no write of the store fails for want of it.
//!
//! redb takes a failed write for a broken disk: from then on nothing is even read, until the file is
//! opened again. So a file beside the store's holds room back. A write that finds the volume full is
//! given that room, and succeeds. After that whoever wants to write asks [`Reserve::restore`] first,
//! and is refused, before anything is done, until there is as much room again.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

/// Most that is kept back: what one transaction adds to the file at worst.
const MOST: u64 = 16 << 20;
/// Of a small volume this part is enough, since less of it can change at once.
const PART: u64 = 16;

/// The room that is kept back.
#[derive(Debug)]
pub(super) struct Reserve {
    file: File,
    bytes: u64,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Whole,
    /// The volume is full, or was when that was last asked.
    Spent,
    /// The file system cannot keep room for a file.
    Impossible,
}

/// The store's file, whose writes have the reserve behind them.
#[derive(Debug)]
pub(super) struct ReservedFile {
    file: FileBackend,
    reserve: Arc<Reserve>,
}

impl Reserve {
    /// Room beside that file. There may be none at the moment.
    pub(super) fn beside(store: &Path) -> io::Result<Self> {
        let mut path = store.as_os_str().to_owned();
        path.push(".reserve");
        let path = PathBuf::from(path);
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(false);
        let file = options.open(&path)?;
        let volume = statvfs(&path)?;
        let part = volume.f_blocks.saturating_mul(volume.f_frsize) / PART;
        let reserve = Self {
            file,
            bytes: part.clamp(1, MOST),
            state: Mutex::new(State::Spent),
        };
        if !reserve.restore() {
            tracing::warn!(
                reserve = %path.display(),
                "the volume of the hub's store is full: it is read, and takes no change until there \
                 is room"
            );
        }
        Ok(reserve)
    }

    /// Whether writes may begin: the room is kept back, now if it was not before.
    pub(super) fn restore(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if *state != State::Spent {
            return true;
        }
        match fallocate(&self.file, FallocateFlags::empty(), 0, self.bytes) {
            Ok(()) => {
                tracing::info!(bytes = self.bytes, "room is kept back for the hub's store");
                *state = State::Whole;
            }
            Err(Errno::NOTSUP | Errno::NOSYS) => {
                tracing::info!("no room can be kept back on the volume of the hub's store");
                *state = State::Impossible;
            }
            Err(_) => self.empty(),
        }
        *state != State::Spent
    }

    /// Does what may need room; what is kept back is given to it if there is no other.
    fn spend(&self, mut act: impl FnMut() -> io::Result<()>) -> io::Result<()> {
        match act() {
            Err(why) if is_full(&why) && self.give() => act(),
            done => done,
        }
    }

    fn give(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if *state != State::Whole {
            return false;
        }
        *state = State::Spent;
        self.empty();
        tracing::warn!(
            "the volume of the hub's store is full: it takes no further change until there is room"
        );
        true
    }

    /// An attempt that failed may have got a part of the room, which others need.
    fn empty(&self) {
        if let Err(error) = self.file.set_len(0) {
            tracing::warn!(%error, "room that was kept back cannot be given back");
        }
    }
}

fn is_full(why: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(why.kind(), StorageFull | QuotaExceeded)
}

impl ReservedFile {
    /// The file, made where there is none.
    pub(super) fn open(path: &Path, reserve: Arc<Reserve>) -> Result<Self, redb::Error> {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let file = options.open(path).map_err(redb::Error::Io)?;
        Ok(Self {
            file: FileBackend::new(file)?,
            reserve,
        })
    }
}

impl StorageBackend for ReservedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.reserve.spend(|| self.file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        // Not tried again: a system that fails a sync may have dropped what it should have written.
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.reserve.spend(|| self.file.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(from, to)
    }

    fn try_lock_shared_range(
        &self,
        from: Bound<u64>,
        to: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(from, to)
    }

    fn lock_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(from, to)
    }

    fn lock_shared_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(from, to)
    }

    fn unlock_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(from, to)
    }

    fn query_lock_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(from, to)
    }
}
