//! What has happened to a call, and what will, in order. Pure.

use asyncqueue::{
    EndState, Rounded,
    call::{CallState, CallStatus, CallbackState},
    dead_letters::{DeadLetter, DeadLetterKind},
    failed_attempts::{FailedAttempt, Tried},
    message::kept_result::KeptResult,
};
use jiff::Timestamp;

use super::layout::count;

/// Something that has happened to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// When; `None` if that is not known.
    pub(super) at: Option<Timestamp>,
    pub(super) what: String,
}

fn event(at: Option<Timestamp>, what: impl Into<String>) -> Event {
    Event { at, what: what.into() }
}

/// Returns the events of a call. Only what is still known is among them: `failed` are the attempts
/// that workers remember, the worker that has a call knows its last one, and so do the records of a
/// call that has ended.
pub(super) fn timeline(
    status: Option<&CallStatus>,
    result: Option<&KeptResult>,
    failed: &[FailedAttempt],
    letters: &[DeadLetter],
) -> Vec<Event> {
    let mut events = Vec::new();
    if let Some(CallStatus { submitted_at, state, .. }) = status {
        events.extend(submitted_at.map(|at| event(Some(at), "Submitted")));
        events.extend(of_failed(failed, Tried::Call));
        events.extend(of_state(state, result.is_some(), failed));
    }
    let finished_at = status.and_then(|status| match status.state {
        CallState::Done { finished_at, .. } => Some(finished_at),
        _ => None,
    });
    events.extend(result.map(|result| of_result(result, finished_at)));
    events.extend(of_failed(failed, Tried::Callback));
    for letter in letters {
        let what = match letter.kind {
            DeadLetterKind::Call => "Became a dead letter",
            DeadLetterKind::Callback => "The callback became a dead letter",
        };
        let death = &letter.death;
        let status = death.status.map(|status| format!(", status {status}")).unwrap_or_default();
        events.push(event(
            Some(letter.died_at),
            format!("{what} after {}{status}: {}", count(death.attempts, "attempt"), death.reason),
        ));
    }
    events
}

/// Returns the attempts that workers remember.
fn of_failed(failed: &[FailedAttempt], tried: Tried) -> impl Iterator<Item = Event> {
    let what = match tried {
        Tried::Call => "failed",
        Tried::Callback => "to deliver the callback failed",
    };
    failed.iter().filter(move |failed| failed.of == tried).map(move |failed| {
        let FailedAttempt { attempt, at, status, error, .. } = failed;
        event(Some(*at), format!("Attempt {attempt} {what}: status {status}, {error}"))
    })
}

fn of_result(result: &KeptResult, at: Option<Timestamp>) -> Event {
    let KeptResult { end, status, duration, attempt, max_attempts, .. } = result;
    let what = match end {
        EndState::Done => format!(
            "Done: attempt {attempt} of {max_attempts} answered {status} after {}",
            Rounded(*duration)
        ),
        end => format!("Ended as {end}, status {status}"),
    };
    event(at, what)
}

fn of_state(state: &CallState, has_result: bool, failed: &[FailedAttempt]) -> Vec<Event> {
    match state {
        CallState::Queued { position: None } => vec![event(None, "Waits in the queue")],
        CallState::Queued { position: Some(position) } => {
            vec![event(
                None,
                format!("Waits in the queue, at most {} before it", count(*position, "call")),
            )]
        }
        CallState::Scheduled { not_before } => {
            vec![event(Some(*not_before), "Is due, and does not run before")]
        }
        CallState::Delivered => {
            vec![event(None, "Delivered to a worker: it runs, or waits for its next attempt")]
        }
        CallState::Running { worker, attempt, max_attempts, since, blocked, .. } => {
            let begun = format!("Attempt {attempt} of {max_attempts} began on {worker}");
            let mut events = vec![event(Some(*since), begun)];
            events.extend(blocked.as_ref().map(|why| event(None, format!("Blocked: {why}"))));
            events
        }
        CallState::Waiting {
            attempt,
            max_attempts,
            next_attempt,
            failure,
            not_counted_until,
            ..
        } => {
            let why = failure.as_ref().map_or_else(String::new, |failure| {
                format!(": status {}, {}", failure.last_status, failure.last_error)
            });
            let is_remembered = not_counted_until.is_none()
                && failed.iter().any(|one| one.of == Tried::Call && one.attempt == *attempt);
            let last = match not_counted_until {
                Some(_) => format!("The platform failed, which is not counted as an attempt{why}"),
                None => format!("Attempt {attempt} of {max_attempts} failed{why}"),
            };
            let next = event(Some(*next_attempt), "Next attempt is due");
            if is_remembered { vec![next] } else { vec![event(None, last), next] }
        }
        CallState::Done { status, attempt, duration, finished_at, callback } => {
            let mut events = Vec::new();
            if !has_result {
                let done = format!("Done: attempt {attempt} answered {status} after {duration}");
                events.push(event(Some(*finished_at), done));
            }
            events.extend(callback.map(|callback| match callback {
                CallbackState::Pending => event(None, "The callback is not delivered yet"),
                CallbackState::Dead => event(None, "The callback was given up"),
            }));
            events
        }
        // The dead letter says more.
        CallState::Dead { reason, since, .. } => {
            vec![event(Some(*since), format!("Ended as dead: {reason}"))]
        }
        CallState::Cancelled { since } => vec![event(Some(*since), "Cancelled")],
        CallState::Expired { since } => {
            vec![event(Some(*since), "Expired: older than its queue allows when it was delivered")]
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use asyncqueue::{GoDuration, call::AttemptFailure};

    use super::*;

    fn status(state: CallState) -> CallStatus {
        CallStatus {
            call_id: "c".to_owned(),
            function: Some("f.ns".to_owned()),
            queue: "jobs".parse().unwrap(),
            state,
            submitted_at: "2026-11-24T10:00:00Z".parse().ok(),
            age: None,
            others: None,
        }
    }

    fn texts(state: CallState) -> Vec<String> {
        timeline(Some(&status(state)), None, &[], &[]).into_iter().map(|event| event.what).collect()
    }

    #[test]
    fn failed_attempt_is_shown_with_its_error_and_the_next_one() {
        let next: Timestamp = "2026-11-24T10:01:00Z".parse().unwrap();
        let waiting = |not_counted_until| CallState::Waiting {
            attempt: 2,
            max_attempts: 5,
            next_attempt: next,
            failure: Some(AttemptFailure {
                last_status: 500,
                last_error: "the function answered 500".to_owned(),
            }),
            not_counted_until,
        };
        let events = timeline(Some(&status(waiting(None))), None, &[], &[]);
        assert_eq!(events[1].what, "Attempt 2 of 5 failed: status 500, the function answered 500");
        assert_eq!(events[2], event(Some(next), "Next attempt is due"));
        assert!(texts(waiting(Some(next)))[1].contains("not counted"));
    }

    #[test]
    fn each_remembered_attempt_is_shown_once() {
        let failed = |of, attempt, second| FailedAttempt {
            sequence: 7,
            of,
            attempt,
            at: Timestamp::from_second(second).unwrap(),
            status: 500,
            error: "it failed".to_owned(),
        };
        let attempts = [failed(Tried::Call, 1, 1), failed(Tried::Call, 2, 2)];
        let waiting = CallState::Waiting {
            attempt: 2,
            max_attempts: 5,
            next_attempt: Timestamp::from_second(9).unwrap(),
            failure: None,
            not_counted_until: None,
        };
        let texts = |state, failed: &[_]| -> Vec<String> {
            let events = timeline(Some(&status(state)), None, failed, &[]);
            events.into_iter().map(|event| event.what).collect()
        };
        assert_eq!(
            texts(waiting, &attempts),
            [
                "Submitted",
                "Attempt 1 failed: status 500, it failed",
                "Attempt 2 failed: status 500, it failed",
                "Next attempt is due"
            ]
        );
        let cancelled = CallState::Cancelled { since: Timestamp::from_second(3).unwrap() };
        let callback = [failed(Tried::Callback, 1, 4)];
        assert_eq!(
            texts(cancelled, &callback)[1..],
            ["Cancelled", "Attempt 1 to deliver the callback failed: status 500, it failed"]
        );
    }

    #[test]
    fn end_is_shown_with_its_callback() {
        let done = |callback| CallState::Done {
            status: 200,
            attempt: 1,
            duration: GoDuration(Duration::from_millis(5)),
            finished_at: Timestamp::UNIX_EPOCH,
            callback: Some(callback),
        };
        assert_eq!(
            texts(done(CallbackState::Pending)),
            [
                "Submitted",
                "Done: attempt 1 answered 200 after 5ms",
                "The callback is not delivered yet"
            ]
        );
        assert_eq!(texts(done(CallbackState::Dead))[2], "The callback was given up");
        let since = Timestamp::UNIX_EPOCH;
        assert_eq!(texts(CallState::Cancelled { since })[1], "Cancelled");
        assert!(texts(CallState::Expired { since })[1].starts_with("Expired"));
    }
}
