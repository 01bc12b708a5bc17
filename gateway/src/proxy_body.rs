//! The body of a response that is passed on. It holds the memory of the exchange until the exchange
//! has ended.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use asyncqueue_runtime::memory::MemoryPermit;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// Number of buffers for heads and bodies between two sockets. In each direction, hyper's client
/// and server read and write this much at once, and none of it is larger than a head may be.
const BUFFERS_PER_EXCHANGE: usize = 4;

/// Memory of the connection to the function itself, in bytes.
const CONNECTION_BYTES: usize = 16 * 1024;

/// The body of a response that is passed on as it arrives.
#[derive(Debug)]
pub(crate) struct ProxyBody<B> {
    body: B,
    _memory: Option<MemoryPermit>,
}

/// Returns the maximum memory of an exchange, in bytes, if heads have at most `max_header_bytes`.
#[must_use]
pub(crate) fn max_exchange_memory(max_header_bytes: usize) -> usize {
    max_header_bytes * BUFFERS_PER_EXCHANGE + CONNECTION_BYTES
}

// === impl ProxyBody ===

impl<B> ProxyBody<B> {
    /// Creates the body of a response. It holds the memory of its exchange, unless the exchange
    /// continues after it.
    #[must_use]
    pub(crate) fn new(body: B, memory: Option<MemoryPermit>) -> Self {
        Self { body, _memory: memory }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for ProxyBody<B> {
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
