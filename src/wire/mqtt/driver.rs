//! Drives one [`Session`] over a byte stream: reads, writes, keeps time, and bounds what it holds.
//!
//! Reading stops while an event waits for its owner or too much waits to be written, so that a client
//! can make us hold at most one read buffer, one packet and the two queues.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::packets::{Event, Qos, Refusal};
use super::session::{End, Session, SessionLimits};

/// Bounds of one connection. The defaults suit devices on the public Internet.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub session: SessionLimits,
    /// From the first byte of the stream to the CONNECT.
    pub connect_within: Duration,
    /// Answers and messages queued for a client that reads slowly; one more closes it.
    pub queue: usize,
    /// How long a write may make no progress.
    pub write_within: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            session: SessionLimits {
                packet: 64 * 1024,
                unacknowledged: 64,
            },
            connect_within: Duration::from_secs(10),
            queue: 64,
            write_within: Duration::from_secs(30),
        }
    }
}

/// The connection has ended, or ends now because its queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the MQTT connection has ended")]
pub struct Gone;

/// What the client does, in order; the last one is [`Event::Closed`].
#[derive(Debug)]
pub struct Events(mpsc::Receiver<Event>);

impl Events {
    /// The next event; `None` after [`Event::Closed`], or when the connection's task died.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }
}

/// Speaks to the client from any task. The connection closes when the last handle is dropped.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    closing: Arc<Notify>,
}

#[derive(Debug)]
enum Command {
    Accept {
        session_present: bool,
    },
    Refuse(Refusal),
    Suback {
        packet_id: u16,
        granted: Vec<Option<Qos>>,
    },
    Unsuback {
        packet_id: u16,
    },
    Puback {
        packet_id: u16,
    },
    Publish {
        topic: String,
        payload: Bytes,
        qos: Qos,
        token: u64,
    },
    Flushed(oneshot::Sender<()>),
}

impl Handle {
    /// Lets the client in.
    pub fn accept(&self, session_present: bool) -> Result<(), Gone> {
        self.command(Command::Accept { session_present })
    }

    /// Refuses the client; the connection closes once it has been told.
    pub fn refuse(&self, refusal: Refusal) -> Result<(), Gone> {
        self.command(Command::Refuse(refusal))
    }

    /// Answers a SUBSCRIBE: the QoS granted to each filter in order, or `None` where it is refused.
    pub fn suback(&self, packet_id: u16, granted: Vec<Option<Qos>>) -> Result<(), Gone> {
        self.command(Command::Suback { packet_id, granted })
    }

    /// Answers an UNSUBSCRIBE.
    pub fn unsuback(&self, packet_id: u16) -> Result<(), Gone> {
        self.command(Command::Unsuback { packet_id })
    }

    /// Acknowledges a QoS 1 publish of the client.
    pub fn puback(&self, packet_id: u16) -> Result<(), Gone> {
        self.command(Command::Puback { packet_id })
    }

    /// Publishes to the client. At QoS 1, [`Event::Acknowledged`] will bring `token` back.
    pub fn publish(&self, topic: String, payload: Bytes, qos: Qos, token: u64) -> Result<(), Gone> {
        self.command(Command::Publish {
            topic,
            payload,
            qos,
            token,
        })
    }

    /// Resolves once everything said through this handle before is on its way to the client.
    pub async fn flushed(&self) -> Result<(), Gone> {
        let (done, wait) = oneshot::channel();
        self.command(Command::Flushed(done))?;
        wait.await.map_err(|_| Gone)
    }

    /// Closes the connection after what was said before; may be called at any time from anywhere.
    pub fn close(&self) {
        self.closing.notify_one();
    }

    fn command(&self, command: Command) -> Result<(), Gone> {
        self.commands.try_send(command).map_err(|_| {
            self.close();
            Gone
        })
    }
}

/// Takes over a byte stream as an MQTT server. Ends by itself when both returned halves are dropped.
pub fn open<S>(stream: S, limits: Limits) -> (Handle, Events)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (commands, queue) = mpsc::channel(limits.queue);
    let (events, receiver) = mpsc::channel(4);
    let closing = Arc::new(Notify::new());
    let (read, write) = tokio::io::split(stream);
    let now = Instant::now();
    let driver = Driver {
        session: Session::new(limits.session),
        limits,
        read,
        write,
        queue,
        events: events.clone(),
        closing: closing.clone(),
        incoming: BytesMut::new(),
        outgoing: Bytes::new(),
        unflushed: false,
        event: None,
        flushes: Vec::new(),
        opened: now,
        heard: now,
        progressed: now,
    };
    tokio::spawn(async move {
        let end = driver.run().await;
        // The owner may be gone; then nobody needs to know.
        let _ = events.send(Event::Closed(end)).await;
    });
    (Handle { commands, closing }, Events(receiver))
}

struct Driver<S> {
    session: Session,
    limits: Limits,
    read: ReadHalf<S>,
    write: WriteHalf<S>,
    queue: mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
    closing: Arc<Notify>,
    /// Read from the client, not yet used by the session.
    incoming: BytesMut,
    /// Said by the session, not yet written.
    outgoing: Bytes,
    /// Written, but perhaps still held back by a lower layer.
    unflushed: bool,
    /// Waits for room in the owner's queue.
    event: Option<Event>,
    /// To be told once everything is written and flushed.
    flushes: Vec<oneshot::Sender<()>>,
    opened: Instant,
    heard: Instant,
    progressed: Instant,
}

/// Bytes read at once.
const READ: usize = 2 * 1024;
/// How long the last words (a CONNACK, a PUBACK) may take to leave.
const LAST_WORDS: Duration = Duration::from_secs(2);

impl<S: AsyncRead + AsyncWrite> Driver<S> {
    async fn run(mut self) -> End {
        let end = loop {
            if let Err(end) = self.turn().await {
                break end;
            }
        };
        if !matches!(end, End::Stream(_) | End::TooSlow) {
            let _ = timeout(LAST_WORDS, self.last_words(&end)).await;
        }
        end
    }

    /// Waits for one thing and does it.
    async fn turn(&mut self) -> Result<(), End> {
        self.use_incoming()?;
        self.collect_outgoing();
        let writing = self.is_writing();
        let may_read = !writing && self.event.is_none() && !self.session.is_deciding();
        let deadline = self.deadline(may_read);
        tokio::select! {
            // In this order: a client that floods us delays only what it would be told itself, and
            // what has arrived counts before a deadline that we were late to look at.
            biased;
            () = self.closing.notified() => Err(End::ClosedHere),
            wrote = write_some(&mut self.write, &self.outgoing), if writing => {
                let count = wrote.map_err(|error| End::Stream(error.kind()))?;
                self.unflushed = !self.outgoing.is_empty();
                self.outgoing.advance(count);
                self.progressed = Instant::now();
                Ok(())
            }
            delivered = deliver(&self.events, &mut self.event), if self.event.is_some() => delivered,
            read = self.read.read_buf(&mut self.incoming), if may_read => match read {
                Ok(0) => Err(End::EndOfStream),
                Ok(_) => Ok(()),
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(End::EndOfStream),
                Err(error) => Err(End::Stream(error.kind())),
            },
            // One at a time: what is queued counts against the queue, not against our buffer.
            command = self.queue.recv(), if !writing => {
                self.obey(command.ok_or(End::ClosedHere)?)
            }
            () = sleep_until(deadline.as_ref().map_or(self.opened, |it| it.0)), if deadline.is_some() => {
                Err(deadline.map_or(End::ClosedHere, |it| it.1))
            }
        }
    }

    fn is_writing(&self) -> bool {
        self.unflushed || !self.outgoing.is_empty()
    }

    fn use_incoming(&mut self) -> Result<(), End> {
        if self.event.is_none() && !self.incoming.is_empty() {
            let before = self.session.packets();
            let (used, event) = self.session.feed(&self.incoming)?;
            self.incoming.advance(used);
            self.event = event;
            if self.session.packets() != before {
                self.heard = Instant::now();
            }
        }
        if self.incoming.is_empty() {
            // Nothing is held for a silent client but the room for its next words.
            self.incoming.reserve(READ);
        }
        Ok(())
    }

    fn collect_outgoing(&mut self) {
        if !self.is_writing() {
            self.outgoing = self.session.take_outgoing();
            self.progressed = Instant::now();
        }
        if !self.is_writing() {
            for done in self.flushes.drain(..) {
                // Whoever waited may have given up.
                let _ = done.send(());
            }
        }
    }

    /// When the connection ends if nothing happens, and why.
    fn deadline(&self, may_read: bool) -> Option<(Instant, End)> {
        if self.is_writing() {
            return Some((self.progressed + self.limits.write_within, End::TooSlow));
        }
        if self.session.awaits_connect() {
            return Some((
                self.opened + self.limits.connect_within,
                End::ConnectTimeout,
            ));
        }
        // While we do not listen, silence is ours.
        let silence = self.session.silence_limit().filter(|_| may_read)?;
        Some((self.heard + silence, End::KeepAliveTimeout))
    }

    fn obey(&mut self, command: Command) -> Result<(), End> {
        match command {
            Command::Accept { session_present } => {
                self.heard = Instant::now();
                self.session.accept(session_present)
            }
            Command::Refuse(refusal) => Err(self.session.refuse(refusal)),
            Command::Suback { packet_id, granted } => self.session.suback(packet_id, &granted),
            Command::Unsuback { packet_id } => self.session.unsuback(packet_id),
            Command::Puback { packet_id } => self.session.puback(packet_id),
            Command::Publish {
                topic,
                payload,
                qos,
                token,
            } => self.session.publish(&topic, &payload, qos, token),
            Command::Flushed(done) => {
                self.flushes.push(done);
                Ok(())
            }
        }
    }

    /// Sends what is still to be said, then says that nothing follows.
    async fn last_words(&mut self, end: &End) {
        if *end == End::ClosedHere {
            while let Ok(command) = self.queue.try_recv() {
                if self.obey(command).is_err() {
                    break;
                }
            }
        }
        let said = self.write.write_all(&self.outgoing).await;
        let rest = self.session.take_outgoing();
        if said.is_ok() && self.write.write_all(&rest).await.is_ok() {
            let _ = self.write.shutdown().await;
        }
    }
}

/// Hands the event over as soon as the owner has room; loses nothing when dropped before.
async fn deliver(events: &mpsc::Sender<Event>, event: &mut Option<Event>) -> Result<(), End> {
    let room = events.reserve().await.map_err(|_| End::ClosedHere)?;
    if let Some(event) = event.take() {
        room.send(event);
    }
    Ok(())
}

/// Writes what there is; with nothing left, pushes out what lower layers (TLS) still hold back.
async fn write_some(
    stream: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
) -> std::io::Result<usize> {
    if bytes.is_empty() {
        return stream.flush().await.map(|()| 0);
    }
    match stream.write(bytes).await {
        Ok(0) => Err(ErrorKind::WriteZero.into()),
        written => written,
    }
}
