//! Batches: each has one end, which agrees with the ends of its calls, and one callback.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use asyncqueue::batch::{BatchReport, Counts};

use super::{Broken, Rule, call::Call};
use crate::history::{
    call_ids::number_of,
    event::{BatchNumber, BatchStep, CallNumber, Event, Reported, What},
};

type Calls<'a> = BTreeMap<CallNumber, Call<'a>>;

/// The answer to a request to cancel a batch: when, the status, and the counts of a 202: how many
/// calls were cancelled, and how many had ended.
type CancelAnswer = (Duration, u16, Option<(u64, u64)>);

/// What was seen of one batch.
#[derive(Default)]
struct Batch<'a> {
    calls: Vec<CallNumber>,
    wants_callback: bool,
    is_accepted: bool,
    /// The reports that clients and receivers got.
    reports: Vec<(Duration, &'a BatchReport)>,
    /// The answers to requests to cancel it.
    cancellations: Vec<CancelAnswer>,
    /// When callbacks were received, and whether each of them was taken.
    callbacks: Vec<(Duration, bool)>,
    /// Whether a client asked for the report after all calls had left their queues.
    is_asked: bool,
}

/// Checks the batches of a history. A rule that a batch breaks is one of its first call, or of the
/// call that a report is wrong about.
pub(super) fn check(history: &[Event], calls: &Calls<'_>) -> Vec<Broken> {
    let mut batches: BTreeMap<BatchNumber, Batch<'_>> = BTreeMap::new();
    for event in history {
        if let What::Batch(number, step) = &event.what {
            batches.entry(*number).or_default().add(event.at, step);
        }
    }
    batches.values().flat_map(|batch| batch.check(calls)).collect()
}

impl<'a> Batch<'a> {
    fn add(&mut self, at: Duration, step: &'a BatchStep) {
        match step {
            BatchStep::Submitted { calls, callback } => {
                self.calls.clone_from(calls);
                self.wants_callback = *callback;
            }
            BatchStep::Answered(status) => self.is_accepted |= *status == Some(202),
            BatchStep::CancelAnswered { status, counts } => {
                self.cancellations.push((at, *status, *counts));
            }
            BatchStep::Reported(report) => self.reports.push((at, report)),
            BatchStep::ReportedLast(report) => {
                self.is_asked = true;
                self.reports.extend(report.iter().map(|report| (at, report)));
            }
            BatchStep::CallbackReceived { report, taken } => {
                self.reports.push((at, report));
                self.callbacks.push((at, *taken));
            }
        }
    }

    fn check(&self, calls: &Calls<'_>) -> Vec<Broken> {
        let Some(first) = self.calls.first() else { return Vec::new() };
        let mut broken = BTreeSet::new();
        let ends: Vec<_> = self.reports.iter().filter(|(_, report)| is_ended(report)).collect();
        if ends.windows(2).any(|pair| pair[0].1 != pair[1].1) {
            broken.insert(Rule::BatchTwoEnds);
        }
        if self.reports.iter().any(|(_, report)| !self.adds_up(report)) {
            broken.insert(Rule::BatchMiscounted);
        }
        let was_deleted = calls.get(first).is_some_and(Call::was_deleted);
        if self.is_accepted && self.is_asked && ends.is_empty() && !was_deleted {
            broken.insert(Rule::BatchUnfinished);
        }
        self.check_callbacks(calls.get(first), &mut broken);
        if !was_deleted {
            self.check_cancellations(ends.first().map(|(_, report)| *report), &mut broken);
        }
        let mut broken: Vec<_> =
            broken.into_iter().map(|rule| Broken { call: *first, rule }).collect();
        let wrong: BTreeSet<_> =
            self.reports.iter().flat_map(|(at, report)| wrong_calls(*at, report, calls)).collect();
        broken.extend(wrong.into_iter().map(|call| Broken { call, rule: Rule::BatchWrongEnd }));
        let started = self.started_after_cancel(calls);
        broken.extend(started.map(|call| Broken { call, rule: Rule::StartedAfterCancel }));
        broken
    }

    /// Whether a report is of the calls of this batch, and its counts are those of their states.
    fn adds_up(&self, report: &BatchReport) -> bool {
        let Some(calls) = &report.calls else { return false };
        let numbers: Vec<_> = calls.iter().map(|call| number_of(&call.call.call_id)).collect();
        let count = |state: &str| calls.iter().filter(|call| call.state == state).count();
        let counts = Counts {
            pending: count("pending"),
            done: count("done"),
            failed: count("failed"),
            dead: count("dead"),
            cancelled: count("cancelled"),
            expired: count("expired"),
            unknown: count("unknown"),
        };
        report.counts == counts
            && report.total == calls.len()
            && numbers.iter().flatten().eq(&self.calls)
            && is_ended(report) == (counts.pending == 0)
    }

    /// The answers to cancellations: the batch is known, and what they count is what its end says.
    fn check_cancellations(&self, end: Option<&BatchReport>, broken: &mut BTreeSet<Rule>) {
        for (_, status, counts) in &self.cancellations {
            if *status == 404 {
                broken.insert(Rule::WrongStatus);
            }
            let Some((cancelled, ended)) = counts else { continue };
            let is_of_all = usize::try_from(cancelled + ended) == Ok(self.calls.len());
            let is_of_end =
                end.is_none_or(|end| usize::try_from(*cancelled) == Ok(end.counts.cancelled));
            if !is_of_all || !is_of_end {
                broken.insert(Rule::BatchMiscounted);
            }
        }
    }

    /// The calls that started after the answer that each had ended or was cancelled, and that had
    /// not ended before.
    fn started_after_cancel(&self, calls: &Calls<'_>) -> impl Iterator<Item = CallNumber> {
        let mut answers = self.cancellations.iter().filter(|(_, status, _)| *status != 503);
        let answered =
            answers.find_map(|(at, status, _)| matches!(status, 202 | 409).then_some(*at));
        let started = self.calls.iter().filter(move |number| {
            let call = answered.zip(calls.get(number));
            call.is_some_and(|(at, call)| call.has_begun_after(at))
        });
        started.copied()
    }

    fn check_callbacks(&self, first: Option<&Call<'_>>, broken: &mut BTreeSet<Rule>) {
        let Some(first) = first else { return };
        let repeats: Vec<_> = self
            .callbacks
            .windows(2)
            .filter(|pair| pair[0].1)
            .map(|pair| (pair[0].0.saturating_sub(first.rules.lease), pair[1].0))
            .collect();
        if first.faults.unexcused(repeats) > 0 {
            broken.insert(Rule::BatchCallbackRepeated);
        }
        let is_taken = self.callbacks.iter().any(|(_, taken)| *taken);
        if self.wants_callback
            && self.is_accepted
            && self.is_asked
            && !is_taken
            && !first.was_deleted()
        {
            broken.insert(Rule::BatchCallbackMissing);
        }
    }
}

fn is_ended(report: &BatchReport) -> bool {
    report.state == "ended"
}

/// The calls of which a report says what can't be.
fn wrong_calls(at: Duration, report: &BatchReport, calls: &Calls<'_>) -> Vec<CallNumber> {
    let calls_of_report = report.calls.iter().flatten();
    let wrong = calls_of_report.filter_map(|reported| {
        let number = number_of(&reported.call.call_id)?;
        let call = calls.get(&number)?;
        let status = reported.status.unwrap_or_default();
        let is_right = match reported.state.as_str() {
            "pending" => true,
            "done" => call.has_succeeded_before(at, status),
            "dead" => call.can_be(Reported::Dead, at, at),
            "cancelled" => call.can_be(Reported::Cancelled, at, at) || call.was_deleted(),
            "expired" => call.can_be(Reported::Expired, at, at),
            _ => call.was_deleted(),
        };
        (!is_right).then_some(number)
    });
    wrong.collect()
}
