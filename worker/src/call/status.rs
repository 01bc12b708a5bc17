//! Answers requests for the status of calls that this worker runs, or has handed back for their
//! next attempt.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_nats::Client;
use asyncqueue::{
    QueueName,
    call::{AttemptFailure, CallRef, Phase, WorkerReport},
    stats,
    worker_requests::status_request_subject,
};
use bytes::Bytes;
use jiff::Timestamp;

use crate::{function::request::Attempt, responder, stats::WorkerStatistics};

/// Maximum number of calls that are remembered as waiting for their next attempt. If a call is
/// forgotten, its status says that it was delivered.
const MAX_ENTRIES: usize = 100_000;

/// Maximum length of the remembered cause of a failed attempt, in characters.
const MAX_ERROR_CHARS: usize = 200;

/// The statuses of a worker's calls. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct CallStatuses {
    worker: String,
    calls: Arc<Mutex<HashMap<CallRef, StatusEntry>>>,
}

/// What is known about a call.
#[derive(Clone, Debug)]
struct StatusEntry {
    attempt: Attempt,
    phase: Phase,
    blocked: Option<String>,
    failure: Option<AttemptFailure>,
    not_counted_until: Option<Timestamp>,
}

/// A call that is reported as running, until this is dropped.
#[derive(Debug)]
pub(crate) struct StatusGuard {
    statuses: CallStatuses,
    call: CallRef,
    attempt: Attempt,
    is_waiting: bool,
}

// === impl CallStatuses ===

impl CallStatuses {
    pub(crate) fn new(worker: String) -> Self {
        Self { worker, calls: Arc::default() }
    }

    /// Returns the name of this worker.
    pub(crate) fn worker(&self) -> &str {
        &self.worker
    }

    /// Reports a call as running until the guard is dropped.
    pub(crate) fn track_running(&self, call: CallRef, attempt: Attempt) -> StatusGuard {
        let phase = Phase::Running { since: Timestamp::now() };
        self.lock().insert(call.clone(), StatusEntry::new(attempt, phase));
        StatusGuard { statuses: self.clone(), call, attempt, is_waiting: false }
    }

    /// Answers requests about calls and for the worker's statistics, for as long as it is polled.
    pub(crate) async fn answer_requests(
        &self,
        client: &Client,
        queue: &QueueName,
        statistics: &WorkerStatistics,
    ) {
        let answer = |request: &[u8], _inbox: Option<&_>| {
            if request == stats::STATS_REQUEST.as_bytes() {
                statistics.encode()
            } else {
                self.answer(request)
            }
        };
        responder::answer(client, status_request_subject(queue), answer).await;
    }

    fn answer(&self, request: &[u8]) -> Option<Bytes> {
        let report = self.report(&CallRef::decode(request)?, Timestamp::now())?;
        serde_json::to_vec(&report).ok().map(Bytes::from)
    }

    fn report(&self, call: &CallRef, now: Timestamp) -> Option<WorkerReport> {
        let StatusEntry { attempt, phase, blocked, failure, not_counted_until } =
            self.lock().get(call)?.clone();
        if !is_current(phase, now) {
            return None;
        }
        let (attempt, max_attempts) = (attempt.number, attempt.max);
        let worker = self.worker.clone();
        Some(WorkerReport {
            worker,
            attempt,
            max_attempts,
            phase,
            blocked,
            failure,
            not_counted_until,
        })
    }

    /// Returns whether this worker has handed back a call whose next attempt is not due yet.
    pub(crate) fn is_waiting(&self, call: &CallRef) -> bool {
        let phase = self.lock().get(call).map(|entry| entry.phase);
        phase.is_some_and(|phase| {
            matches!(phase, Phase::Waiting { .. }) && is_current(phase, Timestamp::now())
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CallRef, StatusEntry>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl StatusEntry ===

impl StatusEntry {
    fn new(attempt: Attempt, phase: Phase) -> Self {
        Self { attempt, phase, blocked: None, failure: None, not_counted_until: None }
    }
}

// === impl StatusGuard ===

impl StatusGuard {
    /// Reports from now on that the end of the call can't be stored, for this reason. `None`: it
    /// can be stored again.
    fn set_blocked(&self, reason: Option<String>) {
        if let Some(entry) = self.statuses.lock().get_mut(&self.call) {
            entry.blocked = reason;
        }
    }

    /// Reports from now on that the attempt has failed, and that the next one is due after this
    /// time. `not_counted_for`: how much longer failures of the platform do not count as attempts,
    /// if this one did not count.
    pub(crate) fn mark_waiting(
        mut self,
        wait: Duration,
        mut failure: AttemptFailure,
        not_counted_for: Option<Duration>,
    ) {
        if let Some((end, _)) = failure.last_error.char_indices().nth(MAX_ERROR_CHARS) {
            failure.last_error.truncate(end);
        }
        let failure = Some(failure);
        let now = Timestamp::now();
        let after = |time: Duration| now.saturating_add(time).unwrap_or(Timestamp::MAX);
        let (next_attempt, not_counted_until) = (after(wait), not_counted_for.map(after));
        let mut calls = self.statuses.lock();
        if calls.len() >= MAX_ENTRIES {
            calls.retain(|_, StatusEntry { phase, .. }| {
                matches!(phase, Phase::Running { .. }) || is_current(*phase, now)
            });
        }
        if calls.len() < MAX_ENTRIES {
            let (attempt, phase) = (self.attempt, Phase::Waiting { next_attempt });
            calls.insert(
                self.call.clone(),
                StatusEntry { failure, not_counted_until, ..StatusEntry::new(attempt, phase) },
            );
            drop(calls);
            self.is_waiting = true;
        }
    }
}

impl Drop for StatusGuard {
    fn drop(&mut self) {
        if !self.is_waiting {
            self.statuses.lock().remove(&self.call);
        }
    }
}

/// Returns a function that reports the end of a call as blocked, if the call is reported.
pub(crate) fn blocked_reporter(status: Option<&StatusGuard>) -> impl Fn(Option<String>) {
    move |reason| {
        if let Some(status) = status {
            status.set_blocked(reason);
        }
    }
}

/// Returns whether a remembered phase still holds. A call whose next attempt was due may be with
/// another worker now.
fn is_current(phase: Phase, now: Timestamp) -> bool {
    match phase {
        Phase::Running { .. } => true,
        Phase::Waiting { next_attempt } => now < next_attempt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_reported_until_its_next_attempt_is_due() {
        let statuses = CallStatuses::new("w".to_owned());
        let call = CallRef { id: "id-1".parse().unwrap(), sequence: 7 };
        let now = Timestamp::now();
        assert_eq!(statuses.report(&call, now), None);
        let guard = statuses.track_running(call.clone(), Attempt { number: 2, max: 10 });
        let report = statuses.report(&call, now).unwrap();
        assert_eq!((report.worker.as_str(), report.attempt, report.max_attempts), ("w", 2, 10));
        assert!(matches!(report.phase, Phase::Running { .. }));

        let failure = AttemptFailure { last_status: 503, last_error: "é".repeat(900) };
        guard.mark_waiting(Duration::from_secs(60), failure.clone(), None);
        let report = statuses.report(&call, now).unwrap();
        assert!(
            matches!(report.phase, Phase::Waiting { .. }) && report.not_counted_until.is_none()
        );
        let reported = report.failure.unwrap();
        assert_eq!((reported.last_status, reported.last_error), (503, "é".repeat(MAX_ERROR_CHARS)));
        assert_eq!(statuses.report(&call, now + Duration::from_secs(120)), None);

        let guard = statuses.track_running(call.clone(), Attempt { number: 2, max: 10 });
        guard.mark_waiting(Duration::from_secs(60), failure, Some(Duration::from_secs(3600)));
        let until = statuses.report(&call, now).unwrap().not_counted_until.unwrap();
        assert!(until >= now + Duration::from_secs(3600));

        drop(statuses.track_running(call.clone(), Attempt { number: 3, max: 10 }));
        assert_eq!(statuses.report(&call, now), None, "it has ended");
    }
}
