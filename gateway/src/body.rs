//! Reads bodies, within limits of size and time.

use std::{sync::Arc, time::Duration};

use asyncqueue::message::HEADER_ROOM;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::refusal::Refusal;

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

    /// The lesser of this and what a queue takes, in bytes, if it says.
    #[must_use]
    pub fn within(self, queue: Option<u64>) -> Self {
        match queue.and_then(|bytes| usize::try_from(bytes).ok()).filter(|bytes| *bytes < self.bytes) {
            Some(bytes) => Self { bytes, set_by: "limits.maxPayload of the queue" },
            None => self,
        }
    }

    fn exceeded(self) -> Refusal {
        Refusal::BodyTooLarge { limit: self.bytes, set_by: self.set_by }
    }
}

/// The memory that bodies may take together. Clones are of the same memory.
#[derive(Clone, Debug)]
pub struct Memory {
    free: Arc<Semaphore>,
    bytes: usize,
    used: Gauge,
}

/// A body that was read.
#[derive(Debug)]
pub struct Held {
    /// The body.
    pub bytes: Bytes,
    /// What it takes of the memory.
    pub memory: Option<Taken>,
}

/// Memory that is taken until this is dropped.
#[derive(Debug)]
pub struct Taken {
    permit: OwnedSemaphorePermit,
    used: Gauge,
}

// === impl Memory ===

impl Memory {
    /// So many bytes, of which `used` tells how many are taken.
    #[must_use]
    pub fn new(bytes: usize, used: Gauge) -> Self {
        let bytes = bytes.min(Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(bytes)), bytes, used }
    }

    /// Takes memory for `bytes`, or refuses: to wait for it would be to hold what was read before.
    fn take(&self, bytes: usize) -> Result<Taken, Refusal> {
        let permits = u32::try_from(bytes).ok();
        let permit = permits.and_then(|permits| self.free.clone().try_acquire_many_owned(permits).ok());
        let permit = permit.ok_or(Refusal::Busy { with: "bytes of bodies", most: self.bytes })?;
        self.used.inc_by(count(permit.num_permits()));
        Ok(Taken { permit, used: self.used.clone() })
    }
}

impl Taken {
    /// Both, of the same memory.
    fn and(mut self, mut other: Self) -> Self {
        if let Some(permit) = other.permit.split(other.permit.num_permits()) {
            self.permit.merge(permit);
        }
        self
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.used.dec_by(count(self.permit.num_permits()));
    }
}

fn count(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Reads a body. One that says that it is over the limit is refused before any of it is read, so that a
/// client that asked (`Expect: 100-continue`) need not send it. Memory is taken for what has arrived, so that a slow
/// client keeps none from others by what it announces.
pub async fn read(
    body: &mut Incoming,
    limit: Limit,
    time: Duration,
    memory: &Memory,
) -> Result<Held, Refusal> {
    if body.size_hint().lower() > limit.bytes as u64 {
        return Err(limit.exceeded());
    }
    tokio::time::timeout(time, collect(body, limit, memory)).await.unwrap_or(Err(Refusal::BodyTimeout(time)))
}

async fn collect(body: &mut Incoming, limit: Limit, memory: &Memory) -> Result<Held, Refusal> {
    let (mut bytes, mut taken) = (BytesMut::new(), None::<Taken>);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Refusal::Body(asyncqueue_runtime::error::describe(&error)))?;
        // Trailers are not stored.
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > limit.bytes - bytes.len() {
            return Err(limit.exceeded());
        }
        let more = memory.take(data.len())?;
        taken = Some(match taken {
            Some(taken) => taken.and(more),
            None => more,
        });
        // A copy, also of what came at once: what the connection reads into is then free for it again.
        bytes.extend_from_slice(&data);
    }
    Ok(Held { bytes: bytes.freeze(), memory: taken })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_taken_until_there_is_none_and_given_back() {
        let used = Gauge::default();
        let memory = Memory::new(10, used.clone());
        let first = memory.take(6).unwrap();
        let _second = memory.clone().take(4).unwrap();
        let refusal = memory.take(1).unwrap_err();
        assert_eq!(refusal.status(), 503);
        assert!(refusal.to_string().contains("10 bytes of bodies"), "{refusal}");
        assert_eq!(used.get(), 10);
        drop(first);
        assert_eq!(used.get(), 4);
        assert!(memory.take(6).is_ok());
        assert!(memory.take(usize::MAX).is_err());
    }

    #[test]
    fn the_lesser_of_two_limits_counts_and_is_named() {
        let own = Limit::new(1000, 1 << 20);
        assert_eq!((own.bytes, own.set_by), (1000, "max_payload of the gateway"));
        let server = Limit::new(1 << 20, 1 << 20);
        assert_eq!(server.bytes, (1 << 20) - HEADER_ROOM);
        assert!(server.set_by.contains("NATS"));
        assert_eq!(Limit::new(1 << 20, 0).bytes, 0);
        assert_eq!(own.within(Some(999)), Limit { bytes: 999, set_by: "limits.maxPayload of the queue" });
        for no_less in [None, Some(1000), Some(u64::MAX)] {
            assert_eq!(own.within(no_less), own);
        }
    }
}
