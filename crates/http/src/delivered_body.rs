//! A response body that reports the client's progress to its connection's [`Activity`](super::activity::Activity).

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::activity::Delivery;

pin_project! {
    /// The outermost body: what hyper takes from it goes to the client.
    pub(super) struct DeliveredBody<B> {
        #[pin]
        body: B,
        // `None` for a response without a time limit.
        delivery: Option<Delivery>,
    }
}

impl<B> DeliveredBody<B> {
    pub(super) fn new(body: B, delivery: Option<Delivery>) -> Self {
        Self { body, delivery }
    }
}

impl<B: Body> Body for DeliveredBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let frame = ready!(this.body.poll_frame(cx));
        if let Some(delivery) = this.delivery {
            delivery.progressed();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
