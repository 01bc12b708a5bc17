//! The body of a response.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::pool::PooledConnection;

/// The body of a response. Reading it to its end returns the connection to the pool; dropping it
/// before closes the connection.
pub struct ResponseBody<B: Send + 'static> {
    body: Incoming,
    connection: Option<PooledConnection<B>>,
}

impl<B: Send + 'static> ResponseBody<B> {
    /// Creates the body from the connection that it is read from, if the connection can be used
    /// again.
    pub(super) fn new(body: Incoming, connection: Option<PooledConnection<B>>) -> Self {
        Self { body, connection }
    }
}

impl<B: Send + 'static> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(_)) => {}
            Some(Err(_)) => self.connection = None,
            None => self.connection.take().into_iter().for_each(PooledConnection::release),
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

impl<B: Send + 'static> Drop for ResponseBody<B> {
    fn drop(&mut self) {
        // A body of known length is not polled for its end.
        if self.body.is_end_stream()
            && let Some(connection) = self.connection.take()
        {
            connection.release();
        }
    }
}

impl<B: Send + 'static> std::fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ResponseBody").field(&self.body).finish()
    }
}
