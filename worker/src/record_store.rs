//! Stores the records of a call whose end is known: its results, dead letter, tombstone or attempt
//! offset.
//!
//! Only this module decides how long a refused write is repeated. A refusal of the message itself
//! is final. Everything else is retried for a bounded time, and without the slot after a moment. If
//! the storage is full, the reserve is released. Blocked calls are visible in the log, the metrics,
//! the call's status and the worker's statistics. Time without a connection to NATS does not count,
//! since nothing can be delivered then either.

use std::{
    collections::HashMap,
    error::Error,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_nats::{connection::State, jetstream::Context};
use asyncqueue::{publish_failure::PublishFailure, reserve, stats::BlockedCalls};
use asyncqueue_runtime::{error::error_chain, nats};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::{consumer::InFlightPermit, metrics::Metrics, record::Record};

/// Time after which the slot of the call is released.
const SLOT_TIMEOUT: Duration = Duration::from_secs(1);

/// Time after which the write is not retried. Servers of a cluster take ten seconds to elect a
/// stream's leader, and may have to start over. What is missing for longer does not exist.
const RETRY_TIMEOUT: Duration = Duration::from_secs(20);

/// Wait between attempts.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Minimum time between two warnings of one kind, however many calls wait.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// Stores records. Clones share the calls that wait.
#[derive(Clone, Debug)]
pub(crate) struct RecordStore {
    js: Context,
    metrics: Metrics,
    waiting: Arc<Mutex<WaitingCalls>>,
}

#[derive(Debug, Default)]
struct WaitingCalls {
    calls: HashMap<(Record, PublishFailure), u32>,
    warned: HashMap<(Record, PublishFailure), Instant>,
}

/// A call that waits for a record to be stored, until this is dropped.
#[derive(Debug)]
struct BlockedGuard<'a> {
    store: &'a RecordStore,
    kind: (Record, PublishFailure),
}

// === impl RecordStore ===

impl RecordStore {
    pub(crate) fn new(js: Context, metrics: Metrics) -> Self {
        Self { js, metrics, waiting: Arc::default() }
    }

    /// Repeats `write` until it succeeds, its failure is final, or the time is over. Returns what
    /// it returned, or why the record is not stored. Calls `on_blocked` with the reason when the
    /// record can't be stored now, and with `None` when it is stored after that.
    pub(crate) async fn store_with_retries<T, E, F>(
        &self,
        record: Record,
        permit: &mut InFlightPermit,
        on_blocked: impl Fn(Option<String>),
        write: impl Fn() -> F,
    ) -> Result<T, PublishFailure>
    where
        E: Error + 'static,
        F: Future<Output = Result<T, E>>,
    {
        let mut started = Instant::now();
        let mut blocked: Option<BlockedGuard<'_>> = None;
        loop {
            let failure = match write().await {
                Ok(stored) => {
                    if blocked.is_some() {
                        on_blocked(None);
                    }
                    return Ok(stored);
                }
                Err(error) => {
                    let failure = PublishFailure::from_error(&error);
                    self.metrics.record_store_failure(record, failure);
                    let is_known = matches!(
                        failure,
                        PublishFailure::TooLarge(_)
                            | PublishFailure::Conflict
                            | PublishFailure::InProcess
                    );
                    if !is_known {
                        self.warn(record, failure, &error);
                    }
                    failure
                }
            };
            match failure {
                PublishFailure::TooLarge(_) | PublishFailure::Conflict => return Err(failure),
                PublishFailure::NoSpace | PublishFailure::StreamFull if record.is_disposable() => {
                    return Err(failure);
                }
                PublishFailure::NoSpace if self.release_reserve().await => continue,
                _ => {}
            }
            if started.elapsed() > RETRY_TIMEOUT {
                return Err(failure);
            }
            if started.elapsed() > SLOT_TIMEOUT {
                permit.release_slot_early();
            }
            // The previous guard is dropped after the next one is created, so that the counts never
            // drop to 0 in between.
            blocked = Some(self.block(record, failure));
            let reason = format!("{} can't be stored: {}", record.description(), failure.as_str());
            on_blocked(Some(reason));
            sleep(RETRY_INTERVAL).await;
            started += self.wait_connected().await;
        }
    }

    /// Returns the calls that wait now.
    pub(crate) fn blocked(&self) -> Vec<BlockedCalls> {
        let waiting = self.lock();
        let kinds = waiting.calls.iter().filter(|(_, calls)| **calls > 0);
        kinds
            .map(|((record, failure), calls)| BlockedCalls {
                record: record.as_str().to_owned(),
                reason: failure.as_str().to_owned(),
                calls: *calls,
            })
            .collect()
    }

    /// Waits until NATS is connected, and returns how long that took.
    async fn wait_connected(&self) -> Duration {
        let client = self.js.client();
        if client.connection_state() == State::Connected {
            return Duration::ZERO;
        }
        let disconnected_at = Instant::now();
        nats::wait_connected(&client).await;
        disconnected_at.elapsed()
    }

    /// Releases the reserve, whose space is for the records that end calls. Returns whether there
    /// was any.
    async fn release_reserve(&self) -> bool {
        match reserve::release(&self.js).await {
            Ok(true) => {
                info!(
                    "the NATS store is full: released the reserve, gateways refuse new calls \
                     until it is refilled"
                );
                true
            }
            Ok(false) => false,
            Err(error) => {
                warn!(error = error_chain(&error), "failed to release the reserve");
                false
            }
        }
    }

    fn warn(&self, record: Record, failure: PublishFailure, error: &(dyn Error + 'static)) {
        let mut waiting = self.lock();
        let kind = (record, failure);
        let is_due =
            waiting.warned.get(&kind).is_none_or(|warned| warned.elapsed() > WARNING_INTERVAL);
        if is_due {
            waiting.warned.insert(kind, Instant::now());
            let calls = waiting.calls.get(&kind).copied().unwrap_or_default().max(1);
            drop(waiting);
            let (what, reason) = (record.description(), failure.as_str());
            warn!(
                record = record.as_str(),
                reason,
                calls,
                error = error_chain(error),
                "failed to store {what} of a call, retrying"
            );
        }
    }

    fn block(&self, record: Record, failure: PublishFailure) -> BlockedGuard<'_> {
        let kind = (record, failure);
        *self.lock().calls.entry(kind).or_default() += 1;
        self.metrics.add_blocked(record, failure, 1);
        BlockedGuard { store: self, kind }
    }

    fn lock(&self) -> MutexGuard<'_, WaitingCalls> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for BlockedGuard<'_> {
    fn drop(&mut self) {
        let (record, failure) = self.kind;
        if let Some(calls) = self.store.lock().calls.get_mut(&self.kind) {
            *calls = calls.saturating_sub(1);
        }
        self.store.metrics.add_blocked(record, failure, -1);
    }
}
