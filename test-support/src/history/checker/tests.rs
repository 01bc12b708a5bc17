//! Broken histories are found, each kind of them, and whole ones are not.

use super::*;
use crate::history::event::{Excuse, QueueNumber, Reported};

const CALL: CallNumber = 7;

fn rules() -> Rules {
    Rules {
        lease: Duration::from_secs(3),
        time_limit: Duration::from_secs(5),
        attempts: 3,
        retried: BTreeSet::from([500, 503]),
        slack: Duration::from_millis(100),
        skew: Duration::from_millis(50),
        max_age: None,
        starts_within: None,
    }
}

/// A history of one call, with times in milliseconds.
#[derive(Default)]
struct Seen(Vec<Event>);

impl Seen {
    fn at(self, millis: u64, step: Step) -> Self {
        self.of(CALL, millis, step)
    }

    fn of(self, call: CallNumber, millis: u64, step: Step) -> Self {
        self.saw(millis, What::Step(call, step))
    }

    fn saw(mut self, millis: u64, what: What) -> Self {
        self.0.push(Event { at: Duration::from_millis(millis), what });
        self
    }

    fn fault(self, millis: u64, excuse: Excuse) -> Self {
        self.fault_of(None, millis, excuse)
    }

    fn fault_of(mut self, queue: Option<QueueNumber>, millis: u64, excuse: Excuse) -> Self {
        let what = What::Fault { name: "a fault".to_owned(), excuse, queue };
        self.0.push(Event { at: Duration::from_millis(millis), what });
        self
    }

    fn run(self, run: u64, started: u64, ended: u64, status: u16) -> Self {
        self.at(started, Step::Started { run }).at(ended, Step::Returned { run, status })
    }

    fn dead(self, millis: u64) -> Self {
        self.at(millis, Step::DeadLetter { stored: Duration::from_millis(millis) })
    }

    fn report(&self) -> Report {
        check(&self.0, &rules())
    }

    #[track_caller]
    fn is_whole(&self) -> Tally {
        let report = self.report();
        assert_eq!(report.broken, [], "{:?}", self.0);
        report.tally
    }

    #[track_caller]
    fn breaks(&self, expected: &[Rule]) {
        let rules: Vec<Rule> = self.report().broken.into_iter().map(|broken| broken.rule).collect();
        assert_eq!(rules, expected, "{:?}", self.0);
    }
}

fn submitted(callback: bool) -> Step {
    Step::Submitted { callback, queue: 0, shares_id: false }
}

fn cancel_answered(status: u16) -> Step {
    Step::CancelAnswered { status, retry_after: status == 503 }
}

fn answered(status: u16) -> Step {
    Step::Answered { status, retry_after: status != 202 }
}

fn callback(status: u16) -> Step {
    Step::CallbackReceived { status, taken: true }
}

/// A call that was answered 202.
fn accepted() -> Seen {
    Seen::default().at(0, submitted(false)).at(1, answered(202))
}

/// A call that was answered 202 and whose client wants a callback.
fn with_callback() -> Seen {
    Seen::default().at(0, submitted(true)).at(1, answered(202))
}

/// A call all of whose attempts have failed.
fn dead(accepted: Seen) -> Seen {
    let failed = accepted.run(1, 10, 11, 500).run(2, 20, 21, 500).run(3, 30, 31, 500);
    failed.dead(40)
}

#[test]
fn a_call_that_ran_once_is_done() {
    let tally = accepted().run(1, 10, 20, 200).is_whole();
    assert_eq!(tally, Tally { accepted: 1, done: 1, ..Tally::default() });
    with_callback().run(1, 10, 20, 404).at(30, callback(404)).is_whole();
}

#[test]
fn a_request_that_is_sent_once_more_is_no_attempt() {
    let fails =
        |seen: Seen, run, at| seen.at(at, Step::Started { run }).at(at + 5, Step::Failed { run });
    // Each attempt but the last is sent twice.
    let five = [(1, 10), (2, 20), (3, 300), (4, 310), (5, 600)];
    let five = five.into_iter().fold(accepted(), |seen, (run, at)| fails(seen, run, at));
    five.dead(610).is_whole();
    // Not three times.
    let more = [(1, 10), (2, 20), (3, 30), (4, 300), (5, 600)];
    let more = more.into_iter().fold(accepted(), |seen, (run, at)| fails(seen, run, at));
    more.dead(610).breaks(&[Rule::RanTooOften]);
}

#[test]
fn a_failed_run_is_followed_by_another_or_by_a_dead_letter() {
    let failing = || {
        let twice = accepted().run(1, 10, 20, 500).at(30, Step::Started { run: 2 });
        // The third is cut off at the time limit.
        let twice = twice.at(40, Step::Failed { run: 2 }).at(150, Step::Started { run: 3 });
        twice.at(5150, Step::BrokenOff { run: 3 })
    };
    let tally = failing().dead(6000).is_whole();
    assert_eq!(tally, Tally { accepted: 1, dead: 1, ..Tally::default() });
    failing().run(4, 6000, 6010, 500).dead(7000).breaks(&[Rule::RanTooOften]);
    accepted().run(1, 10, 20, 500).dead(30).breaks(&[Rule::DiedEarly]);
    // A call without an observed end was given up by its worker.
    accepted().at(10, Step::Started { run: 1 }).run(2, 5010, 5020, 200).is_whole();
}

#[test]
fn a_call_without_an_end_is_lost() {
    accepted().breaks(&[Rule::Lost]);
    accepted().run(1, 10, 20, 500).breaks(&[Rule::Lost]);
    accepted().at(10, Step::Started { run: 1 }).fault(15, Excuse::Once).breaks(&[Rule::Lost]);
    assert_eq!(accepted().report().tally.lost, 1);
}

#[test]
fn a_call_that_was_not_taken_need_not_have_an_end() {
    let submitted = || Seen::default().at(0, submitted(true));
    submitted().at(1, answered(503)).is_whole();
    submitted().at(1, Step::Unanswered).is_whole();
    submitted().at(1, answered(429)).is_whole();
    // But if it was stored, it has one, and a callback.
    submitted().at(1, Step::Unanswered).run(1, 10, 20, 200).at(30, callback(200)).is_whole();
    submitted().at(1, answered(503)).run(1, 10, 20, 200).breaks(&[Rule::CallbackMissing]);
}

#[test]
fn call_lost_by_a_server_without_disk_is_not_unfinished() {
    let left = |seen: Seen| seen.at(900, Step::LeftQueued);
    let full = |seen: Seen| {
        seen.fault(15, Excuse::BeginsUnwritten).run(1, 10, 20, 200).fault(30, Excuse::Ends)
    };
    left(full(accepted())).is_whole();
    left(accepted().fault(15, Excuse::Begins).run(1, 10, 20, 200)).breaks(&[Rule::Unfinished]);
    left(accepted().run(1, 10, 20, 200).fault(25, Excuse::BeginsUnwritten))
        .breaks(&[Rule::Unfinished]);
    left(full(accepted()).at(900, Step::LeftResult)).breaks(&[Rule::Unfinished]);
}

#[test]
fn call_left_at_the_last_check_is_unfinished() {
    accepted().at(900, Step::LeftQueued).breaks(&[Rule::Unfinished]);
    with_callback().run(1, 10, 20, 200).at(900, Step::LeftResult).breaks(&[Rule::Unfinished]);
}

#[test]
fn refused_call_must_not_run() {
    let refused = |status| Seen::default().at(0, submitted(false)).at(1, answered(status));
    for status in [400, 413, 429, 507] {
        refused(status).run(1, 10, 20, 200).breaks(&[Rule::RanThoughRefused]);
    }
    refused(503).run(1, 10, 20, 200).is_whole();
    refused(429).at(2, answered(202)).run(1, 10, 20, 200).is_whole();
}

#[test]
fn a_call_has_one_end() {
    with_callback()
        .run(1, 10, 20, 200)
        .at(30, callback(200))
        .at(40, Step::CallbackReceived { status: 500, taken: false })
        .breaks(&[Rule::TwoEnds, Rule::CallbackRepeated]);
    dead(accepted()).dead(50).breaks(&[Rule::TwoEnds]);
    // Its result says that it is dead, or that it is done.
    dead(with_callback()).at(60, callback(500)).is_whole();
    dead(with_callback()).at(60, callback(200)).breaks(&[Rule::TwoEnds]);
}

#[test]
fn a_call_has_one_callback() {
    let done = || with_callback().run(1, 10, 20, 200);
    done().breaks(&[Rule::CallbackMissing]);
    done()
        .at(30, Step::CallbackReceived { status: 200, taken: false })
        .breaks(&[Rule::CallbackMissing]);
    done()
        .at(30, Step::CallbackReceived { status: 200, taken: false })
        .at(40, callback(200))
        .is_whole();
    done()
        .at(30, Step::CallbackReceived { status: 200, taken: false })
        .at(40, Step::ResultDeadLetter)
        .is_whole();
    done().at(30, callback(200)).at(40, callback(200)).breaks(&[Rule::CallbackRepeated]);
    assert_eq!(
        done()
            .at(30, callback(200))
            .fault(35, Excuse::Once)
            .at(40, callback(200))
            .is_whole()
            .repeated,
        1
    );
    let cancelled = with_callback().at(9, Step::CancelSent).at(10, cancel_answered(202));
    cancelled.breaks(&[Rule::CallbackMissing]);
}

#[test]
fn a_client_gets_its_answer_in_time_and_when_to_try_again() {
    Seen::default().at(0, submitted(false)).at(9000, Step::Hung).breaks(&[Rule::Hung]);
    let silent = Step::Answered { status: 503, retry_after: false };
    Seen::default().at(0, submitted(false)).at(1, silent).breaks(&[Rule::NoRetryAfter]);
    let silent = Step::CancelAnswered { status: 503, retry_after: false };
    let repeated = accepted().at(10, Step::CancelSent).at(2010, silent).at(2200, Step::CancelSent);
    repeated.at(2210, cancel_answered(202)).breaks(&[Rule::NoRetryAfter]);
}

#[test]
fn a_submission_is_not_refused_for_its_id() {
    let refused = Seen::default().at(0, submitted(false)).at(1, answered(409));
    refused.breaks(&[Rule::IdRefused]);
}

#[test]
fn a_call_starts_in_time_where_that_is_a_rule() {
    let rules = Rules { starts_within: Some(Duration::from_secs(10)), ..rules() };
    let broken = |seen: Seen| check(&seen.0, &rules).broken.len();
    assert_eq!(broken(accepted().run(1, 9_000, 9_010, 200)), 0);
    assert_eq!(broken(accepted().run(1, 11_000, 11_010, 200)), 1);
    assert_eq!(broken(accepted().at(5, Step::CancelSent).at(6, cancel_answered(202))), 0);
}

#[test]
fn a_call_that_is_too_old_expires_and_does_not_start_any_more() {
    let rules = Rules { max_age: Some(Duration::from_secs(10)), ..rules() };
    let report = |seen: Seen| check(&seen.0, &rules);
    let rule = |seen: Seen| report(seen).broken.first().map(|broken| broken.rule);
    let expired = report(with_callback().at(10_100, callback(504)));
    assert_eq!((expired.tally.expired, expired.broken), (1, vec![]));
    assert_eq!(rule(with_callback().at(5_000, callback(504))), Some(Rule::ExpiredEarly));
    let started = with_callback().at(10_100, callback(504)).run(1, 11_000, 11_010, 200);
    assert_eq!(rule(started), Some(Rule::StartedAfterExpiry));
    // Without a callback, the gateway says so. Without either, it is lost.
    let asked =
        Step::StatusAnswered { asked: Duration::from_secs(11), reported: Reported::Expired };
    assert_eq!(report(accepted().at(11_010, asked)).tally.expired, 1);
    assert_eq!(rule(accepted()), Some(Rule::Lost));
    // Where calls don't expire, this is no end.
    with_callback().at(10_100, callback(504)).breaks(&[Rule::Lost]);
}

mod batches;
mod cancellations;
mod repeats;
mod results;
mod status;

#[test]
fn no_more_invocations_are_open_than_the_total() {
    let total = |total| What::Concurrency { queue: 0, total: Some(total) };
    // Two calls, the second of which starts at this time.
    let both = |seen: Seen, starts| {
        let seen = seen.at(0, submitted(false)).of(CALL + 1, 0, submitted(false));
        let seen = seen.at(10, answered(202)).of(CALL + 1, 10, answered(202));
        let (started, returned) =
            (Step::Started { run: 1 }, Step::Returned { run: 1, status: 200 });
        let seen = seen.at(100, started).of(CALL + 1, starts, started);
        let seen = seen.at(1000, returned).of(CALL + 1, 2000, returned);
        Seen(in_order(seen.0))
    };
    both(Seen::default(), 500).is_whole();
    both(Seen::default().saw(0, total(2)), 500).is_whole();
    both(Seen::default().saw(0, total(1)), 500).breaks(&[Rule::TooManyOpen]);
    // Its end may be seen a bit later than the start that follows from it.
    both(Seen::default().saw(0, total(1)), 980).is_whole();
    both(Seen::default().saw(0, total(1)), 1500).is_whole();
    // What is open when the total is lowered may stay so.
    both(Seen::default().saw(0, total(2)).saw(600, total(1)), 500).is_whole();
    both(Seen::default().saw(0, total(2)).saw(400, total(1)), 500).breaks(&[Rule::TooManyOpen]);
    // Another queue has another total.
    let of_other = What::Concurrency { queue: 1, total: Some(1) };
    both(Seen::default().saw(0, of_other), 500).is_whole();
}

fn in_order(mut events: Vec<Event>) -> Vec<Event> {
    events.sort_by_key(|event| event.at);
    events
}
