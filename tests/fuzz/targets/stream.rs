//! A client on an in-memory stream: it sends the input in pieces, waits a while and hangs up.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// How long a client waits for answers before it hangs up. Below the limits on silence, so that these
/// are not what every input ends with.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is kept of the answers.
const KEPT: usize = 4096;

/// See the module text.
pub(super) struct Client {
    input: Vec<u8>,
    sent: usize,
    piece: usize,
    hangs_up: Pin<Box<Sleep>>,
    /// The beginning of what it was answered.
    answers: Arc<Mutex<Vec<u8>>>,
}

impl Client {
    /// The first byte of the input says how large the pieces are; the rest is what is sent.
    pub(super) fn new(before: &[u8], input: &[u8]) -> Self {
        let (first, rest) = input.split_first().unwrap_or((&0, &[]));
        let piece = match first % 4 {
            0 => usize::MAX,
            1 => 1,
            2 => 1 + usize::from(*first),
            _ => 1460,
        };
        Self {
            input: [before, rest].concat(),
            sent: 0,
            piece,
            hangs_up: Box::pin(sleep_until(Instant::now() + PATIENCE)),
            answers: Arc::default(),
        }
    }

    /// What it is answered, as far as it is kept.
    pub(super) fn answers(&self) -> Arc<Mutex<Vec<u8>>> {
        self.answers.clone()
    }
}

impl AsyncRead for Client {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let rest = this.input.get(this.sent..).unwrap_or_default();
        if rest.is_empty() {
            ready!(this.hangs_up.as_mut().poll(cx));
            return Poll::Ready(Ok(()));
        }
        let count = rest.len().min(this.piece).min(buffer.remaining());
        buffer.put_slice(rest.get(..count).unwrap_or_default());
        this.sent += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut answers = this.answers.lock().expect("nobody panics while holding it");
        let room = KEPT.saturating_sub(answers.len()).min(bytes.len());
        answers.extend_from_slice(bytes.get(..room).unwrap_or_default());
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Runs to the end, in a runtime of its own whose time stands still until nothing else is to be done.
/// Tasks that were spawned end with it.
pub(super) fn run<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime needs nothing but memory");
    runtime.block_on(future)
}
