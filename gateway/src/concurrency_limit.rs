//! Limits the number of concurrent operations.
//!
//! Above the limit, a request is refused and does not wait. A request that waits would hold memory,
//! and its client would get the same answer later.

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::rejection::Rejection;

/// A maximum number of operations that run at once.
#[derive(Debug)]
pub(crate) struct ConcurrencyLimit {
    permits: Semaphore,
    limit: usize,
    what: &'static str,
}

// === impl ConcurrencyLimit ===

impl ConcurrencyLimit {
    /// Creates a limit for `what`, which is its name in a rejection.
    #[must_use]
    pub(crate) fn new(limit: usize, what: &'static str) -> Self {
        Self { permits: Semaphore::new(limit), limit, what }
    }

    /// Returns a permit, or rejects the request if none is left. Dropping the permit releases it.
    pub(crate) fn try_acquire(&self) -> Result<SemaphorePermit<'_>, Rejection> {
        self.permits
            .try_acquire()
            .map_err(|_| Rejection::Overloaded { what: self.what, limit: self.limit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_over_the_limit_is_rejected_until_a_permit_is_free() {
        let limit = ConcurrencyLimit::new(1, "calls");
        let permit = limit.try_acquire().unwrap();
        let rejection = limit.try_acquire().unwrap_err();
        assert_eq!(rejection.status(), 503);
        assert_eq!(rejection.retry_after().unwrap().as_secs(), 1);
        assert!(rejection.to_string().contains("1 calls"), "{rejection}");
        drop(permit);
        assert!(limit.try_acquire().is_ok());
    }
}
