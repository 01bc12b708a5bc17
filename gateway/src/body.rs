//! Reads request bodies, within limits of size and time.

use std::time::Duration;

use asyncqueue::message::RESERVED_HEADER_BYTES;
use asyncqueue_runtime::memory::MemoryPermit;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

use crate::rejection::Rejection;

/// The maximum size of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BodyLimit {
    /// The maximum, in bytes.
    pub bytes: usize,
    /// Where the limit comes from, for users who want to raise it.
    pub set_by: &'static str,
}

// === impl BodyLimit ===

impl BodyLimit {
    /// Creates the limit: the lower of this program's own limit and the NATS server's, both in
    /// bytes.
    #[must_use]
    pub(crate) fn new(max_payload: usize, server_max_payload: usize) -> Self {
        let server = server_max_payload.saturating_sub(RESERVED_HEADER_BYTES);
        if max_payload <= server {
            Self { bytes: max_payload, set_by: "max_payload of the gateway" }
        } else {
            Self { bytes: server, set_by: "max_payload of the NATS server, less room for headers" }
        }
    }

    /// Returns the lower of this limit and the queue's limit in bytes, if the queue has one.
    #[must_use]
    pub(crate) fn min_with(self, queue: Option<u64>) -> Self {
        match queue
            .and_then(|bytes| usize::try_from(bytes).ok())
            .filter(|bytes| *bytes < self.bytes)
        {
            Some(bytes) => Self { bytes, set_by: "limits.maxPayload of the queue" },
            None => self,
        }
    }

    /// Rejects a body of more bytes.
    pub(crate) fn check(self, bytes: usize) -> Result<(), Rejection> {
        if bytes > self.bytes { Err(self.too_large()) } else { Ok(()) }
    }

    fn too_large(self) -> Rejection {
        Rejection::BodyTooLarge { limit: self.bytes, set_by: self.set_by }
    }
}

/// Reads a body.
///
/// A body whose announced length is over the limit is rejected before any of it is read. A client
/// that asked first (`Expect: 100-continue`) then need not send it.
///
/// Memory is taken for what has arrived, not for what is announced, so that a slow client cannot
/// reserve memory that others need. `memory` holds the memory of the rest of the request. The
/// returned body holds both until its last clone is dropped: a message may wait in the NATS client
/// after its request was abandoned.
pub(crate) async fn read(
    body: &mut Incoming,
    limit: BodyLimit,
    time: Duration,
    memory: MemoryPermit,
) -> Result<Bytes, Rejection> {
    if body.size_hint().lower() > limit.bytes as u64 {
        return Err(limit.too_large());
    }
    tokio::time::timeout(time, collect(body, limit, memory))
        .await
        .unwrap_or(Err(Rejection::BodyTimeout(time)))
}

async fn collect(
    body: &mut Incoming,
    limit: BodyLimit,
    mut memory: MemoryPermit,
) -> Result<Bytes, Rejection> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Rejection::InvalidBody(asyncqueue_runtime::error::error_chain(&error))
        })?;
        // Trailers are not stored.
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > limit.bytes - bytes.len() {
            return Err(limit.too_large());
        }
        let more = growth(bytes.len(), bytes.capacity(), data.len(), limit.bytes);
        if more > 0 {
            if !memory.grow(more) {
                return Err(Rejection::MemoryExhausted { budget: memory.budget() });
            }
            bytes.reserve_exact(bytes.capacity() - bytes.len() + more);
        }
        // Copied, even if it came in one piece: this frees the read buffer of the connection.
        bytes.extend_from_slice(&data);
    }
    Ok(memory.attach(bytes))
}

/// Returns by how much a buffer grows that must take `more` bytes. The size doubles, so that the
/// buffer is not copied each time, but does not exceed the limit. All values are in bytes.
fn growth(length: usize, capacity: usize, more: usize, limit: usize) -> usize {
    let needed = length + more;
    if needed <= capacity {
        0
    } else {
        needed.max(capacity.saturating_mul(2).min(limit)) - capacity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffer_doubles_within_the_limit() {
        assert_eq!(growth(0, 0, 2, 100), 2);
        assert_eq!(growth(2, 8, 6, 100), 0);
        assert_eq!(growth(8, 8, 1, 100), 8);
        assert_eq!(growth(60, 64, 10, 100), 36);
        assert_eq!(growth(0, 0, 100, 100), 100);
    }

    #[test]
    fn lower_limit_applies_and_is_named() {
        let own = BodyLimit::new(1000, 1 << 20);
        assert_eq!((own.bytes, own.set_by), (1000, "max_payload of the gateway"));
        let server = BodyLimit::new(1 << 20, 1 << 20);
        assert_eq!(server.bytes, (1 << 20) - RESERVED_HEADER_BYTES);
        assert!(server.set_by.contains("NATS"));
        assert_eq!(BodyLimit::new(1 << 20, 0).bytes, 0);
        assert_eq!(
            own.min_with(Some(999)),
            BodyLimit { bytes: 999, set_by: "limits.maxPayload of the queue" }
        );
        for not_lower in [None, Some(1000), Some(u64::MAX)] {
            assert_eq!(own.min_with(not_lower), own);
        }
    }
}
