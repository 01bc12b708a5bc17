//! Cancellations: confirmed, refused, and neither.

use super::*;

fn cancelled(seen: Seen) -> Seen {
    seen.at(100, Step::CancelSent).at(110, cancel_answered(202))
}

fn refused(seen: Seen) -> Seen {
    seen.at(100, Step::CancelSent).at(110, cancel_answered(409))
}

#[test]
fn nothing_starts_after_a_confirmed_cancellation() {
    let tally = cancelled(accepted()).is_whole();
    assert_eq!(tally, Tally { accepted: 1, cancelled: 1, ..Tally::default() });
    cancelled(accepted()).run(1, 300, 310, 200).breaks(&[Rule::StartedAfterCancel]);
    // No fault excuses that.
    let hit = cancelled(accepted()).fault(120, Excuse::Once);
    hit.run(1, 300, 310, 200).breaks(&[Rule::StartedAfterCancel]);
    // It was on its way to the function when the worker got the broadcast, and is recorded later.
    let on_the_way = |millis| {
        let started = cancelled(accepted()).at(millis, Step::Started { run: 1 });
        started.at(millis + 1, Step::BrokenOff { run: 1 })
    };
    on_the_way(155).is_whole();
    on_the_way(165).breaks(&[Rule::StartedAfterCancel]);
}

#[test]
fn a_late_recorder_excuses_only_by_as_much_as_it_was_late() {
    let late = |started: u64| {
        let mut seen = cancelled(accepted());
        let what = What::Late(Duration::from_millis(80));
        seen.0.push(Event { at: Duration::from_millis(200), what });
        seen.at(started, Step::Started { run: 1 }).at(started + 1, Step::BrokenOff { run: 1 })
    };
    late(230).is_whole();
    late(250).breaks(&[Rule::StartedAfterCancel]);
}

#[test]
fn a_confirmed_cancellation_is_the_only_end() {
    let done = || cancelled(with_callback().run(1, 10, 90, 200));
    done().at(120, callback(200)).breaks(&[Rule::EndedThoughCancelled]);
    assert_eq!(done().at(120, callback(499)).is_whole().cancelled, 1);
    // What the function has done is done, and no callback says so.
    assert_eq!(cancelled(accepted().run(1, 10, 90, 200)).is_whole().cancelled, 1);
    let dead = dead(accepted().at(2, Step::CancelSent).at(3, cancel_answered(202)));
    dead.breaks(&[Rule::EndedThoughCancelled]);
}

#[test]
fn an_end_of_which_a_fault_left_nothing_may_be_cancelled() {
    let done = |fault: Option<u64>, taken| {
        let seen = with_callback()
            .run(1, 10, 20, 200)
            .at(30, Step::CallbackReceived { status: 200, taken });
        let seen = fault.into_iter().fold(seen, |seen, at| seen.fault(at, Excuse::Once));
        let seen = cancelled(seen);
        if taken { seen } else { seen.at(130, callback(200)) }
    };
    // Its result is gone, and the acknowledgement may be lost.
    done(Some(35), true).is_whole();
    done(None, true).breaks(&[Rule::EndedThoughCancelled]);
    done(Some(120), true).breaks(&[Rule::EndedThoughCancelled]);
    // Its result is stored.
    done(Some(35), false).breaks(&[Rule::EndedThoughCancelled]);
}

#[test]
fn a_refused_cancellation_changes_no_end() {
    assert_eq!(
        refused(with_callback().run(1, 10, 90, 200)).at(120, callback(200)).is_whole().done,
        1
    );
    let cancelled = refused(with_callback().run(1, 10, 90, 200)).at(120, callback(499));
    cancelled.breaks(&[Rule::CancelledThoughRefused]);
    refused(accepted()).breaks(&[Rule::Lost]);
    // It was said to have ended.
    refused(accepted()).run(1, 300, 310, 200).breaks(&[Rule::StartedAfterRefusal]);
    let retried = refused(accepted().run(1, 10, 20, 500)).run(2, 300, 310, 200);
    retried.breaks(&[Rule::StartedAfterRefusal]);
    // Run again for a fault, it is at least once.
    refused(accepted().run(1, 10, 20, 200))
        .fault(120, Excuse::Once)
        .run(2, 300, 310, 200)
        .is_whole();
}

#[test]
fn an_open_cancellation_leaves_open_how_the_call_ends() {
    let open = |seen: Seen| seen.at(100, Step::CancelSent).at(2100, cancel_answered(503));
    assert_eq!(open(accepted()).is_whole().cancelled, 1);
    assert_eq!(open(with_callback()).at(2110, callback(499)).is_whole().cancelled, 1);
    assert_eq!(
        open(with_callback().run(1, 10, 90, 200)).at(2110, callback(200)).is_whole().done,
        1
    );
    // It may start: no answer says that it does not.
    open(accepted()).run(1, 2200, 2210, 200).is_whole();
    // The repeat is the answer.
    let confirmed = open(accepted()).at(2300, Step::CancelSent).at(2310, cancel_answered(202));
    confirmed.run(1, 2400, 2410, 200).breaks(&[Rule::StartedAfterCancel]);
}

#[test]
fn cancellation_applies_to_all_stored_calls_with_one_id() {
    let submitted = Step::Submitted { callback: true, queue: 0, shares_id: true };
    let shared = |at| Seen::default().at(at, submitted).at(at + 1, answered(202));
    // It had ended before.
    assert_eq!(cancelled(shared(0).run(1, 10, 20, 200).at(30, callback(200))).is_whole().done, 1);
    assert_eq!(cancelled(shared(0)).at(120, callback(499)).is_whole().cancelled, 1);
    cancelled(shared(0))
        .run(1, 300, 310, 200)
        .at(320, callback(200))
        .breaks(&[Rule::EndedThoughCancelled, Rule::StartedAfterCancel]);
    // It is not stored at all, and so it has no end.
    let refused = Seen::default().at(0, submitted).at(1, answered(429));
    assert_eq!(cancelled(refused).is_whole().cancelled, 0);
    // It may be stored or not.
    let open = Seen::default().at(0, submitted).at(1, answered(503));
    assert_eq!(cancelled(open).is_whole().cancelled, 0);
    // It came after that.
    let later = Seen::default().at(90, submitted).at(100, Step::CancelSent).at(105, answered(202));
    let later = later.at(110, cancel_answered(202)).run(1, 300, 310, 200).at(320, callback(200));
    assert_eq!(later.is_whole().done, 1);
}
