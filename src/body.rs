//! The body of a request or response: nothing, a piece in memory, a stream that is never held
//! whole, or what follows when a connection leaves HTTP.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;

use crate::error::{Code, Refusal};
use crate::upgrade::FarEnd;

type Stream = Pin<Box<dyn http_body::Body<Data = Bytes, Error = BodyError> + Send>>;

/// A body. Dropping one before its end abandons it, and with it whatever feeds it.
pub struct Body {
    kind: Kind,
    passed: u64,
    received: Option<u64>,
    failure: Option<BodyError>,
    observer: Option<Box<dyn Observer>>,
}

enum Kind {
    Empty,
    Full(Bytes),
    Stream(Stream),
    /// The far end is taken out to be served.
    Tunnel(Option<FarEnd>),
}

/// Why a body broke off.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BodyError {
    /// It grew over its limit.
    #[error("the body is over {limit} bytes")]
    TooLarge {
        /// The limit, bytes.
        limit: u64,
    },
    /// The client sent nothing for too long.
    #[error("the client sent no piece of the body for {0:?}")]
    ClientSlow(Duration),
    /// The client framed it wrongly.
    #[error("{0}")]
    ClientMalformed(&'static str),
    /// The client went away, or reset the stream.
    #[error("the client broke off: {0}")]
    ClientGone(String),
    /// The upstream sent nothing for too long.
    #[error("the upstream sent no piece of the body for {0:?}")]
    UpstreamSlow(Duration),
    /// The upstream broke off.
    #[error("the upstream broke off: {0}")]
    UpstreamGone(String),
    /// An answer of ours that had begun failed, with this error code.
    #[error("the answer broke off: {0}")]
    AnswerBroken(&'static str),
}

/// Whoever is told how a body goes. What it owns lives as long as the body.
pub trait Observer: Send + 'static {
    /// So many bytes of data passed.
    fn passed(&mut self, bytes: u64);

    /// Ready when the body is to break off though its source may have more; `Pending` for ever
    /// where nobody decides that.
    fn poll_break_off(&mut self, _: &mut Context<'_>) -> Poll<BodyError> {
        Poll::Pending
    }

    /// The body has ended, failed or been dropped.
    fn ended(self: Box<Self>, end: BodyEnd);
}

/// How a body ended: what an observer is told.
#[derive(Debug)]
pub struct BodyEnd {
    /// Bytes of data that passed.
    pub bytes: u64,
    /// Bytes that came the other way, where this was the end of a tunnel.
    pub received: Option<u64>,
    /// What came of it.
    pub outcome: BodyOutcome,
}

/// Whether a body came to its end.
#[derive(Debug)]
pub enum BodyOutcome {
    /// It did.
    Complete,
    /// It broke off.
    Failed(BodyError),
    /// Whoever read it stopped: a client that went away, or a drain that ran out of time.
    Abandoned,
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self::of(Kind::Empty)
    }

    /// A body in memory.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::of(if bytes.is_empty() { Kind::Empty } else { Kind::Full(bytes) })
    }

    /// A body that is read piece by piece as its reader asks for it.
    pub fn stream(stream: impl http_body::Body<Data = Bytes, Error = BodyError> + Send + 'static) -> Self {
        Self::of(Kind::Stream(Box::pin(stream)))
    }

    /// What follows a response with status 101: another protocol's bytes, to and from `far_end`.
    pub fn tunnel(far_end: FarEnd) -> Self {
        Self::of(Kind::Tunnel(Some(far_end)))
    }

    /// Takes the far end of a tunnel, if this is one. What remains is told how the tunnel ended;
    /// if it is not, the tunnel was abandoned.
    pub fn take_far_end(&mut self) -> Option<FarEnd> {
        match &mut self.kind {
            Kind::Tunnel(far_end) => far_end.take(),
            _ => None,
        }
    }

    /// Comes when whoever watches a tunnel wants it to end.
    pub fn poll_break_off(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.observer.as_mut().map_or(Poll::Pending, |one| one.poll_break_off(cx).map(drop))
    }

    /// Notes what passed through a tunnel, towards the client and from it.
    pub fn tunnelled(&mut self, passed: u64, received: u64) {
        self.passed = passed;
        self.received = Some(received);
    }

    /// Notes that both sides of a tunnel said all that they had to say.
    pub fn end_tunnel(&mut self) {
        self.kind = Kind::Empty;
    }

    /// Tells `observer` of each piece, and once of the end.
    #[must_use]
    pub fn observe(mut self, observer: impl Observer) -> Self {
        debug_assert!(self.observer.is_none(), "a body has one observer");
        self.observer = Some(Box::new(observer));
        self
    }

    /// Reads the whole body into memory.
    ///
    /// # Errors
    /// [`BodyError::TooLarge`] as soon as it is known to exceed `limit` bytes, or why it broke off.
    pub async fn read_whole(mut self, limit: usize) -> Result<Bytes, BodyError> {
        let too_large = BodyError::TooLarge { limit: limit as u64 };
        if http_body::Body::size_hint(&self).lower() > limit as u64 {
            return Err(too_large);
        }
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        while let Some(frame) = self.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            if first.len() + rest.len() + data.len() > limit {
                return Err(too_large);
            }
            // Most bodies are one piece, which is then not copied.
            if first.is_empty() && rest.is_empty() {
                first = data;
            } else {
                if rest.is_empty() {
                    rest.extend_from_slice(&std::mem::take(&mut first));
                }
                rest.extend_from_slice(&data);
            }
        }
        Ok(if rest.is_empty() { first } else { rest.freeze() })
    }

    fn of(kind: Kind) -> Self {
        Self { kind, passed: 0, received: None, failure: None, observer: None }
    }
}

impl BodyError {
    /// The refusal that a client gets if no response has begun.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::TooLarge { limit } => {
                Refusal::new(Code::RequestTooLarge, format!("the request body must be at most {limit} bytes"))
            }
            Self::ClientSlow(_) => {
                Refusal::new(Code::RequestTimeout, "the request body arrived too slowly").because(self)
            }
            Self::ClientMalformed(detail) => Refusal::new(Code::RequestInvalid, *detail),
            Self::ClientGone(_) => {
                Refusal::new(Code::RequestInvalid, "the request body broke off before its end").because(self)
            }
            Self::UpstreamSlow(_) => {
                Refusal::new(Code::UpstreamTimeout, "the upstream stopped answering").because(self)
            }
            Self::UpstreamGone(_) => {
                Refusal::new(Code::UpstreamUnreachable, "the upstream broke off").because(self)
            }
            Self::AnswerBroken(_) => Refusal::new(Code::InternalError, "the answer broke off").because(self),
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let frame = match &mut this.kind {
            Kind::Empty | Kind::Tunnel(_) => None,
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                this.kind = Kind::Empty;
                Some(Ok(Frame::data(bytes)))
            }
            Kind::Stream(stream) => {
                let broken = this.observer.as_mut().map_or(Poll::Pending, |one| one.poll_break_off(cx));
                match broken {
                    Poll::Ready(error) => Some(Err(error)),
                    Poll::Pending => ready!(stream.as_mut().poll_frame(cx)),
                }
            }
        };
        match &frame {
            None => this.kind = Kind::Empty,
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                this.passed += bytes;
                if let Some(observer) = &mut this.observer {
                    observer.passed(bytes);
                }
            }
            Some(Err(error)) => {
                this.failure = Some(error.clone());
                // What fed the body is of no more use: a client's connection, an upstream's.
                this.kind = Kind::Empty;
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Full(_) | Kind::Tunnel(_) => false,
            Kind::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty | Kind::Tunnel(_) => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream(stream) => stream.size_hint(),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let Some(observer) = self.observer.take() else { return };
        let outcome = match self.failure.take() {
            Some(error) => BodyOutcome::Failed(error),
            None if http_body::Body::is_end_stream(self) => BodyOutcome::Complete,
            None => BodyOutcome::Abandoned,
        };
        observer.ended(BodyEnd { bytes: self.passed, received: self.received, outcome });
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Empty => "empty",
            Kind::Full(_) => "full",
            Kind::Stream(_) => "stream",
            Kind::Tunnel(_) => "tunnel",
        };
        f.debug_struct("Body").field("kind", &kind).field("passed", &self.passed).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http_body_util::channel::Channel;

    use super::*;

    fn pieces(pieces: &[&'static str]) -> Body {
        let (mut sender, channel) = Channel::<Bytes, BodyError>::new(pieces.len().max(1));
        for piece in pieces {
            sender.try_send(Frame::data(Bytes::from_static(piece.as_bytes()))).unwrap();
        }
        drop(sender);
        Body::stream(channel)
    }

    #[tokio::test]
    async fn a_body_is_read_whole_up_to_its_limit() {
        assert_eq!(pieces(&["ab", "", "cd"]).read_whole(4).await.unwrap(), "abcd");
        assert_eq!(Body::full("abcd").read_whole(4).await.unwrap(), "abcd");
        assert_eq!(Body::empty().read_whole(0).await.unwrap(), "");
        let error = pieces(&["ab", "cde"]).read_whole(4).await.unwrap_err();
        assert!(matches!(error, BodyError::TooLarge { limit: 4 }), "{error}");
        assert!(Body::full("abcde").read_whole(4).await.is_err());
    }

    /// Writes down what it is told.
    struct Witness {
        passed: u64,
        seen: Arc<Mutex<String>>,
    }

    impl Observer for Witness {
        fn passed(&mut self, bytes: u64) {
            self.passed += bytes;
        }

        fn ended(self: Box<Self>, end: BodyEnd) {
            assert_eq!(self.passed, end.bytes);
            *self.seen.lock().unwrap() = format!("{} {:?}", end.bytes, end.outcome);
        }
    }

    #[tokio::test]
    async fn an_observer_learns_how_the_body_ended() {
        async fn end_of(body: Body, frames: usize) -> String {
            let seen = Arc::new(Mutex::new(String::new()));
            let mut body = body.observe(Witness { passed: 0, seen: Arc::clone(&seen) });
            for _ in 0..frames {
                let _ = body.frame().await;
            }
            drop(body);
            Arc::try_unwrap(seen).unwrap().into_inner().unwrap()
        }
        assert_eq!(end_of(Body::full("abc"), 1).await, "3 Complete");
        assert_eq!(end_of(Body::empty(), 0).await, "0 Complete");
        assert_eq!(end_of(Body::full("abc"), 0).await, "0 Abandoned");
        assert_eq!(end_of(pieces(&["ab", "c"]), 1).await, "2 Abandoned");
        assert_eq!(end_of(pieces(&["ab", "c"]), 3).await, "3 Complete");
        let broken = failing(BodyError::UpstreamSlow(Duration::from_secs(1)));
        assert_eq!(end_of(broken, 1).await, "0 Failed(UpstreamSlow(1s))");
    }

    fn failing(error: BodyError) -> Body {
        let (sender, channel) = Channel::<Bytes, BodyError>::new(1);
        sender.abort(error);
        Body::stream(channel)
    }
}
