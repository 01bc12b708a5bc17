//! Which calls were cancelled, as far as this worker has heard, and which of them it runs.
//!
//! It hears twice: by the broadcast, at once, which it answers; and by the bucket of tombstones, which tells it
//! also what it missed while it was away.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_nats::jetstream::Context;
use asyncqueue::{
    QueueName,
    cancel::{self, StoredCall, WAS_RUNNING, broadcast_subject, read_broadcast, read_tombstone},
};
use futures::StreamExt;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::questions;

/// Between attempts to hear, while NATS or the bucket is away.
const PAUSE: Duration = Duration::from_secs(1);

/// Cancelled calls that are remembered. One that is forgotten has left the stream long ago.
const REMEMBERED: usize = 100_000;

/// The cancellations of a queue. Clones know the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cancellations {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether the call was running here when it was heard of first.
    cancelled: HashMap<StoredCall, bool>,
    running: HashMap<StoredCall, CancellationToken>,
}

/// A call that runs here, until this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    cancellations: Cancellations,
    call: StoredCall,
    token: CancellationToken,
}

// === impl Cancellations ===

impl Cancellations {
    /// Registers a call as running; `None` if it was cancelled. From here on it can be.
    pub(crate) fn begin(&self, call: StoredCall) -> Option<Running> {
        let mut state = self.lock();
        if state.cancelled.contains_key(&call) {
            return None;
        }
        let token = CancellationToken::new();
        state.running.insert(call.clone(), token.clone());
        Some(Running { cancellations: self.clone(), call, token })
    }

    /// Takes note that a call is cancelled, and ends it if it runs here. Returns whether it did, now or when it was
    /// heard of first.
    pub(crate) fn cancel(&self, call: StoredCall) -> bool {
        let mut state = self.lock();
        if state.cancelled.len() >= REMEMBERED {
            state.cancelled.clear();
        }
        let running = state.running.get(&call).inspect(|token| token.cancel()).is_some();
        *state.cancelled.entry(call).or_insert(running)
    }

    /// Hears of cancellations for as long as it is polled.
    pub(crate) async fn follow(&self, js: &Context, queue: &QueueName) {
        let client = js.client();
        let broadcast = questions::answer(&client, broadcast_subject(queue), |call| {
            self.cancel(read_broadcast(call)?).then(|| WAS_RUNNING.into())
        });
        tokio::join!(broadcast, self.follow_tombstones(js, queue));
    }

    async fn follow_tombstones(&self, js: &Context, queue: &QueueName) {
        loop {
            if let Err(error) = self.read_tombstones(js, queue).await {
                debug!(%error, "tombstones can't be followed now");
            }
            sleep(PAUSE).await;
        }
    }

    async fn read_tombstones(&self, js: &Context, queue: &QueueName) -> Result<(), async_nats::Error> {
        let store = cancel::BUCKET.open(js).await?;
        let mut tombstones = store.watch_with_history(format!("{queue}.*")).await?;
        while let Some(tombstone) = tombstones.next().await {
            let tombstone = tombstone?;
            if let Some(call) = read_tombstone(queue, &tombstone.key, &tombstone.value) {
                self.cancel(call);
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Running ===

impl Running {
    /// Returns when the call is cancelled.
    pub(crate) async fn cancelled(&self) {
        self.token.cancelled().await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cancellations.lock().running.remove(&self.call);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn call(sequence: u64) -> StoredCall {
        StoredCall { id: "id-1".parse().unwrap(), sequence }
    }

    #[test]
    fn a_cancelled_call_does_not_begin_and_its_id_may_be_used_again() {
        let cancellations = Cancellations::default();
        assert!(!cancellations.cancel(call(1)));
        assert!(cancellations.begin(call(1)).is_none());
        assert!(cancellations.begin(call(2)).is_some());
    }

    #[test]
    fn a_running_call_hears_that_it_is_cancelled() {
        let cancellations = Cancellations::default();
        let running = cancellations.begin(call(1)).unwrap();
        assert!(running.cancelled().now_or_never().is_none());
        assert!(cancellations.cancel(call(1)));
        assert!(running.cancelled().now_or_never().is_some());
        drop(running);
        assert!(cancellations.cancel(call(1)), "it was running when it was heard of first");
    }
}
