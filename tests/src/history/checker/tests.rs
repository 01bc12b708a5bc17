//! Broken histories are found, each kind of them, and whole ones are not.

use super::*;

const CALL: CallNumber = 7;

fn rules() -> Rules {
    Rules {
        lease: Duration::from_secs(3),
        time_limit: Duration::from_secs(5),
        attempts: 3,
        retried: BTreeSet::from([500, 503]),
        slack: Duration::from_millis(100),
    }
}

/// A history of one call, with times in milliseconds.
#[derive(Default)]
struct Told(Vec<Event>);

impl Told {
    fn at(mut self, millis: u64, step: Step) -> Self {
        self.0.push(Event { at: Duration::from_millis(millis), what: What::Step(CALL, step) });
        self
    }

    fn fault(mut self, millis: u64, excuse: Excuse) -> Self {
        let what = What::Fault { name: "a fault".to_owned(), excuse };
        self.0.push(Event { at: Duration::from_millis(millis), what });
        self
    }

    fn run(self, run: u64, started: u64, ended: u64, status: u16) -> Self {
        self.at(started, Step::Started { run }).at(ended, Step::Returned { run, status })
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

fn answered(status: u16) -> Step {
    Step::Answered { status, retry_after: status != 202 }
}

fn told(status: u16) -> Step {
    Step::Told { status, taken: true }
}

/// A call that was answered 202.
fn accepted() -> Told {
    Told::default().at(0, Step::Submitted { callback: false }).at(1, answered(202))
}

/// A call that was answered 202 and whose caller wants to hear of its end.
fn with_callback() -> Told {
    Told::default().at(0, Step::Submitted { callback: true }).at(1, answered(202))
}

#[test]
fn a_call_that_ran_once_is_done() {
    let tally = accepted().run(1, 10, 20, 200).is_whole();
    assert_eq!(tally, Tally { accepted: 1, done: 1, ..Tally::default() });
    with_callback().run(1, 10, 20, 404).at(30, told(404)).is_whole();
}

#[test]
fn a_failed_run_is_followed_by_another_and_the_last_by_a_dead_letter() {
    let failing = || {
        let twice = accepted().run(1, 10, 20, 500).at(30, Step::Started { run: 2 });
        // The third is cut off at the time limit.
        let twice = twice.at(40, Step::Failed { run: 2 }).at(50, Step::Started { run: 3 });
        twice.at(5050, Step::BrokenOff { run: 3 })
    };
    let tally = failing().at(6000, Step::Buried).is_whole();
    assert_eq!(tally, Tally { accepted: 1, dead: 1, ..Tally::default() });
    failing().run(4, 6000, 6010, 500).at(7000, Step::Buried).breaks(&[Rule::RanTooOften]);
    accepted().run(1, 10, 20, 500).at(30, Step::Buried).breaks(&[Rule::DiedEarly]);
    // What nobody saw the end of, its worker had given up.
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
    let submitted = || Told::default().at(0, Step::Submitted { callback: true });
    submitted().at(1, answered(503)).is_whole();
    submitted().at(1, Step::Unanswered).is_whole();
    submitted().at(1, answered(429)).is_whole();
    // But if it was stored, it has one, which its caller hears.
    submitted().at(1, Step::Unanswered).run(1, 10, 20, 200).at(30, told(200)).is_whole();
    submitted().at(1, answered(503)).run(1, 10, 20, 200).breaks(&[Rule::NotTold]);
}

#[test]
fn what_is_left_at_the_last_look_is_unfinished() {
    accepted().at(900, Step::LeftQueued).breaks(&[Rule::Unfinished]);
    with_callback().run(1, 10, 20, 200).at(900, Step::LeftResult).breaks(&[Rule::Unfinished]);
}

#[test]
fn what_was_refused_must_not_run() {
    let refused = |status| Told::default().at(0, Step::Submitted { callback: false }).at(1, answered(status));
    for status in [400, 413, 429, 507] {
        refused(status).run(1, 10, 20, 200).breaks(&[Rule::RanThoughRefused]);
    }
    refused(503).run(1, 10, 20, 200).is_whole();
    refused(429).at(2, answered(202)).run(1, 10, 20, 200).is_whole();
}

#[test]
fn nothing_runs_twice_unless_a_worker_or_its_lease_died() {
    let again = |first: Told| first.run(2, 4000, 4010, 200);
    // After it was done, and while it still ran.
    again(accepted().run(1, 10, 20, 200)).breaks(&[Rule::RanAgain]);
    again(accepted().at(10, Step::Started { run: 1 })).breaks(&[Rule::RanAgain]);
    again(accepted().at(10, Step::Started { run: 1 }).at(20, Step::BrokenOff { run: 1 }))
        .breaks(&[Rule::RanAgain]);
    // A fault excuses it, within a lease before the first run too, and is counted.
    let tally = again(accepted().run(1, 10, 20, 200).fault(25, Excuse::Once)).is_whole();
    assert_eq!((tally.done, tally.rerun), (1, 1));
    again(accepted().fault(5, Excuse::Once).run(1, 10, 20, 200)).is_whole();
    // Not one that no worker dies of, one long ago, or one that came later.
    again(accepted().run(1, 10, 20, 200).fault(25, Excuse::None)).breaks(&[Rule::RanAgain]);
    again(Told::default().fault(0, Excuse::Once).at(3500, answered(202)).run(1, 3600, 3610, 200))
        .breaks(&[Rule::RanAgain]);
    let lasting = |begins, ends| {
        Told::default().fault(begins, Excuse::Begins).fault(ends, Excuse::Ends).at(9000, answered(202))
    };
    lasting(0, 7000).run(1, 9010, 9020, 200).run(2, 9500, 9510, 200).is_whole();
    lasting(0, 5000).run(1, 9010, 9020, 200).run(2, 9500, 9510, 200).breaks(&[Rule::RanAgain]);
    again(accepted().run(1, 10, 20, 200)).fault(4001, Excuse::Once).breaks(&[Rule::RanAgain]);
}

#[test]
fn nothing_starts_after_a_confirmed_cancellation() {
    let cancelled = || accepted().at(100, Step::CancelSent).at(110, Step::CancelAnswered { status: 202 });
    let tally = cancelled().is_whole();
    assert_eq!(tally, Tally { accepted: 1, cancelled: 1, ..Tally::default() });
    cancelled().run(1, 300, 310, 200).breaks(&[Rule::StartedAfterCancel]);
    cancelled().fault(120, Excuse::Once).run(1, 300, 310, 200).breaks(&[Rule::StartedAfterCancel]);
    // On its way to the function when the worker heard of it.
    cancelled().at(150, Step::Started { run: 1 }).at(160, Step::BrokenOff { run: 1 }).is_whole();
    accepted().at(100, Step::CancelSent).at(110, Step::CancelAnswered { status: 404 }).breaks(&[Rule::Lost]);
}

#[test]
fn a_cancellation_that_comes_too_late_changes_no_end() {
    let cancel = |told: Told| told.at(100, Step::CancelAnswered { status: 202 });
    assert_eq!(cancel(with_callback().run(1, 10, 90, 200)).at(110, told(200)).is_whole().done, 1);
    assert_eq!(cancel(with_callback().run(1, 10, 90, 200)).at(110, told(499)).is_whole().cancelled, 1);
    assert_eq!(cancel(accepted().run(1, 10, 90, 200)).is_whole().done, 1);
}

#[test]
fn a_call_has_one_end() {
    with_callback()
        .run(1, 10, 20, 200)
        .at(30, told(200))
        .at(40, Step::Told { status: 500, taken: false })
        .breaks(&[Rule::TwoEnds, Rule::ToldAgain]);
    let dead =
        |told: Told| told.run(1, 10, 11, 500).run(2, 20, 21, 500).run(3, 30, 31, 500).at(40, Step::Buried);
    dead(accepted()).at(50, Step::Buried).breaks(&[Rule::TwoEnds]);
    dead(with_callback().at(2, Step::CancelAnswered { status: 202 }))
        .at(60, told(499))
        .breaks(&[Rule::TwoEnds]);
    // Dead before it was cancelled.
    dead(with_callback()).at(50, Step::CancelAnswered { status: 202 }).at(60, told(500)).is_whole();
}

#[test]
fn the_caller_is_told_the_end_once() {
    let done = || with_callback().run(1, 10, 20, 200);
    done().breaks(&[Rule::NotTold]);
    done().at(30, Step::Told { status: 200, taken: false }).breaks(&[Rule::NotTold]);
    done().at(30, Step::Told { status: 200, taken: false }).at(40, told(200)).is_whole();
    done().at(30, Step::Told { status: 200, taken: false }).at(40, Step::ResultBuried).is_whole();
    done().at(30, told(200)).at(40, told(200)).breaks(&[Rule::ToldAgain]);
    assert_eq!(done().at(30, told(200)).fault(35, Excuse::Once).at(40, told(200)).is_whole().retold, 1);
    with_callback().at(10, Step::CancelAnswered { status: 202 }).breaks(&[Rule::NotTold]);
}

#[test]
fn the_client_is_not_kept_waiting_and_is_told_when_to_try_again() {
    Told::default().at(0, Step::Submitted { callback: false }).at(9000, Step::Hung).breaks(&[Rule::Hung]);
    let silent = Step::Answered { status: 503, retry_after: false };
    Told::default().at(0, Step::Submitted { callback: false }).at(1, silent).breaks(&[Rule::NoRetryAfter]);
}
