//! A connection as the HTTP library reads it: only bytes that the scanner let pass, and an end when
//! the client was too slow or went away.

mod opening;
mod resting;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::census::Census;
use super::flow::{Decision, Flow};
use super::framing::{HeadLimits, RequestLine, Scanner, Step};
use super::patience::Patience;
use super::reason::{BrokenFraming, Reason};
use super::taking::{Least, Taking};
use crate::policy::Timeouts;

pub(super) use opening::Protocol;
use resting::REST;

/// What a request that waits for its response is given after its client stopped sending. A client
/// that merely closed its half gets its answer; one that went away looks the same and costs no more
/// than this.
const HALF_CLOSED_GRACE: Duration = Duration::from_secs(1);
/// What a client is given to read a refusal before the connection goes: closing with unread bytes
/// would reset it and take the refusal along.
const LINGER: Duration = Duration::from_secs(1);

/// What is read ahead of a client that sends more before it knows what protocol it speaks, bytes.
const READ_AHEAD: usize = 16 << 10;
/// A client's connection, guarded.
pub(super) struct Wire<S> {
    stream: S,
    flow: Arc<Flow>,
    timeouts: Timeouts,
    /// None under HTTP/2, which frames its requests itself, and when the connection has left HTTP.
    scanner: Option<Scanner>,
    /// Under HTTP/2 only.
    census: Option<Census>,
    /// Bytes read and not yet handed on; the first `sound` of them may be.
    held: BytesMut,
    sound: usize,
    unscanned: bool,
    is_tunnel: bool,
    state: State,
    reading: Patience,
    writing: Patience,
    taking: Taking,
    least: Least,
}

enum State {
    Open,
    /// The client sends no more.
    HalfClosed,
    /// What came first was not HTTP: it is neither read nor answered.
    Foreign,
    /// Idle for so long that the HTTP library is told to end, though the client may send more.
    Resting,
    /// A refused head: nothing more is read, its response is the last.
    Refused,
    /// A broken body.
    Broken(Reason),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(
        stream: S,
        flow: Arc<Flow>,
        limits: HeadLimits,
        timeouts: Timeouts,
        least: Least,
    ) -> Self {
        Self {
            stream,
            flow,
            timeouts,
            scanner: Some(Scanner::new(limits)),
            census: None,
            held: BytesMut::new(),
            sound: 0,
            unscanned: false,
            is_tunnel: false,
            state: State::Open,
            reading: Patience::new(),
            writing: Patience::new(),
            taking: Taking::default(),
            least,
        }
    }

    /// Whether the client waits to hear what protocol it speaks: what it sends meanwhile is held.
    fn is_undecided(&self) -> bool {
        self.scanner.as_ref().is_some_and(Scanner::is_undecided)
    }

    /// Lets go of what was held while it was undecided what it is. Bytes become raw only here, when
    /// the upstream has agreed: not before, whatever a client sends (CVE-2026-2833 of another proxy).
    fn settle(&mut self, decision: Decision) {
        match decision {
            Decision::Switch => {
                self.scanner = None;
                self.is_tunnel = true;
                self.sound = self.held.len();
            }
            Decision::Stay => {
                self.scanner.iter_mut().for_each(Scanner::resume);
                self.scan_held();
                if matches!(self.state, State::HalfClosed) {
                    // Half a head is no request.
                    self.held.truncate(self.sound);
                }
            }
        }
    }

    /// Reads once: `Ready(false)` when nothing can be handed on yet but there may be more.
    fn poll_more(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        if self.held.len() >= READ_AHEAD && self.is_undecided() {
            // The decision wakes us.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buffer) {
            Poll::Ready(result) => result?,
            Poll::Pending => return self.poll_patience(cx).map(Ok),
        }
        let read = buffer.filled().len() - before;
        if read == 0 {
            self.state = State::HalfClosed;
            self.flow.half_closed.cancel();
            self.reading.calm();
            if !self.is_undecided() {
                // Half a head is no request.
                self.held.clear();
            }
            return Poll::Ready(Ok(false));
        }
        if let Some(census) = &mut self.census {
            census.count(&buffer.filled()[before..]).map_err(io::Error::other)?;
        }
        if self.held.is_empty() {
            self.reading.calm();
            // The common case: whole heads and pieces of bodies stay where they were read.
            let new = &buffer.filled()[before..];
            let sound = match scan(&mut self.scanner, &self.flow, new) {
                Scanned::Sound(sound) => {
                    self.held.extend_from_slice(&new[sound..]);
                    sound
                }
                Scanned::Refused { sound, reason, head: Some(head) } => {
                    self.refuse(reason, &new[sound..], &head);
                    sound
                }
                Scanned::Refused { sound, reason, head: None } => {
                    self.state = State::Broken(reason);
                    sound
                }
            };
            buffer.set_filled(before + sound);
            return Poll::Ready(Ok(sound > 0));
        }
        self.held.extend_from_slice(&buffer.filled()[before..]);
        buffer.set_filled(before);
        self.scan_held();
        Poll::Ready(Ok(false))
    }

    /// Looks at all that is held and not yet sound.
    fn scan_held(&mut self) {
        match scan(&mut self.scanner, &self.flow, &self.held[self.sound..]) {
            Scanned::Sound(sound) => self.sound += sound,
            Scanned::Refused { sound, reason, head } => {
                self.sound += sound;
                let rest = self.held.split_off(self.sound);
                match head {
                    Some(head) => self.refuse(reason, &rest, &head),
                    None => self.state = State::Broken(reason),
                }
            }
        }
        if self.sound > 0 {
            self.reading.calm();
        }
    }

    /// Puts a harmless request in the place of a head that was refused. The HTTP library never
    /// sees the bytes that could be read in two ways, and the response still takes its turn.
    fn refuse(&mut self, reason: Reason, bytes: &[u8], line: &RequestLine) {
        if reason == Reason::Foreign && self.flow.is_new() {
            self.held.truncate(self.sound);
            self.unscanned = false;
            self.state = State::Foreign;
            return;
        }
        let method = bytes.get(line.method.clone()).filter(|method| !method.is_empty());
        let target = bytes.get(line.target.clone()).filter(|target| !target.is_empty());
        self.held.truncate(self.sound);
        self.held.extend_from_slice(method.unwrap_or(b"GET"));
        self.held.extend_from_slice(b" ");
        self.held.extend_from_slice(target.unwrap_or(b"/"));
        self.held.extend_from_slice(b" HTTP/1.1\r\nhost: refused.invalid\r\nconnection: close\r\n\r\n");
        self.sound = self.held.len();
        self.unscanned = false;
        self.state = State::Refused;
        self.flow.push(Err(reason));
    }

    /// Called when the client keeps us waiting. `Ready`: the wait is over, look at the state again.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let inside_body = self.scanner.as_ref().is_some_and(Scanner::is_inside_body);
        if !self.held.is_empty() && !self.is_undecided() {
            ready!(self.reading.poll_over(cx, self.timeouts.header_read));
            self.held.clear();
            self.refuse(Reason::Late, &[], &RequestLine::default());
            return Poll::Ready(false);
        }
        // The HTTP library does not ask again when a response is over, so that something must be
        // there to wake us. Whoever reads a body has a clock for it; a response takes its time.
        let idle = self.flow.idle_since().filter(|_| !inside_body);
        // HTTP/2 has its own ways; whoever waits at rest sees to what is left of the time limit.
        let rests = self.scanner.is_some();
        let limit = if rests { self.timeouts.keep_alive.min(REST) } else { self.timeouts.keep_alive };
        ready!(self.reading.poll_at(cx, idle.unwrap_or_else(Instant::now) + limit));
        self.state = if rests { State::Resting } else { State::HalfClosed };
        Poll::Ready(false)
    }

    fn poll_half_closed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inside_body = self.scanner.as_ref().is_some_and(Scanner::is_inside_body);
        if self.scanner.is_some() && !inside_body {
            if self.flow.open() > 0 {
                self.flow.watch(cx.waker());
            }
            if self.flow.waiting() > 0 {
                ready!(self.reading.poll_over(cx, HALF_CLOSED_GRACE));
            } else if self.flow.open() > 0 {
                // The response is being written; if nobody is there, writing will tell.
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }
}

enum Scanned {
    Sound(usize),
    Refused { sound: usize, reason: Reason, head: Option<RequestLine> },
}

/// Shows bytes to the scanner until it wants more, and notes every head's verdict.
fn scan(scanner: &mut Option<Scanner>, flow: &Flow, bytes: &[u8]) -> Scanned {
    let Some(scanner) = scanner else { return Scanned::Sound(bytes.len()) };
    let mut sound = 0;
    while sound < bytes.len() {
        match scanner.advance(&bytes[sound..]) {
            Step::Pass(0) => break,
            Step::Pass(passed) => sound += passed,
            Step::Head(head) => {
                sound += head.length;
                flow.push(Ok(head));
            }
            Step::Refuse { at, reason, head } => {
                return Scanned::Refused { sound: sound + at, reason, head };
            }
        }
    }
    Scanned::Sound(sound)
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if std::mem::take(&mut this.unscanned) {
            this.scan_held();
        }
        if this.is_undecided()
            && let Poll::Ready(decision) = this.flow.poll_decision(cx)
        {
            this.settle(decision);
        }
        loop {
            if this.sound > 0 {
                let length = this.sound.min(buffer.remaining());
                buffer.put_slice(&this.held[..length]);
                this.held.advance(length);
                this.sound -= length;
                return Poll::Ready(Ok(()));
            }
            match this.state {
                State::Open => {
                    if ready!(this.poll_more(cx, buffer))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                State::HalfClosed => return this.poll_half_closed(cx),
                State::Foreign => return Poll::Ready(Ok(())),
                State::Resting => return Poll::Ready(Ok(())),
                // Its response says `Connection: close` and ends the connection.
                State::Refused => return Poll::Pending,
                State::Broken(reason) => {
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        BrokenFraming(reason),
                    )));
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    fn count_sent(&mut self, polled: &Poll<io::Result<usize>>) {
        if let (Some(census), Poll::Ready(Ok(sent))) = (&mut self.census, polled) {
            census.sent(*sent);
        }
    }

    /// Ends a write that the client has kept waiting for too long, or too often for the little that
    /// it takes.
    fn guard(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let too_slow = || io::Error::new(io::ErrorKind::TimedOut, "the client reads too slowly");
        match polled {
            // A tunnel has a clock of its own, for both directions.
            Poll::Pending if self.is_tunnel => Poll::Pending,
            Poll::Pending => {
                ready!(self.writing.poll_over(cx, self.timeouts.body_idle));
                Poll::Ready(Err(too_slow()))
            }
            Poll::Ready(Ok(sent)) => {
                let goes_on = self.taking.goes_on(self.writing.end(), sent as u64, self.least);
                Poll::Ready(if goes_on { Ok(sent) } else { Err(too_slow()) })
            }
            failed @ Poll::Ready(Err(_)) => failed,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.count_sent(&polled);
        self.guard(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.count_sent(&polled);
        self.guard(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_resting() {
            return Poll::Ready(Ok(()));
        }
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        let unread = matches!(self.state, State::Foreign | State::Refused | State::Broken(_))
            || self.scanner.as_ref().is_some_and(Scanner::is_inside_body);
        if !unread {
            return Poll::Ready(Ok(()));
        }
        let this = &mut *self;
        let mut space = [0; 8192];
        loop {
            // Asked first: a client that never stops sending is given no more time than others.
            if this.writing.poll_over(cx, LINGER).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut buffer = ReadBuf::new(&mut space);
            match ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}
