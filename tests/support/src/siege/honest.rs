//! Honest devices: each comes by itself, connects, registers unchanged and goes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use rehome_testing::device::{Line, Registrar};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Devices that may be on their way at a time.
const AT_ONCE: usize = 2;
/// Pause of each between two.
const PAUSE: Duration = Duration::from_millis(20);

/// How long devices took, from connecting to the answer.
pub(crate) struct Times(Vec<Duration>);

impl Times {
    /// With those of another time of the same kind.
    pub(crate) fn add(&mut self, other: Self) {
        self.0.extend(other.0);
        self.0.sort_unstable();
    }

    /// The time that 99 of 100 did not exceed.
    pub(crate) fn p99(&self) -> Duration {
        self.0
            .get(self.0.len() * 99 / 100)
            .copied()
            .unwrap_or_default()
    }
}

/// Has devices come for that long; each request is another device's, in turn.
pub(crate) async fn come(
    at: &Registrar,
    requests: &Arc<Vec<Vec<u8>>>,
    time: Duration,
) -> Result<Times> {
    let end = Instant::now() + time;
    let mut coming = JoinSet::new();
    for first in 0..AT_ONCE {
        let (at, requests) = (at.clone(), requests.clone());
        coming.spawn(async move {
            let mut times = Vec::new();
            for request in requests
                .iter()
                .cycle()
                .skip(first * requests.len() / AT_ONCE)
            {
                if Instant::now() >= end {
                    break;
                }
                let begin = Instant::now();
                let mut line = Line::connect(&at.host, at.https, &at.trust).await?;
                let reply = line.ask(request).await?;
                ensure!(
                    reply.code == 202,
                    "an honest device was answered {}",
                    reply.code
                );
                times.push(begin.elapsed());
                sleep(PAUSE).await;
            }
            Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(came) = coming.join_next().await {
        times.extend(came??);
    }
    times.sort_unstable();
    Ok(Times(times))
}
