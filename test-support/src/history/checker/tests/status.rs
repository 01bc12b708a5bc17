//! What the gateway reports of a call.

use super::*;

impl Seen {
    fn asked(self, asked: u64, answered: u64, reported: Reported) -> Self {
        let asked = Duration::from_millis(asked);
        self.at(answered, Step::StatusAnswered { asked, reported })
    }
}

const WRONG: &[Rule] = &[Rule::WrongStatus];

#[test]
fn a_call_is_not_queued_once_it_has_started() {
    accepted().asked(5, 6, Reported::Queued).run(1, 10, 20, 200).is_whole();
    // Asked before, answered after: it may have been.
    let between = accepted().at(10, Step::Started { run: 1 }).asked(5, 15, Reported::Queued);
    between.at(20, Step::Returned { run: 1, status: 200 }).is_whole();
    accepted()
        .run(1, 10, 20, 500)
        .asked(30, 31, Reported::Queued)
        .run(2, 40, 50, 200)
        .breaks(WRONG);
    let hit = accepted().run(1, 10, 20, 500).fault(25, Excuse::Forgets);
    hit.asked(30, 31, Reported::Queued).run(2, 40, 50, 200).is_whole();
    accepted().asked(5, 6, Reported::Waiting).run(1, 10, 20, 200).breaks(WRONG);
}

#[test]
fn a_call_that_waits_is_queued_again_when_the_consumers_are_replaced() {
    let replaced = || {
        let failed = accepted().run(1, 10, 20, 500);
        failed.fault(25, Excuse::BeginsRequeuing).fault(40, Excuse::Ends)
    };
    for asked in [26, 41] {
        replaced().asked(asked, asked + 1, Reported::Queued).run(2, 60, 70, 200).is_whole();
    }
    replaced()
        .run(2, 60, 70, 500)
        .asked(80, 81, Reported::Queued)
        .run(3, 90, 95, 200)
        .breaks(WRONG);
    let before = accepted().run(1, 10, 20, 500).asked(21, 22, Reported::Queued);
    let replaced_later = before.fault(25, Excuse::BeginsRequeuing).fault(40, Excuse::Ends);
    replaced_later.run(2, 60, 70, 200).breaks(WRONG);
    // It excuses nothing else.
    replaced().run(2, 60, 70, 200).run(3, 80, 90, 200).breaks(&[Rule::RanAgain]);
}

#[test]
fn a_call_that_has_ended_is_not_pending_two_leases_later() {
    let done = || with_callback().run(1, 10, 20, 200).at(30, callback(200));
    done().asked(100, 110, Reported::Running).is_whole();
    for pending in [Reported::Queued, Reported::Delivered, Reported::Running, Reported::Waiting] {
        done().asked(6100, 6110, pending).breaks(WRONG);
    }
    done().fault(31, Excuse::Once).asked(6100, 6110, Reported::Delivered).is_whole();
    let cancelled = accepted().at(100, Step::CancelSent).at(110, cancel_answered(202));
    cancelled.asked(6200, 6210, Reported::Delivered).breaks(WRONG);
}

#[test]
fn a_call_that_was_answered_202_is_known_until_it_starts() {
    accepted().asked(5, 6, Reported::Unknown).run(1, 100, 110, 200).breaks(WRONG);
    accepted().run(1, 10, 20, 200).asked(30, 31, Reported::Unknown).is_whole();
    let early = Seen::default().at(0, submitted(false)).asked(1, 3, Reported::Unknown);
    early.at(4, answered(202)).run(1, 100, 110, 200).is_whole();
    let cancelled = accepted().at(100, Step::CancelSent).at(110, cancel_answered(202));
    cancelled.asked(120, 130, Reported::Unknown).breaks(WRONG);
}

#[test]
fn a_reported_end_is_the_end_of_the_call() {
    let done = || with_callback().run(1, 10, 20, 200).at(30, callback(200));
    done().asked(40, 41, Reported::Done(200)).is_whole();
    done().asked(40, 41, Reported::Done(500)).breaks(WRONG);
    done().asked(40, 41, Reported::Dead).breaks(WRONG);
    done().asked(40, 41, Reported::Expired).breaks(WRONG);
    done().asked(40, 41, Reported::Other(409)).breaks(WRONG);
    done().asked(40, 41, Reported::Unavailable).is_whole();
    accepted().asked(5, 6, Reported::Done(200)).run(1, 10, 20, 200).breaks(WRONG);
    dead(accepted()).asked(50, 51, Reported::Dead).is_whole();
}

#[test]
fn a_call_is_cancelled_only_if_its_cancellation_was_not_refused() {
    let asked = |seen: Seen| seen.asked(200, 210, Reported::Cancelled);
    let cancelled =
        |seen: Seen, status| seen.at(100, Step::CancelSent).at(110, cancel_answered(status));
    asked(cancelled(accepted(), 202)).is_whole();
    asked(accepted().run(1, 10, 20, 200)).breaks(WRONG);
    asked(cancelled(accepted().run(1, 10, 20, 200), 409)).breaks(WRONG);
    // Its callback says that it is done.
    let done = with_callback().run(1, 10, 90, 200).at(95, callback(200));
    asked(cancelled(done, 503)).breaks(WRONG);
}

#[test]
fn status_may_be_that_of_another_call_with_the_id() {
    let submitted = Step::Submitted { callback: false, queue: 0, shares_id: true };
    let shared = Seen::default().at(0, submitted).at(1, answered(202)).run(1, 10, 20, 200);
    shared.asked(30, 31, Reported::Queued).is_whole();
}

#[test]
fn a_call_that_ran_again_may_be_done_with_its_last_status() {
    let again = || {
        let first = with_callback().run(1, 10, 20, 200).fault(21, Excuse::Once);
        first.at(30, callback(200)).run(2, 40, 50, 404)
    };
    again().asked(60, 61, Reported::Done(404)).is_whole();
    again().asked(60, 61, Reported::Done(500)).breaks(WRONG);
}
