//! Drives one [`Session`] over a byte stream: reads, writes and keeps time.

use std::io::ErrorKind;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};

use super::session::{End, Event, Session, SessionLimits};

/// Bounds of one connection. The defaults suit devices on the public Internet.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub session: SessionLimits,
    /// From the first byte of the stream to the first link.
    pub attach_within: Duration,
    /// How long a write may make no progress.
    pub write_within: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            session: SessionLimits {
                frame: 64 * 1024,
                early_frame: 8 * 1024,
                message: 98 * 1024,
                links: 4,
                credit: 10,
            },
            attach_within: Duration::from_secs(20),
            write_within: Duration::from_secs(30),
        }
    }
}

/// Bytes read at once.
const READ: usize = 2 * 1024;
/// How long the last words may take to leave.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// See the module text.
#[derive(Debug)]
pub struct Connection<S> {
    stream: S,
    session: Session,
    limits: Limits,
    /// Read from the client, not yet used by the session.
    incoming: BytesMut,
    /// Said by the session, not yet written.
    outgoing: Bytes,
    opened: Instant,
    spoke: Instant,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Takes over a byte stream as an AMQP server that offers these SASL mechanisms.
    pub fn new(
        stream: S,
        limits: Limits,
        mechanisms: &'static [&'static str],
        container: String,
    ) -> Self {
        let now = Instant::now();
        Self {
            stream,
            session: Session::new(limits.session, mechanisms, container),
            limits,
            incoming: BytesMut::new(),
            outgoing: Bytes::new(),
            opened: now,
            spoke: now,
        }
    }

    /// To answer an event; what is said leaves with the next call of [`Self::next`].
    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Waits for what the client does next. Losing this future loses nothing.
    ///
    /// # Errors
    /// The connection is over; [`Self::finish`] says the last words.
    pub async fn next(&mut self) -> Result<Event, End> {
        loop {
            self.flush().await?;
            let (used, event) = self.session.feed(&self.incoming)?;
            self.incoming.advance(used);
            if let Some(event) = event {
                return Ok(event);
            }
            self.flush().await?;
            self.read().await?;
        }
    }

    /// Says what is still to be said, and that nothing follows.
    pub async fn finish(mut self, end: &End) {
        if !matches!(end, End::Stream(_) | End::TooSlow | End::EndOfStream) {
            let last_words = async {
                self.flush().await?;
                self.stream.shutdown().await.map_err(|error| stream(&error))
            };
            // Nobody is there to be told.
            let _ = timeout(LAST_WORDS, last_words).await;
        }
    }

    /// Writes what there is to write.
    pub async fn flush(&mut self) -> Result<(), End> {
        let mut wrote = false;
        loop {
            if self.outgoing.is_empty() {
                self.outgoing = self.session.take_outgoing().into();
            }
            if self.outgoing.is_empty() {
                break;
            }
            let written = timeout(self.limits.write_within, self.stream.write(&self.outgoing));
            match written
                .await
                .map_err(|_| End::TooSlow)?
                .map_err(|error| stream(&error))?
            {
                0 => return Err(End::Stream(ErrorKind::WriteZero)),
                count => self.outgoing.advance(count),
            }
            wrote = true;
        }
        if wrote {
            // Lower layers (TLS) may still hold it back.
            let flushed = timeout(self.limits.write_within, self.stream.flush());
            flushed
                .await
                .map_err(|_| End::TooSlow)?
                .map_err(|error| stream(&error))?;
            self.spoke = Instant::now();
        }
        Ok(())
    }

    /// Waits for more bytes, or for the time to speak or to give up.
    async fn read(&mut self) -> Result<(), End> {
        if self.incoming.is_empty() {
            // Nothing is held for a silent client but the room for its next words.
            self.incoming = BytesMut::with_capacity(READ);
        }
        let give_up = self.opened + self.limits.attach_within;
        let speak = self
            .session
            .patience()
            .map(|patience| self.spoke + patience / 2);
        let waits = !self.session.is_established();
        tokio::select! {
            biased;
            read = self.stream.read_buf(&mut self.incoming) => match read {
                Ok(0) => Err(End::EndOfStream),
                Ok(_) => Ok(()),
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(End::EndOfStream),
                Err(error) => Err(stream(&error)),
            },
            () = sleep_until(give_up), if waits => Err(End::OpenTimeout),
            () = sleep_until(speak.unwrap_or(give_up)), if speak.is_some() => {
                self.session.beat();
                Ok(())
            }
        }
    }
}

fn stream(error: &std::io::Error) -> End {
    End::Stream(error.kind())
}
