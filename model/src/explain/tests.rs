use super::{observation::Observation::*, *};

const ASKED: Observation = Submitted { callback: true, max_attempts: 2 };
const SILENT: Observation = Submitted { callback: false, max_attempts: 2 };
const THRICE: Observation = Submitted { callback: false, max_attempts: 3 };
const OK: Observation = Returned(Outcome::Ok);
const FAILED: Observation = Returned(Outcome::Failed);

fn told(end: End) -> Observation {
    Callback { end, is_taken: true }
}

fn refused_at(trace: &[Observation]) -> Option<usize> {
    match explain(trace) {
        Err(Divergence::Impossible { at, .. }) => Some(at),
        Err(Divergence::Unfinished) => Some(trace.len()),
        Ok(()) => None,
        Err(Divergence::TooLarge { .. }) => panic!("too large: {trace:?}"),
    }
}

#[test]
fn possible_traces_are_explained() {
    let (crash, pause) = (Fault(observation::Fault::Crash), Fault(observation::Fault::Pause));
    let outage = Fault(observation::Fault::Outage);
    let over = FaultOver(observation::Fault::Outage);
    let leader = Fault(observation::Fault::LeaderChange);
    let lost = Fault(observation::Fault::LostConfirmation);
    let hand_back = Fault(observation::Fault::HandBack);
    let recreated = Fault(observation::Fault::StreamRecreated);
    let expiry = Fault(observation::Fault::Expiry);
    let (done, dead, cancelled) = (told(End::Done), told(End::Dead), told(End::Cancelled));
    let traces: &[&[Observation]] = &[
        &[],
        &[ASKED, Accepted, Started, OK, done],
        &[ASKED, Started, OK, Accepted, done],
        &[SILENT, Accepted, Started, OK],
        &[SILENT, Refused],
        &[SILENT, Unanswered],
        &[SILENT, Unanswered, SILENT, Accepted, Started, OK],
        &[ASKED, Accepted, Started, FAILED, Started, OK, done],
        &[ASKED, Accepted, Started, FAILED, Started, BrokenOff, dead, LeftDead],
        &[SILENT, Accepted, Started, FAILED, Started, FAILED, LeftDead],
        &[ASKED, Accepted, CancelConfirmed, cancelled],
        &[ASKED, Accepted, Started, BrokenOff, CancelConfirmed, cancelled],
        &[ASKED, Accepted, Started, CancelConfirmed, BrokenOff, cancelled],
        &[ASKED, Accepted, Started, OK, done, CancelSent, CancelRefused],
        &[ASKED, CancelSent, CancelRefused, Accepted, Started, OK, done],
        &[ASKED, Accepted, Started, OK, CancelRefused, done],
        &[ASKED, Accepted, Started, OK, CancelConfirmed, cancelled],
        &[ASKED, Accepted, CancelUnknown, CancelConfirmed, cancelled],
        &[ASKED, Accepted, CancelUnknown, Started, OK, done],
        &[ASKED, Accepted, Started, OK, Callback { end: End::Done, is_taken: false }, done],
        &[ASKED, Accepted, Started, OK, LeftDeadResult],
        &[ASKED, Accepted, LeftQueued],
        &[ASKED, Accepted, Started, crash, BrokenOff, Started, OK, done],
        &[ASKED, Accepted, Started, crash, Started, OK, OK, done],
        &[ASKED, Accepted, Started, crash, BrokenOff, Started, FAILED, dead, LeftDead],
        &[ASKED, Accepted, crash, Started, crash, Started, BrokenOff, BrokenOff, dead, LeftDead],
        &[ASKED, Accepted, Started, pause, Started, OK, OK, done],
        &[ASKED, Accepted, pause, CancelUnknown, CancelConfirmed, cancelled],
        &[ASKED, Accepted, Started, outage, outage, FAILED, Started, OK, done],
        &[ASKED, Accepted, Started, outage, over, outage, over, FAILED, Started, OK, done],
        &[ASKED, Accepted, Started, leader, Started, OK, OK, done],
        &[ASKED, Accepted, Started, leader, lost, OK, done],
        &[ASKED, Accepted, Started, hand_back, BrokenOff, Started, FAILED, Started, OK, done],
        &[ASKED, Accepted, expiry, told(End::Expired)],
        &[SILENT, Accepted, recreated],
        &[ASKED, Accepted, Started, recreated, OK, done],
        &[ASKED, Accepted, Started, crash, OK, done, done],
    ];
    for trace in traces {
        assert_eq!(explain(trace), Ok(()), "{trace:?}");
    }
}

#[test]
fn impossible_traces_name_the_first_wrong_step() {
    let crash = Fault(observation::Fault::Crash);
    let outage = Fault(observation::Fault::Outage);
    let over = FaultOver(observation::Fault::Outage);
    let window = Fault(observation::Fault::WindowPassed);
    let (done, dead, cancelled) = (told(End::Done), told(End::Dead), told(End::Cancelled));
    let traces: &[(&[Observation], usize)] = &[
        // Not submitted, or refused.
        (&[Started], 0),
        (&[SILENT, Refused, Started], 2),
        // Lost.
        (&[SILENT, Accepted], 2),
        (&[ASKED, Accepted, Started, OK], 4),
        (&[ASKED, Accepted, Started, FAILED, Started, FAILED, dead], 7),
        // Needless and too many runs.
        (&[SILENT, Accepted, Started, Started], 3),
        (&[SILENT, Accepted, Started, OK, Started], 4),
        (&[SILENT, Accepted, Started, FAILED, Started, FAILED, Started], 6),
        (&[SILENT, Accepted, Started, crash, Started, Started], 5),
        // Too few: a redelivery of a call in flight does not count.
        (&[SILENT, Accepted, Started, FAILED, LeftDead], 4),
        (&[THRICE, Accepted, Started, outage, over, outage, over, FAILED, LeftDead], 8),
        // Two dead letters.
        (&[SILENT, Accepted, Started, FAILED, Started, crash, FAILED, window, LeftDead, LeftDead], 9),
        // Ends that are not one.
        (&[ASKED, Accepted, Started, OK, dead], 4),
        (&[ASKED, Accepted, Started, OK, done, done], 5),
        (&[ASKED, Accepted, Started, OK, done, cancelled], 5),
        (&[ASKED, Accepted, Started, OK, done, LeftDead], 5),
        (&[ASKED, Accepted, cancelled], 2),
        (&[ASKED, Accepted, CancelConfirmed, cancelled, LeftDead], 4),
        (&[ASKED, Accepted, CancelConfirmed, Started], 3),
        (&[ASKED, Accepted, CancelConfirmed, done], 3),
        (&[ASKED, Accepted, Started, OK, CancelConfirmed, done], 5),
        (&[ASKED, Accepted, CancelSent, CancelRefused, Started, OK, done], 3),
        (&[ASKED, Accepted, told(End::Expired)], 2),
        (&[SILENT, Accepted, Started, OK, done], 4),
        // One fault excuses one run.
        (&[ASKED, Accepted, Started, outage, Started, FAILED, FAILED, Started], 7),
    ];
    for (trace, at) in traces {
        assert_eq!(refused_at(trace), Some(*at), "{trace:?}: {:?}", explain(trace));
    }
}

#[test]
fn a_divergence_says_what_was_possible() {
    let divergence = explain(&[ASKED, Accepted, Started, OK, told(End::Dead)]).unwrap_err();
    let text = divergence.to_string();
    assert!(text.starts_with("step 4: the model has no run with `callback Dead taken` here"), "{text}");
    assert!(text.contains("`callback Done taken`"), "{text}");
}
