//! Reads bodies, within limits of size and time.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};

use crate::refusal::Refusal;

/// For a whole body: what OpenFaaS's gateway gives it, and enough for a megabyte over a slow line.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the rest of a refused body is thrown away before the connection is closed. Closing it at once
/// would reset it, and the client might lose the answer that says why.
const LINGER: Duration = Duration::from_secs(2);

/// Room that a message needs besides its body, for its headers: as much as most servers take of them. A call
/// with more is refused too, though only when NATS does so.
const HEADER_ROOM: usize = 8 * 1024;

/// The most that a body may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// In bytes.
    pub bytes: usize,
    /// What it comes from, for whoever wants to raise it.
    pub set_by: &'static str,
}

// === impl Limit ===

impl Limit {
    /// The lesser of this program's own limit and the NATS server's, both in bytes.
    #[must_use]
    pub fn new(max_payload: usize, server_max_payload: usize) -> Self {
        let server = server_max_payload.saturating_sub(HEADER_ROOM);
        if max_payload <= server {
            Self { bytes: max_payload, set_by: "max_payload of the gateway" }
        } else {
            Self { bytes: server, set_by: "max_payload of the NATS server, less room for headers" }
        }
    }

    fn exceeded(self) -> Refusal {
        Refusal::BodyTooLarge { limit: self.bytes, set_by: self.set_by }
    }
}

/// Reads a body. One that says that it is over the limit is refused before any of it is read, so that a
/// client that asked (`Expect: 100-continue`) need not send it.
pub async fn read(body: &mut Incoming, limit: Limit) -> Result<Bytes, Refusal> {
    if body.size_hint().lower() > limit.bytes as u64 {
        return Err(limit.exceeded());
    }
    match tokio::time::timeout(READ_TIMEOUT, Limited::new(body, limit.bytes).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(limit.exceeded()),
        Ok(Err(error)) => Err(Refusal::Body(error.to_string())),
        Err(_) => Err(Refusal::BodyTimeout(READ_TIMEOUT)),
    }
}

/// Throws away what is still to come of a body whose request is refused, for a moment. A client that asked
/// whether to send it is not told to: to read is to say yes.
pub fn discard(headers: &HeaderMap, mut body: Incoming) {
    if body.is_end_stream() || headers.contains_key(header::EXPECT) {
        return;
    }
    tokio::spawn(tokio::time::timeout(LINGER, async move { while let Some(Ok(_)) = body.frame().await {} }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lesser_of_two_limits_counts_and_is_named() {
        let own = Limit::new(1000, 1 << 20);
        assert_eq!((own.bytes, own.set_by), (1000, "max_payload of the gateway"));
        let server = Limit::new(1 << 20, 1 << 20);
        assert_eq!(server.bytes, (1 << 20) - HEADER_ROOM);
        assert!(server.set_by.contains("NATS"));
        assert_eq!(Limit::new(1 << 20, 0).bytes, 0);
    }
}
