//! Waiting for a condition, the only way in which tests let time pass.

use std::time::{Duration, Instant};

/// Asks `probe` until it answers, and gives the answer.
///
/// # Panics
/// When there is no answer `within` the time; the message names `what` was waited for.
pub async fn expect<T>(
    what: &str,
    within: Duration,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> T {
    expect_ok(what, within, async || probe().await.ok_or("not so")).await
}

/// As [`expect`], for a probe that can tell what it saw instead: its last error is in the message.
///
/// # Panics
/// When there is no success `within` the time.
#[expect(
    clippy::panic,
    reason = "a condition that does not come true fails the test"
)]
pub async fn expect_ok<T, E: std::fmt::Debug>(
    what: &str,
    within: Duration,
    probe: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    match until(within, probe).await {
        Ok(value) => value,
        Err(Some(seen)) => panic!("waited {within:?} for: {what}; last seen: {seen:?}"),
        Err(None) => panic!("waited {within:?} for: {what}; it could not even be looked at"),
    }
}

/// Asks `probe` until it succeeds; after the time the last error, none if not one look ended.
pub async fn until<T, E>(
    within: Duration,
    mut probe: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, Option<E>> {
    let end = Instant::now() + within;
    let mut pause = Duration::from_millis(5);
    let mut last = None;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, probe()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(seen)) => last = Some(seen),
            Err(_) => return Err(last),
        }
        if left.is_zero() {
            return Err(last);
        }
        tokio::time::sleep(pause.min(left)).await;
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_answer_is_given_once_it_is_there() {
        let mut looks = 0;
        let answer = expect("three looks", Duration::from_secs(5), async || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(answer.await, 3);
    }

    #[tokio::test]
    #[should_panic(expected = "for: the moon; last seen: \"clouds\"")]
    async fn a_timeout_says_what_was_waited_for_and_what_was_seen() {
        expect_ok::<(), _>("the moon", Duration::from_millis(20), async || {
            Err("clouds")
        })
        .await;
    }

    #[tokio::test]
    #[should_panic(expected = "could not even be looked at")]
    async fn a_probe_that_hangs_is_not_waited_for() {
        expect::<()>("an answer", Duration::from_millis(20), std::future::pending).await;
    }
}
