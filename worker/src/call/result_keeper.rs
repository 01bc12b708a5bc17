//! Keeps the results of calls for clients that read them or wait for them.
//!
//! A kept result is disposable. While results can't be kept, calls end without them: after one that
//! could not be kept, none is tried for [`PAUSE_AFTER_FAILURE`], so that calls do not wait in vain.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_nats::jetstream::Context;
use asyncqueue::{
    EndState, NatsError, QueueName,
    call::CallRef,
    directory::{Directory, ResultsSettings},
    kept_results::{self, KeepOutcome, ResultsStream},
    message::kept_result::KeptResult,
    publish_failure::PublishFailure,
};
use asyncqueue_runtime::log_limit::LogLimit;
use tokio::sync::watch;
use tracing::warn;

use super::{
    Call,
    status::{StatusGuard, blocked_reporter},
};
use crate::{
    consumer::InFlightPermit, metrics::Metrics, record::Record, record_store::RecordStore,
};

/// Time for which no result is kept after one could not be.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(10);

/// Minimum interval between two warnings that results are not kept.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// Keeps the results of a queue's calls. Clones share what was found out about the stream.
#[derive(Clone, Debug)]
pub(crate) struct ResultKeeper {
    js: Context,
    queue: QueueName,
    directory: watch::Receiver<Option<Arc<Directory>>>,
    store: RecordStore,
    metrics: Metrics,
    shared: Arc<SharedState>,
}

#[derive(Debug)]
struct SharedState {
    stream: ResultsStream,
    paused_until: Mutex<Option<Instant>>,
    warnings: LogLimit,
}

// === impl ResultKeeper ===

impl ResultKeeper {
    pub(crate) fn new(
        js: Context,
        queue: QueueName,
        calls_stream: String,
        directory: watch::Receiver<Option<Arc<Directory>>>,
        store: RecordStore,
        metrics: Metrics,
    ) -> Self {
        let shared = SharedState {
            stream: ResultsStream::new(js.clone(), queue.clone(), calls_stream),
            paused_until: Mutex::default(),
            warnings: LogLimit::new(WARN_INTERVAL),
        };
        Self { js, queue, directory, store, metrics, shared: Arc::new(shared) }
    }

    /// Returns how long the result of a call is kept; `None` if it is not.
    pub(crate) fn retention(&self, call: &Call) -> Option<Duration> {
        self.with_settings(|settings| settings.retention_of(call.invocation.keep_result))
    }

    /// Returns the end in the kept result of a call; `None` if no result of it is kept.
    pub(crate) async fn end_of(&self, call: &CallRef) -> Result<Option<EndState>, NatsError> {
        kept_results::end_of_call(&self.js, &self.queue, call).await
    }

    /// Keeps a result, if that is possible now. Returns the end of the call's earlier result, if
    /// one is kept.
    pub(crate) async fn keep(
        &self,
        result: &KeptResult,
        retention: Duration,
        status: Option<&StatusGuard>,
        permit: &mut InFlightPermit,
    ) -> Option<EndState> {
        if self.is_paused() {
            self.record_lost(result, "results can't be kept now");
            return None;
        }
        let write = async || {
            let settings = self.with_settings(Clone::clone);
            self.shared.stream.store(result, retention, &settings).await
        };
        let kept = self.store.store_with_retries(
            Record::KeptResult,
            permit,
            blocked_reporter(status),
            write,
        );
        match kept.await {
            Ok(KeepOutcome::Kept) => {
                self.metrics.record_kept_result(true);
                None
            }
            Ok(KeepOutcome::HasEnd(end)) => Some(end),
            Err(failure) => {
                if !matches!(failure, PublishFailure::TooLarge(_)) {
                    let until = Instant::now() + PAUSE_AFTER_FAILURE;
                    *self.paused_until() = Some(until);
                }
                self.record_lost(result, failure.as_str());
                None
            }
        }
    }

    fn with_settings<T>(&self, read: impl FnOnce(&ResultsSettings) -> T) -> T {
        let directory = self.directory.borrow();
        let entry = directory.as_ref().and_then(|directory| directory.queues.get(&self.queue));
        read(ResultsSettings::of(entry))
    }

    fn is_paused(&self) -> bool {
        self.paused_until().is_some_and(|until| Instant::now() < until)
    }

    fn paused_until(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.shared.paused_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record_lost(&self, result: &KeptResult, reason: &str) {
        self.metrics.record_kept_result(false);
        if let Some(others) = self.shared.warnings.allow(Instant::now()) {
            let KeptResult { call_id, function, .. } = result;
            warn!(
                %call_id, %function, reason, others,
                "failed to keep the result of a call: the call ends without it"
            );
        }
    }
}
