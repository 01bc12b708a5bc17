//! The body of an answer that is passed on, and the memory that the exchange takes until it has ended.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use asyncqueue_runtime::memory::Taken;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// What is held of heads and bodies between two sockets: in each direction what hyper's client and server read and write at
/// once, none of it more than a head may have.
const BUFFERS: usize = 4;

/// For the connection to the function itself.
const CONNECTION: usize = 16 * 1024;

/// A body of an answer that is passed on as it comes.
#[derive(Debug)]
pub struct PassedOn<B> {
    body: B,
    _memory: Option<Taken>,
}

/// What an exchange takes at most, in bytes, if heads have at most `max_header_bytes`.
#[must_use]
pub fn most_memory(max_header_bytes: usize) -> usize {
    max_header_bytes * BUFFERS + CONNECTION
}

// === impl PassedOn ===

impl<B> PassedOn<B> {
    /// The body of an answer, and the memory of its exchange, unless that goes on after it.
    #[must_use]
    pub fn new(body: B, memory: Option<Taken>) -> Self {
        Self { body, _memory: memory }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for PassedOn<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
