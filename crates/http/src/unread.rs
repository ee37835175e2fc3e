//! Answers that wait until their client takes them: what they hold together has a bound.
//!
//! A client that asks and does not read leaves its answers in memory: the one under way on a connection of HTTP/1, and those
//! of all its streams on one of HTTP/2. (When such a client is cut off is decided in [`super::server`].)

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::activity::Taking;
use super::problem::Problem;

/// What all answers together may hold: as much as bodies of requests may by default.
const MAX_BYTES: usize = 256 << 20;
/// An answer of this size or less costs no more than the stream that it is sent on, and goes uncounted.
const SMALL: u64 = 1024;
/// Bytes per permit of the common budget.
const UNIT: u64 = 1024;
/// What a client is told to wait when others hold all the room.
const RETRY: Duration = Duration::from_secs(1);

/// What warp's answers are made of; it has no public name.
pub(super) type WarpBody = <warp::reply::Response as HasBody>::Body;

/// Names the type of a body.
pub(super) trait HasBody {
    type Body;
}

impl<B> HasBody for warp::http::Response<B> {
    type Body = B;
}

/// The common budget. Cloning is cheap.
#[derive(Debug, Clone)]
pub(super) struct Unread {
    room: Arc<Semaphore>,
}

/// A part of the budget, given back with the last byte that it was taken for.
type Hold = Arc<OwnedSemaphorePermit>;

impl Unread {
    pub(super) fn new() -> Self {
        let units = MAX_BYTES / UNIT as usize;
        Self {
            room: Arc::new(Semaphore::new(units)),
        }
    }

    /// Room for `body`, if it needs any. One of unknown size is a stream, which has its own bound.
    pub(super) fn admit(&self, body: &impl Body) -> Result<Option<Hold>, Problem> {
        let Some(bytes) = body.size_hint().exact().filter(|bytes| *bytes > SMALL) else {
            return Ok(None);
        };
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        match Arc::clone(&self.room).try_acquire_many_owned(units) {
            Ok(permit) => Ok(Some(Arc::new(permit))),
            Err(_) => Err(Problem::busy(
                "too many answers wait for clients that do not read them",
                RETRY,
            )),
        }
    }
}

/// The body of an answer, with what it holds and how it gets on.
#[derive(Debug)]
pub(super) struct Answer<B> {
    body: B,
    hold: Option<Hold>,
    /// None where it may take any time.
    taking: Option<Taking>,
}

impl<B> Answer<B> {
    pub(super) fn new(body: B, hold: Option<Hold>, taking: Option<Taking>) -> Self {
        Self { body, hold, taking }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Answer<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(taking) = &mut self.taking {
            taking.goes_on();
        }
        let Some(hold) = &self.hold else {
            return Poll::Ready(frame);
        };
        // Whoever sends the bytes lets go of them when they are written.
        let held = |bytes| {
            Bytes::from_owner(Held {
                bytes,
                _hold: Arc::clone(hold),
            })
        };
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(held))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Bytes that give back their part of the budget when they go.
struct Held {
    bytes: Bytes,
    _hold: Hold,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, Full};

    fn body(bytes: usize) -> Full<Bytes> {
        Full::new(Bytes::from(vec![7; bytes]))
    }

    #[tokio::test]
    async fn room_is_given_back_when_the_bytes_go() {
        let unread = Unread::new();
        assert!(unread.admit(&body(1024)).unwrap().is_none());
        let all = body(MAX_BYTES);
        let hold = unread.admit(&all).unwrap();
        assert_eq!(
            unread.admit(&body(1025)).unwrap_err().summary(),
            (429, "busy")
        );
        let mut answer = Answer::new(all, hold, None);
        let bytes = answer.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(answer.frame().await.is_none());
        drop(answer);
        let begin = bytes.slice(..10);
        drop(bytes);
        unread.admit(&body(1025)).unwrap_err();
        drop(begin);
        assert!(unread.admit(&body(MAX_BYTES)).unwrap().is_some());
    }
}
