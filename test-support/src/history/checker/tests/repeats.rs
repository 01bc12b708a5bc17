//! Calls that run again, and the faults that excuse it.

use super::*;

#[test]
fn nothing_runs_twice_unless_a_worker_or_its_lease_died() {
    let again = |first: Seen| first.run(2, 4000, 4010, 200);
    // After it was done, and while it still ran.
    again(accepted().run(1, 10, 20, 200)).breaks(&[Rule::RanAgain]);
    again(accepted().at(10, Step::Started { run: 1 })).breaks(&[Rule::RanAgain]);
    again(accepted().at(10, Step::Started { run: 1 }).at(20, Step::BrokenOff { run: 1 }))
        .breaks(&[Rule::RanAgain]);
    // A fault excuses it, within a lease before the first run too, and is counted.
    let tally = again(accepted().run(1, 10, 20, 200).fault(25, Excuse::Once)).is_whole();
    assert_eq!((tally.done, tally.rerun), (1, 1));
    again(accepted().fault(5, Excuse::Once).run(1, 10, 20, 200)).is_whole();
    // Not one that no worker dies of, one long ago, one that came later, or one of another queue.
    again(accepted().run(1, 10, 20, 200).fault(25, Excuse::None)).breaks(&[Rule::RanAgain]);
    again(Seen::default().fault(0, Excuse::Once).at(3500, answered(202)).run(1, 3600, 3610, 200))
        .breaks(&[Rule::RanAgain]);
    let lasting = |begins, ends| {
        Seen::default()
            .fault(begins, Excuse::Begins)
            .fault(ends, Excuse::Ends)
            .at(9000, answered(202))
    };
    lasting(0, 7000).run(1, 9010, 9020, 200).run(2, 9500, 9510, 200).is_whole();
    lasting(0, 5000).run(1, 9010, 9020, 200).run(2, 9500, 9510, 200).breaks(&[Rule::RanAgain]);
    again(accepted().run(1, 10, 20, 200)).fault(4001, Excuse::Once).breaks(&[Rule::RanAgain]);
    again(accepted().run(1, 10, 20, 200).fault_of(Some(1), 25, Excuse::Once))
        .breaks(&[Rule::RanAgain]);
    again(accepted().run(1, 10, 20, 200).fault_of(Some(0), 25, Excuse::Once)).is_whole();
}

#[test]
fn a_fault_excuses_one_repeat_and_not_all_within_a_lease() {
    let first = || accepted().run(1, 10, 20, 200).fault(25, Excuse::Once);
    first().run(2, 100, 110, 200).is_whole();
    first().run(2, 100, 110, 200).run(3, 200, 210, 200).breaks(&[Rule::RanAgain]);
    first().run(2, 100, 110, 200).fault(150, Excuse::Once).run(3, 200, 210, 200).is_whole();
    // Both came before the first repeat, and more than a lease before the second.
    let twice = first().fault(120, Excuse::Once);
    twice.run(2, 3200, 3210, 200).run(3, 6100, 6110, 200).breaks(&[Rule::RanAgain]);
    // One that lasts excuses one for each lease that could run out.
    let lasting =
        |until| accepted().run(1, 10, 20, 200).fault(25, Excuse::Begins).fault(until, Excuse::Ends);
    lasting(2000).run(2, 2010, 2020, 200).run(3, 2030, 2040, 200).breaks(&[Rule::RanAgain]);
    lasting(7000).run(2, 7010, 7020, 200).run(3, 7030, 7040, 200).is_whole();
}

#[test]
fn a_callback_comes_again_once_for_each_fault() {
    let taken =
        || with_callback().run(1, 10, 20, 200).at(30, callback(200)).fault(35, Excuse::Once);
    taken().at(40, callback(200)).is_whole();
    taken().at(40, callback(200)).at(50, callback(200)).breaks(&[Rule::CallbackRepeated]);
}

#[test]
fn attempts_are_bounded_by_the_faults_that_hit_the_call() {
    let four = |fault: Option<u64>| {
        let seen = accepted().run(1, 10, 20, 500).run(2, 30, 40, 500);
        let seen = fault.into_iter().fold(seen, |seen, at| seen.fault(at, Excuse::Once));
        seen.run(3, 3500, 3510, 500).run(4, 3520, 3530, 500).dead(3600)
    };
    four(None).breaks(&[Rule::RanTooOften]);
    four(Some(50)).is_whole();
    four(Some(50)).run(5, 3700, 3710, 500).breaks(&[Rule::RanTooOften]);
    // A consumer that is made again counts from the beginning.
    let six = |excuse| {
        let seen = accepted().run(1, 10, 20, 500).run(2, 30, 40, 500).fault(50, excuse);
        let seen = seen.run(3, 60, 70, 500).run(4, 80, 90, 500).run(5, 100, 110, 500);
        seen.dead(120)
    };
    six(Excuse::Forgets).is_whole();
    six(Excuse::Once).breaks(&[Rule::RanTooOften]);
}

#[test]
fn a_killed_server_may_have_forgotten_the_attempts_of_its_last_moment() {
    let two = |killed| {
        let seen = accepted().run(1, 10, 20, 500).run(2, 30, 40, 500);
        let seen = seen.fault(killed, Excuse::BeginsKilled).fault(killed + 500, Excuse::Ends);
        let at = |after: u64| killed + after;
        let seen = seen.run(3, at(600), at(610), 500).run(4, at(620), at(630), 500);
        seen.run(5, at(640), at(650), 500)
    };
    two(50).dead(900).is_whole();
    two(1200).dead(1900).breaks(&[Rule::RanTooOften]);
}

#[test]
fn a_delivery_that_is_lost_is_an_attempt_but_not_under_a_run() {
    // Its worker died with it before it ran.
    let killed = accepted().fault(5, Excuse::Once).run(1, 3010, 3020, 500).run(2, 3030, 3040, 500);
    killed.dead(3050).is_whole();
    // NATS was away twice for longer than the lease while it ran, and the worker had it all the
    // time.
    let long = accepted().at(10, Step::Started { run: 1 });
    let long = long.fault(100, Excuse::Begins).fault(4100, Excuse::Ends);
    let long = long.fault(9000, Excuse::Begins).fault(13_000, Excuse::Ends);
    let long = long.at(20_000, Step::Returned { run: 1, status: 500 });
    long.dead(20_010).breaks(&[Rule::DiedEarly]);
}

#[test]
fn call_in_a_deleted_queue_needs_no_end() {
    accepted().fault_of(Some(0), 500, Excuse::Deletes).is_whole();
    accepted().fault_of(Some(1), 500, Excuse::Deletes).breaks(&[Rule::Lost]);
    with_callback().run(1, 10, 20, 200).fault_of(Some(0), 500, Excuse::Deletes).is_whole();
    // What was submitted after that has one.
    let later = Seen::default().fault_of(Some(0), 500, Excuse::Deletes).at(600, submitted(false));
    later.at(601, answered(202)).breaks(&[Rule::Lost]);
}
