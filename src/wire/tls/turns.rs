//! How much of a processor one client may have for its handshakes.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until};

/// Rests add up to this before they are taken, because timers are no finer.
const GRAIN: Duration = Duration::from_millis(1);
/// The most that one step counts for: a busy machine interrupts steps, and that is no fault of theirs.
const STEP_AT_MOST: Duration = Duration::from_millis(5);

/// Handshakes of one client are computed one after the other, and with rests: a flood of them comes at
/// once, and without rests all devices would wait until it is computed.
#[derive(Debug)]
pub(super) struct Turns {
    one: Semaphore,
    /// How much of a processor they may take.
    percent: u32,
    rested_at: Mutex<Instant>,
}

/// The right to compute one step. To be held for as long as that takes, never while waiting for the
/// client: network round trips take no turn.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    begun: Instant,
    _one: SemaphorePermit<'a>,
}

impl Turns {
    /// With so much of one processor, from 1 to 100.
    pub(super) fn new(percent: u32) -> Self {
        Self {
            one: Semaphore::new(1),
            percent: percent.clamp(1, 100),
            rested_at: Mutex::new(Instant::now()),
        }
    }

    /// Waits until no other handshake of the client is being computed, and until it has rested.
    pub(super) async fn next(&self) -> Option<Turn<'_>> {
        // Nobody closes it.
        let one = self.one.acquire().await.ok()?;
        let rested_at = *self.rested_at();
        if rested_at > Instant::now() + GRAIN {
            sleep_until(rested_at).await;
        }
        Some(Turn {
            turns: self,
            begun: Instant::now(),
            _one: one,
        })
    }

    fn rested_at(&self) -> std::sync::MutexGuard<'_, Instant> {
        self.rested_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let took = self.begun.elapsed().min(STEP_AT_MOST);
        let mut rested_at = self.turns.rested_at();
        *rested_at = (*rested_at).max(self.begun) + took * 100 / self.turns.percent;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use tokio::time::advance;

    use super::*;

    #[tokio::test]
    async fn handshakes_of_one_client_wait_for_each_other() {
        let turns = Turns::new(10);
        let first = turns.next().now_or_never().unwrap();
        assert!(turns.next().now_or_never().is_none());
        drop(first);
        assert!(turns.next().now_or_never().is_some());
    }

    /// A thousand steps of 0.2 ms, one wanted after the other: 0.2 s of work.
    #[tokio::test(start_paused = true)]
    async fn a_flood_of_handshakes_gets_a_tenth_of_a_processor() {
        let (turns, begin) = (Turns::new(10), Instant::now());
        for _ in 0..1000 {
            let turn = turns.next().await;
            advance(Duration::from_micros(200)).await;
            drop(turn);
        }
        let took = begin.elapsed();
        assert!(took > Duration::from_millis(1_990), "{took:?}");
        assert!(took < Duration::from_secs(3), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_that_was_interrupted_costs_no_long_rest_and_rest_is_not_saved_up() {
        let turns = Turns::new(10);
        let turn = turns.next().await;
        advance(Duration::from_secs(10)).await;
        drop(turn);
        let begin = Instant::now();
        drop(turns.next().await);
        assert!(begin.elapsed() <= STEP_AT_MOST * 9);
        advance(Duration::from_mins(1)).await;
        let turn = turns.next().await;
        advance(Duration::from_millis(2)).await;
        drop(turn);
        let begin = Instant::now();
        drop(turns.next().await);
        assert!(begin.elapsed() >= Duration::from_millis(18));
    }
}
