use super::{observation::Observation::*, *};

const CALLED_BACK: Observation = Submitted { callback: true, max_attempts: 2 };
const PLAIN: Observation = Submitted { callback: false, max_attempts: 2 };
const THRICE: Observation = Submitted { callback: false, max_attempts: 3 };
const DONE: Observation = Returned(Outcome::Ok);
const FAILED: Observation = Returned(Outcome::Failed);

fn callback(end: End) -> Observation {
    Callback { end: Some(end), is_taken: true }
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
    let lease = Fault(observation::Fault::WorkerOrLeaseLost);
    let consumer = Fault(observation::Fault::ConsumerRecreated);
    let leader = Fault(observation::Fault::LeaderChange);
    let lost = Fault(observation::Fault::LostConfirmation);
    let hand_back = Fault(observation::Fault::HandBack);
    let recreated = Fault(observation::Fault::StreamRecreated);
    let expiry = Fault(observation::Fault::Expiry);
    let (done, dead, cancelled) =
        (callback(End::Done), callback(End::Dead), callback(End::Cancelled));
    let traces: &[&[Observation]] = &[
        &[],
        &[CALLED_BACK, Accepted, Started, DONE, done],
        &[CALLED_BACK, Started, DONE, Accepted, done],
        &[PLAIN, Accepted, Started, DONE],
        &[PLAIN, Refused],
        &[PLAIN, Unanswered],
        &[PLAIN, Unanswered, PLAIN, Accepted, Started, DONE],
        &[CALLED_BACK, Accepted, Started, FAILED, Started, DONE, done],
        &[CALLED_BACK, Accepted, Started, FAILED, Started, BrokenOff, dead, LeftDead],
        &[PLAIN, Accepted, Started, FAILED, Started, FAILED, LeftDead],
        // The worker has closed the connection at the time limit before the function detects it.
        &[PLAIN, Accepted, Started, Started, BrokenOff, DONE],
        &[CALLED_BACK, Accepted, CancelConfirmed, cancelled],
        &[CALLED_BACK, Accepted, Started, BrokenOff, CancelConfirmed, cancelled],
        &[CALLED_BACK, Accepted, Started, CancelConfirmed, BrokenOff, cancelled],
        &[CALLED_BACK, Accepted, Started, DONE, done, CancelSent, CancelRefused],
        &[CALLED_BACK, CancelSent, CancelRefused, Accepted, Started, DONE, done],
        &[CALLED_BACK, Accepted, Started, DONE, CancelRefused, done],
        &[CALLED_BACK, Accepted, Started, DONE, CancelConfirmed, cancelled],
        &[CALLED_BACK, Accepted, CancelUnknown, CancelConfirmed, cancelled],
        &[CALLED_BACK, Accepted, CancelUnknown, Started, DONE, done],
        &[
            CALLED_BACK,
            Accepted,
            Started,
            DONE,
            Callback { end: Some(End::Done), is_taken: false },
            done,
        ],
        &[CALLED_BACK, Accepted, Started, DONE, LeftDeadResult],
        &[CALLED_BACK, Accepted, LeftQueued],
        &[CALLED_BACK, Accepted, Started, crash, BrokenOff, Started, DONE, done],
        &[CALLED_BACK, Accepted, Started, crash, Started, DONE, DONE, done],
        &[CALLED_BACK, Accepted, Started, crash, BrokenOff, Started, FAILED, dead, LeftDead],
        &[
            CALLED_BACK,
            Accepted,
            crash,
            Started,
            crash,
            Started,
            BrokenOff,
            BrokenOff,
            dead,
            LeftDead,
        ],
        &[CALLED_BACK, Accepted, Started, pause, Started, DONE, DONE, done],
        &[CALLED_BACK, Accepted, pause, CancelUnknown, CancelConfirmed, cancelled],
        &[CALLED_BACK, Accepted, Started, outage, outage, FAILED, Started, DONE, done],
        &[CALLED_BACK, Accepted, Started, outage, over, outage, over, FAILED, Started, DONE, done],
        &[CALLED_BACK, Accepted, Started, leader, Started, DONE, DONE, done],
        &[CALLED_BACK, Accepted, Started, leader, lost, DONE, done],
        &[
            CALLED_BACK,
            Accepted,
            Started,
            hand_back,
            BrokenOff,
            Started,
            FAILED,
            Started,
            DONE,
            done,
        ],
        &[CALLED_BACK, Accepted, Started, lease, BrokenOff, Started, DONE, done],
        &[CALLED_BACK, Accepted, Started, lease, Started, DONE, DONE, done],
        &[CALLED_BACK, Accepted, Started, FAILED, consumer, Started, FAILED, Started, DONE, done],
        // A server that is killed has forgotten two deliveries.
        &[
            THRICE, Accepted, Started, FAILED, Started, lease, lease, FAILED, Started, FAILED,
            Started, FAILED, Started, FAILED, LeftDead,
        ],
        &[CALLED_BACK, Accepted, Started, DONE, Callback { end: None, is_taken: true }],
        &[CALLED_BACK, Accepted, expiry, callback(End::Expired)],
        &[PLAIN, Accepted, recreated],
        &[CALLED_BACK, Accepted, Started, recreated, DONE, done],
        &[CALLED_BACK, Accepted, Started, crash, DONE, done, done],
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
    let lease = Fault(observation::Fault::WorkerOrLeaseLost);
    let window = Fault(observation::Fault::WindowPassed);
    let (done, dead, cancelled) =
        (callback(End::Done), callback(End::Dead), callback(End::Cancelled));
    let traces: &[(&[Observation], usize)] = &[
        // Not submitted, or refused.
        (&[Started], 0),
        (&[PLAIN, Refused, Started], 2),
        // Lost.
        (&[PLAIN, Accepted], 2),
        (&[CALLED_BACK, Accepted, Started, DONE], 4),
        (&[CALLED_BACK, Accepted, Started, FAILED, Started, FAILED, dead], 7),
        // Needless runs and too many runs.
        (&[PLAIN, Accepted, Started, Started], 3),
        (&[PLAIN, Accepted, Started, Started, DONE, DONE], 3),
        (&[PLAIN, Accepted, Started, Started, DONE, BrokenOff, Started], 6),
        (&[PLAIN, Accepted, Started, DONE, Started], 4),
        (&[PLAIN, Accepted, Started, FAILED, Started, FAILED, Started], 6),
        (&[PLAIN, Accepted, Started, crash, Started, Started], 5),
        (&[PLAIN, Accepted, Started, lease, Started, Started], 5),
        (&[PLAIN, Accepted, outage, over, Started, Started], 5),
        // Too few runs: a redelivery of a call in flight does not count.
        (&[PLAIN, Accepted, Started, FAILED, LeftDead], 4),
        (&[THRICE, Accepted, Started, outage, over, outage, over, FAILED, LeftDead], 8),
        // Two dead letters.
        (
            &[PLAIN, Accepted, Started, FAILED, Started, crash, FAILED, window, LeftDead, LeftDead],
            9,
        ),
        // Several ends.
        (&[CALLED_BACK, Accepted, Started, DONE, dead], 4),
        (&[CALLED_BACK, Accepted, Started, DONE, done, done], 5),
        (&[CALLED_BACK, Accepted, Started, DONE, done, cancelled], 5),
        (&[CALLED_BACK, Accepted, Started, DONE, done, LeftDead], 5),
        (&[CALLED_BACK, Accepted, cancelled], 2),
        (&[CALLED_BACK, Accepted, CancelConfirmed, cancelled, LeftDead], 4),
        (&[CALLED_BACK, Accepted, CancelConfirmed, Started], 3),
        (&[CALLED_BACK, Accepted, CancelConfirmed, done], 3),
        (&[CALLED_BACK, Accepted, Started, DONE, CancelConfirmed, done], 5),
        (&[CALLED_BACK, Accepted, CancelSent, CancelRefused, Started, DONE, done], 3),
        (&[CALLED_BACK, Accepted, callback(End::Expired)], 2),
        (&[PLAIN, Accepted, Started, DONE, done], 4),
        // One fault excuses one run.
        (&[CALLED_BACK, Accepted, Started, outage, Started, FAILED, FAILED, Started], 7),
    ];
    for (trace, at) in traces {
        assert_eq!(refused_at(trace), Some(*at), "{trace:?}: {:?}", explain(trace));
    }
}

#[test]
fn a_divergence_says_what_was_possible() {
    let divergence =
        explain(&[CALLED_BACK, Accepted, Started, DONE, callback(End::Dead)]).unwrap_err();
    let text = divergence.to_string();
    assert!(
        text.starts_with("step 4: the model has no run with `callback dead taken` here"),
        "{text}"
    );
    assert!(text.contains("`callback done taken`"), "{text}");
}
