//! Stores what belongs to a call whose end is known: its result, dead letter, tombstone or attempt
//! offset.
//!
//! Only this module decides how long a refused write is repeated. A refusal of the message itself
//! is final. Everything else is tried again for a bounded time, and without the slot after a
//! moment. If the store is full, the room of the reserve is released. What waits is visible in the
//! log, the metrics, the call's status and the worker's statistics. Time without a connection to
//! NATS does not count, since nothing can be delivered then either.

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

use crate::{metrics::Metrics, pull::Ticket, reports::Reported};

/// Time after which the call leaves its slot.
const SLOT_LIMIT: Duration = Duration::from_secs(1);

/// Time after which the write is not tried again. Servers of a cluster take ten seconds to elect a
/// stream's leader, and may have to start over. What is missing for longer does not exist.
const LIMIT: Duration = Duration::from_secs(20);

/// Wait between attempts.
const PAUSE: Duration = Duration::from_millis(500);

/// Minimum time between two warnings of one kind, however many calls wait.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// Says what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Record {
    /// The result of a call, for its client.
    Result,
    /// A dead letter.
    DeadLetter,
    /// The mark that a call is dead or expired.
    Tombstone,
    /// How many deliveries of a call were no attempts.
    AttemptOffset,
}

/// Stores records. Clones share the calls that wait.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    js: Context,
    metrics: Metrics,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    calls: HashMap<(Record, PublishFailure), u32>,
    warned: HashMap<(Record, PublishFailure), Instant>,
}

/// A call that waits for a record to be stored, until this is dropped.
#[derive(Debug)]
struct Blocked<'a> {
    store: &'a Store,
    kind: (Record, PublishFailure),
}

// === impl Record ===

impl Record {
    /// All kinds of records.
    pub(crate) const ALL: [Self; 4] =
        [Self::Result, Self::DeadLetter, Self::Tombstone, Self::AttemptOffset];

    /// Returns the value of a metric's label for this record.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Result => "result",
            Self::DeadLetter => "dead_letter",
            Self::Tombstone => "tombstone",
            Self::AttemptOffset => "attempt_offset",
        }
    }

    fn description(self) -> &'static str {
        match self {
            Self::Result => "the result",
            Self::DeadLetter => "the dead letter",
            Self::Tombstone => "the mark that the call has ended",
            Self::AttemptOffset => "the number of deliveries that are no attempts",
        }
    }
}

// === impl Store ===

impl Store {
    pub(crate) fn new(js: Context, metrics: Metrics) -> Self {
        Self { js, metrics, waiting: Arc::default() }
    }

    /// Repeats `attempt` until it succeeds, its failure is final, or the time is over. Returns what
    /// it returned, or why the record is not stored.
    pub(crate) async fn until_stored<T, E, F>(
        &self,
        record: Record,
        ticket: &mut Ticket,
        reported: Option<&Reported>,
        attempt: impl Fn() -> F,
    ) -> Result<T, PublishFailure>
    where
        E: Error + 'static,
        F: Future<Output = Result<T, E>>,
    {
        let mut begun = Instant::now();
        let mut blocked: Option<Blocked<'_>> = None;
        loop {
            let failure = match attempt().await {
                Ok(stored) => {
                    if let (Some(_), Some(reported)) = (&blocked, reported) {
                        reported.set_blocked(None);
                    }
                    return Ok(stored);
                }
                Err(error) => {
                    let failure = PublishFailure::from_error(&error);
                    self.metrics.not_stored(record, failure);
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
                PublishFailure::NoSpace if self.release_reserve().await => continue,
                _ => {}
            }
            if begun.elapsed() > LIMIT {
                return Err(failure);
            }
            if begun.elapsed() > SLOT_LIMIT {
                ticket.leave_slot();
            }
            // The previous guard is dropped after the next one is created, so that the counts never
            // drop to 0 in between.
            blocked = Some(self.block(record, failure));
            if let Some(reported) = reported {
                let why = format!("{} can't be stored: {}", record.description(), failure.as_str());
                reported.set_blocked(Some(why));
            }
            sleep(PAUSE).await;
            begun += self.reconnected().await;
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
    async fn reconnected(&self) -> Duration {
        let client = self.js.client();
        if client.connection_state() == State::Connected {
            return Duration::ZERO;
        }
        let lost = Instant::now();
        nats::wait_connected(&client).await;
        lost.elapsed()
    }

    /// Releases the reserve, whose room is for what ends calls. Returns whether there was any.
    async fn release_reserve(&self) -> bool {
        match reserve::release(&self.js).await {
            Ok(true) => {
                info!(
                    "the store of NATS is full: released the reserve, gateways refuse new calls until it is full again"
                );
                true
            }
            Ok(false) => false,
            Err(error) => {
                warn!(error = error_chain(&error), "the reserve could not be released");
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
                "{what} of a call can't be stored, trying again"
            );
        }
    }

    fn block(&self, record: Record, failure: PublishFailure) -> Blocked<'_> {
        let kind = (record, failure);
        *self.lock().calls.entry(kind).or_default() += 1;
        self.metrics.blocked(record, failure, 1);
        Blocked { store: self, kind }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Blocked<'_> {
    fn drop(&mut self) {
        let (record, failure) = self.kind;
        if let Some(calls) = self.store.lock().calls.get_mut(&self.kind) {
            *calls = calls.saturating_sub(1);
        }
        self.store.metrics.blocked(record, failure, -1);
    }
}
