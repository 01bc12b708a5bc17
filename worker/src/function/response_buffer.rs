//! Buffers the body of a response while it is read, and accounts for its memory.
//!
//! A response is not refused for lack of memory: the function has done the work. It waits until
//! there is memory, and the function waits with it. Responses that wait for each other's memory
//! must come to an end, so one response at a time may exceed the budget.

use std::sync::Arc;

use asyncqueue_runtime::memory::{Account, MemoryPermit};
use bytes::Bytes;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Maximum size of a response head, and of a single read of a response, in bytes.
pub(crate) const READ_BYTES: usize = 128 * 1024;

/// Bytes of a response that are read before its connection may read `READ_BYTES` at once. Such
/// reads need two buffers: the one that is filled, and the part that is taken from it.
const SLOW_READ_BYTES: usize = 16 * 1024;

/// The memory for responses. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct ResponseMemory {
    account: Account,
    over_budget: Arc<Mutex<()>>,
}

/// Holds what was read of a response.
#[derive(Debug)]
pub(crate) struct ResponseBuffer {
    bytes: Vec<u8>,
    /// Maximum number of bytes that are kept.
    limit: usize,
    /// Announced length of the response, at most `limit`; 0 if unknown.
    announced: usize,
    memory: ResponseMemory,
    permits: Vec<MemoryPermit>,
    over_budget: Option<OwnedMutexGuard<()>>,
}

/// Keeps a buffer and its memory until the last reference to the bytes is dropped.
struct OwnedBuffer(ResponseBuffer);

// === impl ResponseMemory ===

impl ResponseMemory {
    pub(crate) fn new(account: Account) -> Self {
        Self { account, over_budget: Arc::default() }
    }

    /// Creates an empty buffer for a response. `limit`: maximum number of bytes to keep.
    /// `announced`: length of the response as its headers state it, if they do.
    pub(crate) fn buffer(&self, limit: usize, announced: Option<u64>) -> ResponseBuffer {
        let announced =
            announced.map_or(0, |bytes| usize::try_from(bytes).unwrap_or(limit).min(limit));
        let memory = self.clone();
        ResponseBuffer {
            bytes: Vec::new(),
            limit,
            announced,
            memory,
            permits: Vec::new(),
            over_budget: None,
        }
    }
}

// === impl ResponseBuffer ===

impl ResponseBuffer {
    /// Returns the number of bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds bytes as soon as there is memory for them.
    pub(crate) async fn append(&mut self, more: &[u8]) {
        let needed = self.bytes.len() + more.len();
        if needed > self.bytes.capacity() {
            // Without an announced length, the capacity doubles, so that bytes are not copied for
            // each part.
            let capacity =
                needed.max(self.announced).max((self.bytes.capacity() * 2).min(self.limit));
            let begins_to_read_fast =
                capacity > SLOW_READ_BYTES && self.bytes.capacity() <= SLOW_READ_BYTES;
            let buffers = if begins_to_read_fast { READ_BYTES * 2 } else { 0 };
            self.reserve(capacity - self.bytes.capacity() + buffers).await;
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(more);
    }

    /// Returns the bytes, which keep their memory reserved until they are dropped.
    pub(crate) fn into_bytes(self) -> Bytes {
        if self.bytes.is_empty() { Bytes::new() } else { Bytes::from_owner(OwnedBuffer(self)) }
    }

    async fn reserve(&mut self, bytes: usize) {
        if self.over_budget.is_some() {
            return;
        }
        tokio::select! {
            biased;
            permits = self.memory.account.take(bytes) => self.permits.push(permits),
            turn = self.memory.over_budget.clone().lock_owned() => self.over_budget = Some(turn),
        }
    }
}

impl AsRef<[u8]> for OwnedBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes
    }
}

#[cfg(test)]
mod tests {
    use asyncqueue_runtime::memory::Budget;
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn one_response_at_a_time_exceeds_the_budget() {
        let account = Budget::new(100, &mut prometheus_client::registry::Registry::default())
            .account("answers");
        let memory = ResponseMemory::new(account.clone());
        let (mut first, mut second, mut third) =
            (memory.buffer(600, None), memory.buffer(660, None), memory.buffer(600, Some(60)));
        first.append(&[0; 60]).await;
        second.append(&[0; 60]).await;
        assert_eq!((account.free(), second.over_budget.is_some()), (40, true));
        second.append(&[0; 600]).await;
        assert!(
            third.append(&[0; 60]).now_or_never().is_none(),
            "it has neither memory nor the turn"
        );
        // The memory is reserved as long as the bytes exist, and not only while they are read.
        let second = second.into_bytes();
        assert!(third.append(&[0; 60]).now_or_never().is_none());
        drop((second, first.into_bytes()));
        third.append(&[0; 60]).await;
        assert_eq!((third.len(), account.free()), (60, 40));
    }
}
