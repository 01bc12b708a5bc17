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

use crate::{function::request::Attempt, questions, stats::Statistics};

/// Maximum number of calls that are remembered as waiting for their next attempt. If a call is
/// forgotten, its status says that it was delivered.
const REMEMBERED: usize = 100_000;

/// Maximum length of the remembered cause of a failed attempt, in characters.
const MAX_ERROR: usize = 200;

/// The reports of a worker. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Reports {
    worker: String,
    calls: Arc<Mutex<HashMap<CallRef, Known>>>,
}

/// What is known about a call.
#[derive(Clone, Debug)]
struct Known {
    attempt: Attempt,
    phase: Phase,
    blocked: Option<String>,
    failure: Option<AttemptFailure>,
    not_counted_until: Option<Timestamp>,
}

/// A call that is reported as running, until this is dropped.
#[derive(Debug)]
pub(crate) struct Reported {
    reports: Reports,
    call: CallRef,
    attempt: Attempt,
    waits: bool,
}

// === impl Reports ===

impl Reports {
    pub(crate) fn new(worker: String) -> Self {
        Self { worker, calls: Arc::default() }
    }

    /// Returns the name of this worker.
    pub(crate) fn worker(&self) -> &str {
        &self.worker
    }

    /// Reports a call as running until the guard is dropped.
    pub(crate) fn running(&self, call: CallRef, attempt: Attempt) -> Reported {
        let phase = Phase::Running { since: Timestamp::now() };
        self.lock().insert(call.clone(), Known::new(attempt, phase));
        Reported { reports: self.clone(), call, attempt, waits: false }
    }

    /// Answers requests about calls and for the worker's statistics, for as long as it is polled.
    pub(crate) async fn follow(&self, client: &Client, queue: &QueueName, statistics: &Statistics) {
        let answer = |question: &[u8], _inbox: Option<&_>| {
            if question == stats::STATS_REQUEST.as_bytes() {
                statistics.encode()
            } else {
                self.answer(question)
            }
        };
        questions::answer(client, status_request_subject(queue), answer).await;
    }

    fn answer(&self, question: &[u8]) -> Option<Bytes> {
        let report = self.report(&CallRef::decode(question)?, Timestamp::now())?;
        serde_json::to_vec(&report).ok().map(Bytes::from)
    }

    fn report(&self, call: &CallRef, now: Timestamp) -> Option<WorkerReport> {
        let Known { attempt, phase, blocked, failure, not_counted_until } =
            self.lock().get(call)?.clone();
        if !is_so(phase, now) {
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
        let phase = self.lock().get(call).map(|known| known.phase);
        phase.is_some_and(|phase| {
            matches!(phase, Phase::Waiting { .. }) && is_so(phase, Timestamp::now())
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CallRef, Known>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Known ===

impl Known {
    fn new(attempt: Attempt, phase: Phase) -> Self {
        Self { attempt, phase, blocked: None, failure: None, not_counted_until: None }
    }
}

// === impl Reported ===

impl Reported {
    /// Reports from now on that the end of the call can't be stored, for this reason. `None`: it
    /// can be stored again.
    pub(crate) fn set_blocked(&self, why: Option<String>) {
        if let Some(known) = self.reports.lock().get_mut(&self.call) {
            known.blocked = why;
        }
    }

    /// Reports from now on that the attempt has failed, and that the next one is due after this
    /// time. `not_counted_for`: how much longer failures of the platform are no attempts, if this
    /// one was not.
    pub(crate) fn waits(
        mut self,
        wait: Duration,
        mut failure: AttemptFailure,
        not_counted_for: Option<Duration>,
    ) {
        if let Some((end, _)) = failure.last_error.char_indices().nth(MAX_ERROR) {
            failure.last_error.truncate(end);
        }
        let failure = Some(failure);
        let now = Timestamp::now();
        let after = |time: Duration| now.saturating_add(time).unwrap_or(Timestamp::MAX);
        let (next_attempt, not_counted_until) = (after(wait), not_counted_for.map(after));
        let mut calls = self.reports.lock();
        if calls.len() >= REMEMBERED {
            calls.retain(|_, Known { phase, .. }| {
                matches!(phase, Phase::Running { .. }) || is_so(*phase, now)
            });
        }
        if calls.len() < REMEMBERED {
            let (attempt, phase) = (self.attempt, Phase::Waiting { next_attempt });
            calls.insert(
                self.call.clone(),
                Known { failure, not_counted_until, ..Known::new(attempt, phase) },
            );
            drop(calls);
            self.waits = true;
        }
    }
}

impl Drop for Reported {
    fn drop(&mut self) {
        if !self.waits {
            self.reports.lock().remove(&self.call);
        }
    }
}

/// Returns whether a remembered phase still holds. A call whose next attempt was due is with the
/// worker that has it now.
fn is_so(phase: Phase, now: Timestamp) -> bool {
    match phase {
        Phase::Running { .. } => true,
        Phase::Waiting { next_attempt } => now < next_attempt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_reported_while_it_runs_and_until_its_next_attempt_is_due() {
        let reports = Reports::new("w".to_owned());
        let call = CallRef { id: "id-1".parse().unwrap(), sequence: 7 };
        let now = Timestamp::now();
        assert_eq!(reports.report(&call, now), None);
        let reported = reports.running(call.clone(), Attempt { number: 2, max: 10 });
        let report = reports.report(&call, now).unwrap();
        assert_eq!((report.worker.as_str(), report.attempt, report.max_attempts), ("w", 2, 10));
        assert!(matches!(report.phase, Phase::Running { .. }));

        let failure = AttemptFailure { last_status: 503, last_error: "é".repeat(900) };
        reported.waits(Duration::from_secs(60), failure.clone(), None);
        let report = reports.report(&call, now).unwrap();
        assert!(
            matches!(report.phase, Phase::Waiting { .. }) && report.not_counted_until.is_none()
        );
        let said = report.failure.unwrap();
        assert_eq!((said.last_status, said.last_error), (503, "é".repeat(MAX_ERROR)));
        assert_eq!(reports.report(&call, now + Duration::from_secs(120)), None);

        let reported = reports.running(call.clone(), Attempt { number: 2, max: 10 });
        reported.waits(Duration::from_secs(60), failure, Some(Duration::from_secs(3600)));
        let until = reports.report(&call, now).unwrap().not_counted_until.unwrap();
        assert!(until >= now + Duration::from_secs(3600));

        drop(reports.running(call.clone(), Attempt { number: 3, max: 10 }));
        assert_eq!(reports.report(&call, now), None, "it has ended");
    }
}
