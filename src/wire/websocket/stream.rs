//! The payload of binary frames as a byte stream.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::{CONTROL, Frame, Heads, Kind, Violation, write};

/// Payload of one frame of ours.
const CHUNK: usize = 4 * 1024;
/// Frames without payload that are read before other tasks get their turn.
const IN_A_ROW: u32 = 32;
const NORMAL_CLOSURE: u16 = 1000;

/// A WebSocket as a byte stream. Answers pings, and ends when the client closes.
///
/// Read and written by one task: an answer to a ping is written while reading.
#[derive(Debug)]
pub struct WebSocket<S> {
    inner: S,
    heads: Heads,
    /// The frame whose payload is being read.
    frame: Option<Frame>,
    /// Payload of the control frame that is being read.
    control: Vec<u8>,
    /// Whole frames of ours; the first `written` bytes are written.
    outgoing: Vec<u8>,
    written: usize,
    /// To be written when `outgoing` is: the last of them is the only one that matters.
    answer: Option<(Kind, Vec<u8>)>,
    /// We have said that we close.
    closing: bool,
    /// The client has said that it closes, or broke the rules.
    ended: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Over a connection on which the handshake is complete.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            heads: Heads::default(),
            frame: None,
            control: Vec::new(),
            outgoing: Vec::new(),
            written: 0,
            answer: None,
            closing: false,
            ended: false,
        }
    }

    /// Reads at most `most` bytes of the client's into `buffer`; none at its end.
    fn read_inner(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let room = buffer.len().min(most);
        let mut buffer = ReadBuf::new(buffer.get_mut(..room).unwrap_or_default());
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Writes what is to be written, as far as the client takes it.
    fn write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.written == self.outgoing.len() {
                // Nothing is held for a silent client.
                self.outgoing = Vec::new();
                self.written = 0;
                let Some((kind, payload)) = self.answer.take() else {
                    return Poll::Ready(Ok(()));
                };
                write(&mut self.outgoing, kind, &payload);
            }
            let rest = self.outgoing.get(self.written..).unwrap_or_default();
            let count = ready!(Pin::new(&mut self.inner).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
        }
    }

    /// Says that we close, once.
    fn close(&mut self, code: u16) {
        if !self.closing {
            self.closing = true;
            self.answer = Some((Kind::Close, code.to_be_bytes().to_vec()));
        }
    }

    fn refuse(&mut self, violation: Violation) {
        self.ended = true;
        self.close(violation as u16);
    }

    /// A frame is complete.
    fn finish(&mut self, frame: Frame) {
        let payload = std::mem::take(&mut self.control);
        match frame.kind {
            Kind::Data | Kind::Pong => {}
            Kind::Ping if self.closing => {}
            Kind::Ping => self.answer = Some((Kind::Pong, payload)),
            Kind::Close => {
                self.ended = true;
                self.close(NORMAL_CLOSURE);
            }
        }
    }

    /// Reads until there is payload in `buffer`, or the end.
    fn read_payload(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut frames = 0;
        while !self.ended {
            let Some(mut frame) = self.frame else {
                let mut head = [0; 16];
                let wanted = self.heads.wants();
                let count = ready!(self.read_inner(cx, &mut head, wanted))?;
                if count == 0 {
                    self.ended = true;
                    break;
                }
                match self.heads.feed(head.get(..count).unwrap_or_default()) {
                    Ok(frame) => self.frame = frame,
                    Err(violation) => self.refuse(violation),
                }
                continue;
            };
            if frame.left == 0 {
                self.frame = None;
                self.finish(frame);
                frames += 1;
                if frames == IN_A_ROW {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                continue;
            }
            let most = usize::try_from(frame.left).unwrap_or(usize::MAX);
            if frame.kind == Kind::Data {
                let room = buffer.initialize_unfilled();
                let count = ready!(self.read_inner(cx, room, most))?;
                frame.take(room.get_mut(..count).unwrap_or_default());
                self.frame = Some(frame);
                self.ended |= count == 0;
                buffer.advance(count);
                return Poll::Ready(Ok(()));
            }
            let mut some = [0; CONTROL];
            let count = ready!(self.read_inner(cx, &mut some, most))?;
            let some = some.get_mut(..count).unwrap_or_default();
            frame.take(some);
            self.control.extend_from_slice(some);
            self.frame = Some(frame);
            self.ended |= count == 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let read = self.read_payload(cx, buffer);
        if self.answer.is_some() {
            // As far as it goes; the rest leaves with the next write or read.
            match self.write_out(cx) {
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => {
                    if let Poll::Ready(Err(error)) = Pin::new(&mut self.inner).poll_flush(cx) {
                        return Poll::Ready(Err(error));
                    }
                }
                Poll::Pending => {}
            }
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.write_out(cx))?;
        if self.closing {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let chunk = bytes.get(..CHUNK).unwrap_or(bytes);
        if !chunk.is_empty() {
            write(&mut self.outgoing, Kind::Data, chunk);
            // What does not leave now leaves with the next write or flush.
            if let Poll::Ready(Err(error)) = self.write_out(cx) {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(Ok(chunk.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.write_out(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close(NORMAL_CLOSURE);
        ready!(self.write_out(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
