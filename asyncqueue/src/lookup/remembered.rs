//! Asks the workers how a call has ended that left no record. Best effort: a worker remembers the
//! last calls that it has run, for some minutes, and no longer than it runs.

use std::time::Duration;

use async_nats::jetstream::Context;
use tokio::time::Instant;

use crate::{
    call::{CallQuery, CallState, CallStatus, CandidateQueues, RememberedEnd},
    jetstream::NatsError,
    names::FunctionName,
    worker_requests::{REPLY_TIMEOUT, WorkerRequest, end_request_subject, is_no_worker},
};

/// How long the other workers have to reply after the first one, at least.
const MIN_WAIT_FOR_OTHERS: Duration = Duration::from_millis(50);

/// How long the other workers have to reply after the first one, as a multiple of the time that it
/// took.
const WAIT_FOR_OTHERS: u32 = 4;

/// Asks the workers of the queues that the id or the function names how a call has ended. For a
/// call of which [`find_call`](super::find_call) knows nothing. Returns `None` if no worker
/// remembers it. That takes 50 ms where workers listen, and up to 250 ms if none of them replies.
pub async fn remembered_end(
    js: &Context,
    candidates: &CandidateQueues,
    query: &CallQuery,
) -> Result<Option<CallStatus>, NatsError> {
    let queues = &candidates.named;
    let started = Instant::now();
    let subjects: Vec<String> =
        queues.iter().map(|location| end_request_subject(&location.queue)).collect();
    let mut request =
        WorkerRequest::send_to_all(&js.client(), subjects, query.encode().into()).await?;
    let (mut without_workers, mut first_reply) = (0, None);
    let mut newest: Option<RememberedEnd> = None;
    while without_workers < queues.len()
        && let Some(reply) = request.next(started + time_for_replies(first_reply)).await
    {
        if is_no_worker(&reply) {
            without_workers += 1;
            continue;
        }
        let Ok(end) = serde_json::from_slice::<Option<RememberedEnd>>(&reply.payload) else {
            continue;
        };
        first_reply.get_or_insert_with(|| started.elapsed());
        newest = newer(newest, end);
        // A generated id has one call.
        if newest.is_some() && query.id.is_generated() {
            break;
        }
    }
    Ok(newest.map(|end| status(query, end)))
}

/// Returns how long workers have to reply to a question, if the first reply came after this time.
fn time_for_replies(first: Option<Duration>) -> Duration {
    let of_others = |first: Duration| first + MIN_WAIT_FOR_OTHERS.max(first * WAIT_FOR_OTHERS);
    first.map_or(REPLY_TIMEOUT, of_others).min(REPLY_TIMEOUT)
}

/// Returns the end that came later.
fn newer(one: Option<RememberedEnd>, other: Option<RememberedEnd>) -> Option<RememberedEnd> {
    one.into_iter().chain(other).max_by_key(|end| end.finished_at)
}

fn status(query: &CallQuery, end: RememberedEnd) -> CallStatus {
    let RememberedEnd { queue, function, status, attempt, duration, finished_at, .. } = end;
    let state = CallState::Done { status, attempt, duration, finished_at, callback: None };
    let mut call = CallStatus::new(query, &queue, None, state);
    call.function = Some(FunctionName::to_string(&function));
    call.submitted(end.submitted_at, jiff::Timestamp::now())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::call::whole_millis;

    fn end(sequence: u64, finished_at: &str) -> RememberedEnd {
        RememberedEnd {
            queue: "jobs".parse().unwrap(),
            function: FunctionName::new("figlet", "dev").unwrap(),
            sequence,
            status: 404,
            attempt: 3,
            duration: whole_millis(Duration::from_micros(1_001)),
            submitted_at: Timestamp::UNIX_EPOCH,
            finished_at: finished_at.parse().unwrap(),
        }
    }

    #[test]
    fn others_have_a_moment_after_the_first_reply() {
        let millis =
            |first: Option<u64>| time_for_replies(first.map(Duration::from_millis)).as_millis();
        assert_eq!(millis(None), 250, "no worker has replied");
        assert_eq!(millis(Some(1)), 51);
        assert_eq!(millis(Some(20)), 100, "far away, all of them take as long");
        assert_eq!(millis(Some(200)), 250);
    }

    #[test]
    fn call_that_ended_last_is_reported_with_its_fields() {
        let (early, late) = (end(9, "2026-11-29T10:00:00Z"), end(7, "2026-11-29T10:00:01Z"));
        for (one, other) in [(early.clone(), late.clone()), (late.clone(), early)] {
            assert_eq!(newer(Some(one), Some(other)), Some(late.clone()));
        }
        assert_eq!(newer(Some(late.clone()), None), Some(late.clone()));
        assert_eq!(newer(None, None), None);
        let query = CallQuery { id: "id-1".parse().unwrap(), function: None };
        let status = serde_json::to_value(status(&query, late)).unwrap();
        assert_eq!(
            [&status["state"], &status["status"], &status["attempt"], &status["duration"]],
            [&"done".into(), &404.into(), &3.into(), &"2ms".into()] as [&serde_json::Value; 4]
        );
        assert_eq!(status["function"], "figlet.dev");
        assert_eq!(status["finishedAt"], "2026-11-29T10:00:01Z");
        assert_eq!(status["submittedAt"], "1970-01-01T00:00:00Z");
    }
}
