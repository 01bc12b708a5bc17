//! Limits how many things are done at once.
//!
//! Above the limit, a request is refused and does not wait. A request that waits would hold memory,
//! and its client would get the same answer later.

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::rejection::Refusal;

/// A limited number of slots.
#[derive(Debug)]
pub struct Slots {
    free: Semaphore,
    most: usize,
    what: &'static str,
}

// === impl Slots ===

impl Slots {
    /// Creates `most` slots for `what`, which is the name in a refusal.
    #[must_use]
    pub fn new(most: usize, what: &'static str) -> Self {
        Self { free: Semaphore::new(most), most, what }
    }

    /// Takes a slot, which is free again when the permit is dropped.
    pub fn take(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        self.free.try_acquire().map_err(|_| Refusal::Busy { with: self.what, most: self.most })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_than_there_are_is_refused_until_one_is_free() {
        let slots = Slots::new(1, "calls");
        let taken = slots.take().unwrap();
        let refusal = slots.take().unwrap_err();
        assert_eq!(refusal.status(), 503);
        assert_eq!(refusal.retry_after().unwrap().as_secs(), 1);
        assert!(refusal.to_string().contains("1 calls"), "{refusal}");
        drop(taken);
        assert!(slots.take().is_ok());
    }
}
