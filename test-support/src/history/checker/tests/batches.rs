//! Batches: their reports and callbacks.

use asyncqueue::batch::{BatchReport, Counts};

use super::*;
use crate::history::event::BatchStep;

const BATCH: u64 = 3;

/// Two calls.
const CALLS: [CallNumber; 2] = [CALL, CALL + 1];

fn report(states: [(&str, u16); 2]) -> BatchReport {
    let count = |state| states.iter().filter(|(of_call, _)| *of_call == state).count();
    let counts = Counts {
        pending: count("pending"),
        done: count("done"),
        failed: count("failed"),
        dead: count("dead"),
        cancelled: count("cancelled"),
        expired: count("expired"),
        unknown: count("unknown"),
    };
    let calls: Vec<_> = CALLS
        .iter()
        .zip(states)
        .map(|(call, (state, status))| {
            serde_json::json!({
                "callId": format!("client-{call}"),
                "function": "figlet.openfaas-fn",
                "state": state,
                "status": status,
            })
        })
        .collect();
    let report = serde_json::json!({
        "batchId": "batch-3",
        "queue": "jobs",
        "state": if counts.pending > 0 { "pending" } else { "ended" },
        "total": 2,
        "counts": counts,
        "submittedAt": "2026-11-29T10:11:12Z",
        "calls": calls,
    });
    serde_json::from_value(report).unwrap()
}

fn done() -> BatchReport {
    report([("done", 200), ("done", 200)])
}

impl Seen {
    fn batch(self, millis: u64, step: BatchStep) -> Self {
        self.saw(millis, What::Batch(BATCH, step))
    }

    fn called_back(self, millis: u64, report: BatchReport) -> Self {
        self.batch(millis, BatchStep::CallbackReceived { report, taken: true })
    }

    fn reported_last(self, millis: u64, report: BatchReport) -> Self {
        self.batch(millis, BatchStep::ReportedLast(Some(report)))
    }

    fn runs_of(self, call: CallNumber, started: u64, ended: u64) -> Self {
        let returned = Step::Returned { run: 1, status: 200 };
        self.of(call, started, Step::Started { run: 1 }).of(call, ended, returned)
    }
}

/// A batch that was answered 202, whose client wants a callback or not.
fn stored(callback: bool) -> Seen {
    let submitted_batch = BatchStep::Submitted { calls: CALLS.to_vec(), callback };
    let mut seen = Seen::default().batch(0, submitted_batch);
    for call in CALLS {
        seen = seen.of(call, 0, submitted(false)).of(call, 1, answered(202));
    }
    seen.batch(1, BatchStep::Answered(Some(202)))
}

/// A batch whose calls are done.
fn ran(callback: bool) -> Seen {
    stored(callback).runs_of(CALLS[0], 10, 20).runs_of(CALLS[1], 10, 30)
}

#[test]
fn a_batch_has_one_end_that_is_that_of_its_calls() {
    ran(false).reported_last(100, done()).is_whole();
    let early = ran(false).batch(5, BatchStep::Reported(report([("pending", 0); 2])));
    early.reported_last(100, done()).is_whole();
    for wrong in ["dead", "failed", "cancelled", "expired", "unknown"] {
        let wrong = report([("done", 200), (wrong, 500)]);
        ran(false).reported_last(100, wrong).breaks(&[Rule::BatchWrongEnd]);
    }
    let other_status = report([("done", 200), ("done", 201)]);
    ran(false).reported_last(100, other_status).breaks(&[Rule::BatchWrongEnd]);
    // It was reported before its last call had ended.
    let early = stored(false).runs_of(CALLS[0], 10, 20).batch(25, BatchStep::Reported(done()));
    let early = early.runs_of(CALLS[1], 26, 30).reported_last(100, done());
    early.breaks(&[Rule::BatchWrongEnd]);
}

#[test]
fn a_batch_that_was_accepted_has_an_end() {
    let pending = report([("done", 200), ("pending", 0)]);
    ran(false).reported_last(100, pending).breaks(&[Rule::BatchUnfinished]);
    ran(false).batch(100, BatchStep::ReportedLast(None)).breaks(&[Rule::BatchUnfinished]);
    let deleted = ran(false).fault(50, Excuse::Deletes);
    deleted.batch(100, BatchStep::ReportedLast(None)).is_whole();
    let dead = stored(false).runs_of(CALLS[0], 10, 20);
    let dead = dead.of(CALLS[1], 10, Step::Started { run: 1 });
    let dead =
        dead.of(CALLS[1], 11, Step::Returned { run: 1, status: 500 }).fault(12, Excuse::Once);
    let dead = dead.fault(13, Excuse::Once);
    let dead = dead.of(CALLS[1], 40, Step::DeadLetter { stored: Duration::from_millis(40) });
    dead.reported_last(100, report([("done", 200), ("dead", 500)])).is_whole();
}

#[test]
fn the_reports_of_the_end_of_a_batch_are_the_same() {
    let again = ran(true).called_back(40, done()).fault(41, Excuse::Once);
    let mut other = done();
    other.submitted_at += Duration::from_secs(1);
    again.reported_last(100, other).breaks(&[Rule::BatchTwoEnds]);
}

#[test]
fn the_counts_of_a_batch_are_those_of_its_calls() {
    let mut counted = done();
    counted.counts.done = 1;
    ran(false).reported_last(100, counted).breaks(&[Rule::BatchMiscounted]);
    let mut short = done();
    short.calls.as_mut().unwrap().pop();
    ran(false).reported_last(100, short).breaks(&[Rule::BatchMiscounted]);
    let mut open = done();
    open.state = "pending".to_owned();
    let open = ran(false).batch(90, BatchStep::Reported(open));
    open.reported_last(100, done()).breaks(&[Rule::BatchMiscounted]);
}

#[test]
fn a_batch_has_one_callback() {
    ran(true).called_back(40, done()).reported_last(100, done()).is_whole();
    ran(true).reported_last(100, done()).breaks(&[Rule::BatchCallbackMissing]);
    let refused = BatchStep::CallbackReceived { report: done(), taken: false };
    let refused = ran(true).batch(40, refused);
    refused.called_back(50, done()).reported_last(100, done()).is_whole();
    let twice = || ran(true).called_back(40, done()).called_back(50, done());
    twice().reported_last(100, done()).breaks(&[Rule::BatchCallbackRepeated]);
    let hit = ran(true).called_back(40, done()).fault(45, Excuse::Once).called_back(50, done());
    hit.reported_last(100, done()).is_whole();
}

#[test]
fn a_cancelled_batch_ends_as_its_cancellation_was_answered() {
    let cancelled = |status, counts| {
        let stored = stored(true).runs_of(CALLS[0], 10, 20);
        let sent = stored.of(CALLS[0], 30, Step::CancelSent).of(CALLS[1], 30, Step::CancelSent);
        sent.batch(40, BatchStep::CancelAnswered { status, counts })
    };
    let rest = || report([("done", 200), ("cancelled", 0)]);
    let ended = |seen: Seen| seen.called_back(50, rest()).reported_last(100, rest());
    ended(cancelled(202, Some((1, 1)))).is_whole();
    for wrong in [(2, 0), (0, 2), (1, 0)] {
        ended(cancelled(202, Some(wrong))).breaks(&[Rule::BatchMiscounted]);
    }
    ended(cancelled(404, None)).breaks(&[Rule::WrongStatus]);
    cancelled(202, Some((1, 1))).reported_last(100, rest()).breaks(&[Rule::BatchCallbackMissing]);
    let twice = cancelled(202, Some((1, 1))).called_back(50, rest()).called_back(60, rest());
    twice.reported_last(100, rest()).breaks(&[Rule::BatchCallbackRepeated]);
}

#[test]
fn nothing_of_a_cancelled_batch_starts() {
    let started = |status, at| {
        let stored = stored(false).runs_of(CALLS[0], 10, 20).of(CALLS[1], 30, Step::CancelSent);
        let answer = BatchStep::CancelAnswered { status, counts: None };
        stored.batch(40, answer).of(CALLS[1], at, Step::Started { run: 1 })
    };
    let rest = || report([("done", 200), ("cancelled", 0)]);
    for status in [202, 409] {
        started(status, 60).reported_last(100, rest()).is_whole();
        started(status, 99).reported_last(100, rest()).breaks(&[Rule::StartedAfterCancel]);
    }
    started(503, 99).reported_last(100, rest()).is_whole();
    // What had ended may run again for a fault.
    let again = started(202, 60).fault(70, Excuse::Once);
    again.of(CALLS[0], 99, Step::Started { run: 2 }).reported_last(100, rest()).is_whole();
}
