//! The clock that everything else is handed: nothing but this module and `main` asks the system.

use std::time::{Duration, Instant};

use jiff::Timestamp;

/// Tells the time.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock: for what people and other machines read. It may step, back too.
    fn now(&self) -> Timestamp;

    /// Time since an arbitrary start: for ages and deadlines. It never steps.
    fn monotonic(&self) -> Duration;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where the wall clock is read"
    )]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A clock for tests: it stands still unless it is told otherwise.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct Stopped(std::sync::Mutex<Duration>);

#[cfg(test)]
impl Stopped {
    /// Lets so much time pass.
    pub(crate) fn forward(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }
}

#[cfg(test)]
impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH + *self.0.lock().unwrap()
    }

    fn monotonic(&self) -> Duration {
        *self.0.lock().unwrap()
    }
}
