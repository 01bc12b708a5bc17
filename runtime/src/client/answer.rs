//! The body of a response.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::pool::Lent;

/// The body of a response. Reading it to its end returns the connection to the pool; dropping it
/// before closes the connection.
pub struct Answer<B: Send + 'static> {
    body: Incoming,
    lent: Option<Lent<B>>,
}

impl<B: Send + 'static> Answer<B> {
    /// Creates the body from the connection that it is read from, if the connection can be used
    /// again.
    pub(super) fn new(body: Incoming, lent: Option<Lent<B>>) -> Self {
        Self { body, lent }
    }
}

impl<B: Send + 'static> Body for Answer<B> {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(_)) => {}
            Some(Err(_)) => self.lent = None,
            None => self.lent.take().into_iter().for_each(Lent::give_back),
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

impl<B: Send + 'static> Drop for Answer<B> {
    fn drop(&mut self) {
        // A body of known length is not polled for its end.
        if self.body.is_end_stream()
            && let Some(lent) = self.lent.take()
        {
            lent.give_back();
        }
    }
}

impl<B: Send + 'static> std::fmt::Debug for Answer<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Answer").field(&self.body).finish()
    }
}
