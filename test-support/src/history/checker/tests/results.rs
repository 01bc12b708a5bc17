//! Results that clients read and wait for.

use asyncqueue::EndState;

use super::*;
use crate::history::event::{ResultRead, SeenBody, SeenResult};

fn seen(end: EndState, status: u16, body: SeenBody) -> SeenResult {
    SeenResult { end, status, body }
}

fn done(run: u64) -> SeenResult {
    seen(EndState::Done, 200, SeenBody::OfRun(run))
}

/// A call whose result is kept.
fn kept() -> Seen {
    accepted().at(2, Step::ResultWanted)
}

impl Seen {
    fn read(self, millis: u64, read: ResultRead) -> Self {
        let asked = Duration::from_millis(millis);
        self.at(millis, Step::ResultRead { asked, read, is_last: false })
    }

    fn read_last(self, millis: u64, read: ResultRead) -> Self {
        let asked = Duration::from_millis(millis);
        self.at(millis, Step::ResultRead { asked, read, is_last: true })
    }

    fn got(self, millis: u64, result: SeenResult) -> Self {
        self.read_last(millis, ResultRead::Kept(result))
    }

    fn waited(self, millis: u64, result: Option<SeenResult>) -> Self {
        self.at(millis, Step::WaitAnswered { asked: Duration::from_millis(1), result })
    }

    fn cancelled(self, sent: u64, answered: u64) -> Self {
        self.at(sent, Step::CancelSent).at(answered, cancel_answered(202))
    }
}

#[test]
fn a_result_is_what_the_run_that_ended_the_call_answered() {
    let failed_once = || kept().run(1, 10, 20, 500).run(2, 30, 40, 200);
    failed_once().got(100, done(2)).is_whole();
    failed_once().waited(50, Some(done(2))).got(100, done(2)).is_whole();
    for wrong in [
        done(1),
        done(3),
        seen(EndState::Done, 500, SeenBody::OfRun(1)),
        seen(EndState::Done, 201, SeenBody::OfRun(2)),
        seen(EndState::Done, 200, SeenBody::Empty),
        seen(EndState::Done, 200, SeenBody::Foreign),
        seen(EndState::Dead, 500, SeenBody::OfRun(1)),
        seen(EndState::Cancelled, 499, SeenBody::Empty),
        seen(EndState::Expired, 504, SeenBody::Empty),
    ] {
        failed_once().got(100, wrong).breaks(&[Rule::WrongResult]);
        failed_once().waited(100, Some(wrong)).breaks(&[Rule::WrongResult]);
    }
    // It answered only later.
    kept()
        .at(10, Step::Started { run: 1 })
        .read(20, ResultRead::Kept(done(1)))
        .at(30, Step::Returned { run: 1, status: 200 })
        .breaks(&[Rule::WrongResult]);
    kept().run(1, 10, 20, 200).read(30, ResultRead::Other(500)).breaks(&[Rule::WrongResult]);
}

#[test]
fn the_result_of_a_dead_call_is_the_last_answer() {
    let last = seen(EndState::Dead, 500, SeenBody::OfRun(3));
    dead(kept()).got(100, last).is_whole();
    dead(kept()).got(100, seen(EndState::Dead, 504, SeenBody::Empty)).is_whole();
    let first = seen(EndState::Dead, 500, SeenBody::OfRun(1));
    dead(kept()).got(100, first).breaks(&[Rule::WrongResult]);
    // Two workers may have had it.
    dead(kept().fault(25, Excuse::Once)).got(100, first).is_whole();
    kept().run(1, 10, 20, 200).got(100, last).breaks(&[Rule::WrongResult]);
}

#[test]
fn a_cancelled_call_has_a_result_without_a_body() {
    let cancelled = seen(EndState::Cancelled, 499, SeenBody::Empty);
    kept().cancelled(10, 20).got(100, cancelled).is_whole();
    kept().cancelled(10, 20).got(100, done(1)).breaks(&[Rule::WrongResult]);
    kept().cancelled(10, 20).read_last(100, ResultRead::NotKept).breaks(&[Rule::ResultMissing]);
    // The gateway tries once.
    let hit = kept().fault(15, Excuse::Once).cancelled(16, 20);
    hit.read_last(100, ResultRead::NotKept).is_whole();
}

#[test]
fn each_client_gets_the_same_result() {
    let twice = || kept().run(1, 10, 20, 200).fault(21, Excuse::Once).run(2, 30, 40, 200);
    twice().waited(50, Some(done(1))).got(100, done(1)).is_whole();
    twice().waited(50, Some(done(2))).got(100, done(2)).is_whole();
    twice().waited(50, Some(done(1))).got(100, done(2)).breaks(&[Rule::TwoResults]);
}

#[test]
fn a_result_that_was_asked_for_is_there_when_all_has_ended() {
    let ran = |seen: Seen| seen.run(1, 10, 20, 200);
    for read in [ResultRead::NotKept, ResultRead::Unknown, ResultRead::Pending] {
        ran(kept()).read_last(100, read).breaks(&[Rule::ResultMissing]);
        // Before that, it may be on its way.
        ran(kept()).read(100, read).is_whole();
        // No client asked for it.
        ran(accepted()).read_last(100, read).is_whole();
    }
    ran(kept()).read_last(100, ResultRead::Unavailable).is_whole();
    let deleted = ran(kept()).fault(50, Excuse::Deletes);
    deleted.read_last(100, ResultRead::Unknown).is_whole();
}

#[test]
fn a_wait_does_not_miss_an_end_that_was_there_for_a_lease() {
    kept().run(1, 10, 20, 200).waited(3100, None).breaks(&[Rule::WaitMissed]);
    dead(kept()).waited(3100, None).breaks(&[Rule::WaitMissed]);
    kept().run(1, 10, 2000, 200).waited(3100, None).is_whole();
    kept().run(1, 10, 20, 200).fault(1000, Excuse::Once).waited(3100, None).is_whole();
    let late = kept().run(1, 10, 20, 200).saw(3000, What::Late(Duration::from_millis(500)));
    late.waited(3100, None).is_whole();
}

#[test]
fn nothing_starts_once_a_client_has_the_result() {
    let again = |fault: u64, excuse| {
        let first = kept().run(1, 10, 20, 200).fault(fault, excuse).got(100, done(1));
        first.run(2, 1000, 1010, 200)
    };
    again(21, Excuse::Once).breaks(&[Rule::StartedAfterResult]);
    // NATS may be away as the worker looks for it, and a new consumer knows of no delivery.
    again(21, Excuse::Begins).is_whole();
    again(21, Excuse::Forgets).breaks(&[Rule::RanAgain]);
}

#[test]
fn a_delayed_call_does_not_start_before_its_time() {
    let delayed = || accepted().at(2, Step::Delayed { due: Duration::from_secs(1) });
    delayed().run(1, 1000, 1010, 200).is_whole();
    delayed().run(1, 900, 910, 200).breaks(&[Rule::StartedEarly]);
    // A repeat that is sent later does not change the time of the stored call.
    let repeated = delayed().at(500, Step::Delayed { due: Duration::from_millis(1500) });
    repeated.run(1, 1100, 1110, 200).is_whole();
    let asked = |at: u64| {
        let asked = Duration::from_millis(at);
        let reported = Reported::Scheduled;
        delayed().at(at, Step::StatusAnswered { asked, reported }).run(1, 9000, 9010, 200)
    };
    asked(500).is_whole();
    asked(4500).breaks(&[Rule::WrongStatus]);
    let not_delayed = accepted().at(
        2,
        Step::StatusAnswered { asked: Duration::from_millis(2), reported: Reported::Scheduled },
    );
    not_delayed.run(1, 10, 20, 200).breaks(&[Rule::WrongStatus]);
}

#[test]
fn a_wait_for_a_cancelled_call_gets_its_499_once() {
    let cancelled = || SeenResult { end: EndState::Cancelled, status: 499, body: SeenBody::Empty };
    // The client learns that the call is stored when its wait is over.
    let cancel = || {
        let sent = Seen::default().at(0, submitted(false)).at(0, Step::ResultWanted);
        sent.at(100, Step::CancelSent).at(110, cancel_answered(202))
    };
    cancel().at(120, answered(202)).waited(120, Some(cancelled())).is_whole();
    cancel().at(5000, answered(202)).waited(5000, None).breaks(&[Rule::WaitMissed]);
    let hit = cancel().fault(115, Excuse::Once);
    hit.at(5000, answered(202)).waited(5000, None).is_whole();
    let other = SeenResult { status: 500, ..cancelled() };
    cancel().at(120, answered(202)).waited(120, Some(other)).breaks(&[Rule::WrongResult]);
    let ran = cancel().at(200, Step::Started { run: 1 }).at(220, answered(202));
    ran.waited(220, Some(cancelled())).breaks(&[Rule::StartedAfterCancel]);
}
