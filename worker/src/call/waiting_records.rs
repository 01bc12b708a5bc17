//! Records how many attempts of each call were made that waits here for its next one, when a
//! program asks for that: it is about to replace the consumers of the queue.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use async_nats::{Subject, jetstream::Context};
use asyncqueue::{
    QueueName, attempt_offset::record_waiting, jetstream::NatsError, waiting_calls::WaitingRecords,
};
use asyncqueue_runtime::error::error_chain;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use tokio::sync::Mutex;
use tracing::{info, warn};

use super::status::{CallStatuses, WaitingCall};
use crate::{consumer::InFlightSet, responder, server_clock::ServerClock};

/// Maximum number of records that are written concurrently.
const MAX_CONCURRENT_WRITES: usize = 64;

/// How much the clock of the server may differ from what this worker knows of it.
const CLOCK_ERROR: Duration = Duration::from_secs(1);

/// When the attempts of calls were recorded last, by the server's clock. Calls that were stored
/// before that may have attempts at an earlier consumer. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct LastRecorded(Arc<AtomicI64>);

/// Records the attempts of calls. Clones share their state.
#[derive(Clone, Debug)]
pub(crate) struct WaitingRecorder {
    pub(crate) js: Context,
    pub(crate) queue: QueueName,
    pub(crate) statuses: CallStatuses,
    /// Distinguishes this process from others whose workers have its name.
    pub(crate) instance: String,
    /// The calls that this worker has in flight.
    pub(crate) in_flight: InFlightSet,
    pub(crate) last: LastRecorded,
    pub(crate) clock: ServerClock,
    /// Locked while calls are recorded: another request is not answered then.
    pub(crate) busy: Arc<Mutex<()>>,
}

// === impl LastRecorded ===

impl LastRecorded {
    /// Returns whether a call was stored after attempts were recorded last.
    pub(crate) fn is_before(&self, stored_at: Timestamp) -> bool {
        stored_at.as_millisecond() > self.0.load(Ordering::Relaxed)
    }

    fn set(&self, now: Timestamp) {
        let at = now.saturating_add(CLOCK_ERROR).unwrap_or(Timestamp::MAX);
        self.0.store(at.as_millisecond(), Ordering::Relaxed);
    }
}

impl Default for LastRecorded {
    /// They were never recorded.
    fn default() -> Self {
        Self(Arc::new(AtomicI64::new(i64::MIN)))
    }
}

// === impl WaitingRecorder ===

impl WaitingRecorder {
    /// Records the attempts, and sends the answer to an inbox, in a task of its own.
    pub(crate) fn start(&self, inbox: Subject) {
        let Ok(busy) = self.busy.clone().try_lock_owned() else { return };
        let this = self.clone();
        tokio::spawn(async move {
            let records = this.record().await;
            if let Ok(answer) = serde_json::to_vec(&records) {
                responder::send(&this.js.client(), inbox, answer.into()).await;
            }
            drop(busy);
        });
    }

    async fn record(&self) -> WaitingRecords {
        let (worker, instance) = (self.statuses.worker().to_owned(), self.instance.clone());
        let in_flight = self.in_flight.len() as u64;
        if in_flight > 0 {
            let (recorded, failed, scheduled) = (0, 0, 0);
            return WaitingRecords { worker, instance, in_flight, recorded, failed, scheduled };
        }
        self.last.set(self.clock.now());
        let waiting = self.statuses.waiting();
        let calls = waiting.len() as u64;
        let failures: Vec<_> = stream::iter(waiting)
            .map(|call| self.write(call))
            .buffer_unordered(MAX_CONCURRENT_WRITES)
            .filter_map(|written| std::future::ready(written.err()))
            .collect()
            .await;
        let failed = failures.len() as u64;
        if let Some(error) = failures.first() {
            warn!(
                failed,
                "failed to record the attempts of calls that wait for their next one: {}",
                error_chain(error)
            );
        }
        let recorded = calls - failed;
        if recorded > 0 {
            info!(recorded, "recorded the attempts of calls that wait for their next one");
        }
        let scheduled = self.statuses.scheduled().count(Instant::now());
        WaitingRecords { worker, instance, in_flight, recorded, failed, scheduled }
    }

    async fn write(
        &self,
        WaitingCall { call, made, due_in }: WaitingCall,
    ) -> Result<(), NatsError> {
        let not_before = self.clock.now().saturating_add(due_in).unwrap_or_default();
        record_waiting(&self.js, &self.queue, &call, made, not_before).await
    }
}
