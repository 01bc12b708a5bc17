//! Answers requests for the status of calls that this worker runs, or has handed back for their
//! next attempt.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_nats::{Client, Subject};
use asyncqueue::{
    QueueName,
    call::{AttemptFailure, CallRef, Phase, WorkerReport},
    stats,
    waiting_calls::RECORD_REQUEST,
    worker_requests::status_request_subject,
};
use bytes::Bytes;
use jiff::Timestamp;

use crate::{
    failed_attempts::{FailedAttempts, MAX_ERROR_CHARS},
    function::request::Attempt,
    responder,
    scheduled::ScheduledCalls,
    stats::WorkerStatistics,
};

/// Maximum number of calls that are remembered as waiting for their next attempt. If a call is
/// forgotten, its status says that it was delivered.
const MAX_ENTRIES: usize = 100_000;

/// How long a call is remembered after its next attempt was due: it is with another worker then, or
/// it waits there for a slot. Only a queue that is suspended for longer has calls that are still
/// here, and nothing is forgotten while no call fails.
const KEEP_OVERDUE: Duration = Duration::from_secs(600);

/// Number of remembered calls from which overdue ones are looked for.
const MANY_ENTRIES: usize = 1_000;

/// The statuses of a worker's calls. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct CallStatuses {
    worker: String,
    calls: Arc<Mutex<Calls>>,
}

/// The calls that are remembered.
#[derive(Debug)]
struct Calls {
    entries: HashMap<CallRef, StatusEntry>,
    /// Number of entries from which overdue ones are removed: twice those that were left last.
    many: usize,
    /// The delayed calls that this worker has handed back.
    scheduled: ScheduledCalls,
    /// The failed attempts of this worker.
    failed: FailedAttempts,
}

/// A wait for the next attempt of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    /// Time until the next attempt is due.
    pub(crate) time: Duration,
    /// Number of attempts that were made.
    pub(crate) made: u64,
    /// How much longer failures of the platform do not count as attempts, if this one did not
    /// count.
    pub(crate) not_counted_for: Option<Duration>,
}

/// A call that was handed back for its next attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WaitingCall {
    pub(crate) call: CallRef,
    /// Number of attempts that were made.
    pub(crate) made: u64,
    /// Time until the next attempt is due.
    pub(crate) due_in: Duration,
}

/// What is known about a call.
#[derive(Clone, Debug)]
struct StatusEntry {
    attempt: Attempt,
    /// Number of attempts that were made, while the call waits for the next one.
    made: u64,
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
        let scheduled = ScheduledCalls::default();
        let (entries, failed) = (HashMap::new(), FailedAttempts::default());
        let calls = Calls { entries, many: MANY_ENTRIES, scheduled, failed };
        Self { worker, calls: Arc::new(Mutex::new(calls)) }
    }

    /// Returns the name of this worker.
    pub(crate) fn worker(&self) -> &str {
        &self.worker
    }

    /// Returns the failed attempts of this worker.
    pub(crate) fn failed_attempts(&self) -> FailedAttempts {
        self.lock().failed.clone()
    }

    /// Returns the delayed calls that this worker has handed back.
    pub(crate) fn scheduled(&self) -> ScheduledCalls {
        self.lock().scheduled.clone()
    }

    /// Reports a call as running until the guard is dropped.
    pub(crate) fn track_running(&self, call: CallRef, attempt: Attempt) -> StatusGuard {
        let phase = Phase::Running { since: Timestamp::now() };
        self.lock().entries.insert(call.clone(), StatusEntry::new(attempt, phase));
        StatusGuard { statuses: self.clone(), call, attempt, is_waiting: false }
    }

    /// Answers requests about calls, for the worker's statistics and to record attempts, for as
    /// long as it is polled. `record_waiting` sends its answer later.
    pub(crate) async fn answer_requests(
        &self,
        client: &Client,
        queue: &QueueName,
        statistics: &WorkerStatistics,
        record_waiting: impl Fn(Subject),
    ) {
        let failed = self.failed_attempts();
        let answer = |request: &[u8], inbox: Option<&Subject>| {
            if request == stats::STATS_REQUEST.as_bytes() {
                statistics.encode()
            } else if request == RECORD_REQUEST.as_bytes() {
                inbox.cloned().into_iter().for_each(&record_waiting);
                None
            } else {
                failed.answer(request).or_else(|| self.answer(request))
            }
        };
        responder::answer(client, status_request_subject(queue), answer).await;
    }

    fn answer(&self, request: &[u8]) -> Option<Bytes> {
        let report = self.report(&CallRef::decode(request)?, Timestamp::now())?;
        serde_json::to_vec(&report).ok().map(Bytes::from)
    }

    fn report(&self, call: &CallRef, now: Timestamp) -> Option<WorkerReport> {
        let StatusEntry { attempt, phase, blocked, failure, not_counted_until, .. } =
            self.lock().entries.get(call)?.clone();
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
        let (phase, scheduled) = {
            let calls = self.lock();
            (calls.entries.get(call).map(|entry| entry.phase), calls.scheduled.clone())
        };
        if scheduled.contains(call.sequence, Instant::now()) {
            return true;
        }
        phase.is_some_and(|phase| {
            matches!(phase, Phase::Waiting { .. }) && is_current(phase, Timestamp::now())
        })
    }

    /// Returns the calls that this worker has handed back for their next attempt, also those of
    /// which the next attempt is due: they may wait for it still, or be with another worker.
    pub(crate) fn waiting(&self) -> Vec<WaitingCall> {
        let now = Timestamp::now();
        let calls = self.lock();
        let waiting = calls.entries.iter().filter_map(|(call, entry)| {
            let Phase::Waiting { next_attempt } = entry.phase else { return None };
            let due_in = Duration::try_from(next_attempt.duration_since(now)).unwrap_or_default();
            Some(WaitingCall { call: call.clone(), made: entry.made, due_in })
        });
        waiting.collect()
    }

    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Calls ===

impl Calls {
    /// Forgets calls that are overdue, if there are many.
    fn make_room(&mut self, now: Timestamp) {
        let count = self.entries.len();
        if count >= self.many {
            let keep = if count < MAX_ENTRIES { KEEP_OVERDUE } else { Duration::ZERO };
            let then = now.saturating_sub(keep).unwrap_or(Timestamp::MIN);
            self.entries.retain(|_, StatusEntry { phase, .. }| is_current(*phase, then));
            self.many = (self.entries.len() * 2).clamp(MANY_ENTRIES, MAX_ENTRIES);
        }
    }
}

// === impl StatusEntry ===

impl StatusEntry {
    fn new(attempt: Attempt, phase: Phase) -> Self {
        Self { attempt, made: 0, phase, blocked: None, failure: None, not_counted_until: None }
    }
}

// === impl StatusGuard ===

impl StatusGuard {
    /// Reports from now on that the end of the call can't be stored, for this reason. `None`: it
    /// can be stored again.
    fn set_blocked(&self, reason: Option<String>) {
        if let Some(entry) = self.statuses.lock().entries.get_mut(&self.call) {
            entry.blocked = reason;
        }
    }

    /// Reports from now on that the attempt has failed, and that the call waits for the next one.
    pub(crate) fn mark_waiting(mut self, wait: Wait, mut failure: AttemptFailure) {
        if let Some((end, _)) = failure.last_error.char_indices().nth(MAX_ERROR_CHARS) {
            failure.last_error.truncate(end);
        }
        let failure = Some(failure);
        let now = Timestamp::now();
        let after = |time: Duration| now.saturating_add(time).unwrap_or(Timestamp::MAX);
        let (next_attempt, made) = (after(wait.time), wait.made);
        let not_counted_until = wait.not_counted_for.map(after);
        let mut calls = self.statuses.lock();
        calls.make_room(now);
        if calls.entries.len() < MAX_ENTRIES {
            let entry = StatusEntry::new(self.attempt, Phase::Waiting { next_attempt });
            let entry = StatusEntry { made, failure, not_counted_until, ..entry };
            calls.entries.insert(self.call.clone(), entry);
            drop(calls);
            self.is_waiting = true;
        }
    }
}

impl Drop for StatusGuard {
    fn drop(&mut self) {
        if !self.is_waiting {
            self.statuses.lock().entries.remove(&self.call);
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
        let wait =
            |not_counted_for| Wait { time: Duration::from_secs(60), made: 2, not_counted_for };
        guard.mark_waiting(wait(None), failure.clone());
        let report = statuses.report(&call, now).unwrap();
        assert!(
            matches!(report.phase, Phase::Waiting { .. }) && report.not_counted_until.is_none()
        );
        let reported = report.failure.unwrap();
        assert_eq!((reported.last_status, reported.last_error), (503, "é".repeat(MAX_ERROR_CHARS)));
        assert_eq!(statuses.report(&call, now + Duration::from_secs(120)), None);

        let guard = statuses.track_running(call.clone(), Attempt { number: 2, max: 10 });
        guard.mark_waiting(wait(Some(Duration::from_secs(3600))), failure);
        let until = statuses.report(&call, now).unwrap().not_counted_until.unwrap();
        assert!(until >= now + Duration::from_secs(3600));

        let waiting = statuses.waiting();
        assert_eq!((waiting.len(), &waiting[0].call, waiting[0].made), (1, &call, 2));
        assert!(waiting[0].due_in > Duration::from_secs(50));

        drop(statuses.track_running(call.clone(), Attempt { number: 3, max: 10 }));
        assert_eq!(statuses.report(&call, now), None, "it has ended");
        assert_eq!(statuses.waiting(), []);
    }

    #[test]
    fn calls_that_are_long_overdue_are_forgotten() {
        let statuses = CallStatuses::new("w".to_owned());
        let fail = |sequence| {
            let call = CallRef { id: "id-1".parse().unwrap(), sequence };
            let guard = statuses.track_running(call, Attempt { number: 1, max: 10 });
            let failure = AttemptFailure { last_status: 500, last_error: String::new() };
            guard.mark_waiting(
                Wait { time: Duration::ZERO, made: 1, not_counted_for: None },
                failure,
            );
        };
        (0..MANY_ENTRIES as u64).for_each(fail);
        assert_eq!(statuses.waiting().len(), MANY_ENTRIES, "they are due now");
        assert_eq!(statuses.lock().many, 2 * MANY_ENTRIES);
        (0..2 * MANY_ENTRIES as u64).for_each(fail);
        let later = Timestamp::now() + KEEP_OVERDUE + Duration::from_secs(1);
        statuses.lock().many = MANY_ENTRIES;
        statuses.lock().make_room(later);
        assert_eq!((statuses.waiting().len(), statuses.lock().many), (0, MANY_ENTRIES));
    }
}
