//! The memory budget of all response bodies that their clients have not read yet.
//!
//! A client that does not read leaves its responses in memory: one on an HTTP/1 connection, and those of all streams on an
//! HTTP/2 connection. [`super::server`] decides when the connection of such a client is closed.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;

/// Most bytes of all unread responses: the same as the default budget of request bodies.
const MAX_BYTES: usize = 256 << 20;
/// A response of at most this size costs no more than the stream that it is sent on, and is not counted.
const UNCOUNTED_BYTES: u64 = 1024;
/// Bytes per permit of the budget.
const UNIT: u64 = 1024;
/// `Retry-After` while the budget is used up.
const RETRY: Duration = Duration::from_secs(1);

/// The body type of warp's responses, which has no public name.
pub(super) type WarpBody = <warp::reply::Response as HasBody>::Body;

/// Names the body type of a response.
pub(super) trait HasBody {
    type Body;
}

impl<B> HasBody for warp::http::Response<B> {
    type Body = B;
}

/// The budget that all connections share. Cloning is cheap.
#[derive(Debug, Clone)]
pub(super) struct ResponseBudget {
    permits: Arc<Semaphore>,
}

/// A part of the budget, released with the last byte that it was reserved for.
type BudgetPermit = Arc<OwnedSemaphorePermit>;

impl ResponseBudget {
    pub(super) fn new() -> Self {
        let units = MAX_BYTES / UNIT as usize;
        Self {
            permits: Arc::new(Semaphore::new(units)),
        }
    }

    /// Reserves budget for `body`; `None` if it needs none. A body of unknown size is a stream, which has its own bound.
    /// 429 if the budget is used up.
    pub(super) fn reserve(&self, body: &impl Body) -> Result<Option<BudgetPermit>, Problem> {
        let Some(bytes) = body
            .size_hint()
            .exact()
            .filter(|bytes| *bytes > UNCOUNTED_BYTES)
        else {
            return Ok(None);
        };
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        match Arc::clone(&self.permits).try_acquire_many_owned(units) {
            Ok(permit) => Ok(Some(Arc::new(permit))),
            Err(_) => Err(Problem::busy(
                "too many responses wait for clients that do not read them",
                RETRY,
            )),
        }
    }
}

/// A response body with its part of the budget.
#[derive(Debug, Default)]
pub(super) struct BudgetedBody<B> {
    body: B,
    permit: Option<BudgetPermit>,
}

impl<B> BudgetedBody<B> {
    pub(super) fn new(body: B, permit: Option<BudgetPermit>) -> Self {
        Self { body, permit }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for BudgetedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let Some(permit) = &self.permit else {
            return Poll::Ready(frame);
        };
        // hyper drops the bytes once they are written.
        let budgeted = |bytes| {
            Bytes::from_owner(BudgetedBytes {
                bytes,
                _permit: Arc::clone(permit),
            })
        };
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(budgeted))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Bytes that keep their part of the budget until they are dropped.
struct BudgetedBytes {
    bytes: Bytes,
    _permit: BudgetPermit,
}

impl AsRef<[u8]> for BudgetedBytes {
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
        let budget = ResponseBudget::new();
        assert!(budget.reserve(&body(1024)).unwrap().is_none());
        let all = body(MAX_BYTES);
        let permit = budget.reserve(&all).unwrap();
        assert_eq!(
            budget.reserve(&body(1025)).unwrap_err().summary(),
            (429, "busy")
        );
        let mut answer = BudgetedBody::new(all, permit);
        let bytes = answer.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(answer.frame().await.is_none());
        drop(answer);
        let begin = bytes.slice(..10);
        drop(bytes);
        budget.reserve(&body(1025)).unwrap_err();
        drop(begin);
        assert!(budget.reserve(&body(MAX_BYTES)).unwrap().is_some());
    }
}
