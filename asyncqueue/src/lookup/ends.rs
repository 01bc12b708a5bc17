//! Reads how a call ended, from what it leaves.
//!
//! A call that has ended leaves a record in one of four places: its callback until the client has
//! it, its result for as long as that is kept, its dead letter too, and its tombstone for a day. A
//! call that ended well and has neither a callback nor a kept result leaves none: only its worker
//! remembers it, see [`super::remembered`].

use async_nats::{
    HeaderMap as NatsHeaders,
    jetstream::{Context, message::StreamMessage},
};
use bytes::Bytes;
use jiff::Timestamp;

use crate::{
    call::{CallQuery, CallState, CallStatus, CallbackState},
    end_state::EndState,
    headers::X_START_TIME,
    jetstream::{NatsError, first_message, last_message, stored_at},
    kept_results,
    message::{callback::Callback, dead_letter, kept_result::KeptResult, native},
    names::QueueName,
    subject::call_filter,
    tombstone::Tombstone,
};

/// The end of a call, and when it ended.
#[derive(Clone, Debug)]
pub(super) struct RecordedEnd {
    pub(super) at: Timestamp,
    /// The call's sequence on its queue's stream, if the record contains it.
    pub(super) sequence: Option<u64>,
    /// Whether only its tombstone is known.
    pub(super) is_tombstone: bool,
    pub(super) status: CallStatus,
}

/// Returns the ends of a call that a queue's streams of callbacks, of kept results and of dead
/// letters record.
pub(super) async fn recorded_ends(
    js: &Context,
    queue: QueueName,
    query: &CallQuery,
) -> Result<Vec<RecordedEnd>, NatsError> {
    let (results, letters) = (queue.callback_stream(), queue.dead_letter_stream());
    let filter = |stream: &str| call_filter(stream, query.function.as_ref(), &query.id);
    let (result_filter, letter_filter) = (filter(&results), filter(&letters));
    // The subject of a result ends with the sequence of its call, except in earlier versions.
    let keyed_filter = format!("{result_filter}.*");
    let (keyed, result, letter, kept) = futures::try_join!(
        last_message(js, &results, &keyed_filter),
        last_message(js, &results, &result_filter),
        last_message(js, &letters, &letter_filter),
        kept_results::newest(js, &queue, query)
    )?;
    let result = keyed.or(result);
    let mut ends = Vec::new();
    ends.extend(
        result.and_then(|message| from_result(query, &queue, &message, CallbackState::Pending)),
    );
    if let Some(letter) = letter {
        if original_subject(&letter.headers).starts_with(&format!("{results}.")) {
            // A result that the client did not accept. The call itself may be dead too, with an
            // earlier letter.
            let first = first_message(js, &letters, &letter_filter).await?;
            let own = first.filter(|first| first.sequence != letter.sequence);
            ends.extend(from_result(query, &queue, &letter, CallbackState::Dead));
            ends.extend(own.map(|own| RecordedEnd {
                at: stored_at(&letter),
                ..from_dead_letter(query, &queue, &own)
            }));
        } else {
            ends.push(from_dead_letter(query, &queue, &letter));
        }
    }
    // The other records of the same call say more.
    let kept = kept.filter(|(result, _)| {
        ends.iter().all(|end: &RecordedEnd| end.sequence != Some(result.sequence))
    });
    ends.extend(kept.and_then(|(result, at)| from_kept_result(query, &queue, &result, at)));
    Ok(ends)
}

/// Returns the end that the tombstone of a call records.
pub(super) fn from_tombstone(query: &CallQuery, tombstone: &Tombstone) -> Option<RecordedEnd> {
    let status = CallStatus::new(query, &tombstone.queue, None, tombstone.state()?);
    Some(RecordedEnd {
        at: tombstone.at,
        sequence: Some(tombstone.call.sequence),
        is_tombstone: true,
        status,
    })
}

/// Returns the end of the newest of the calls with one id, from all that is known of their ends. A
/// result or a dead letter says more than the tombstone of the same call: the client gets the
/// result that was stored first.
pub(super) fn newest_end(
    results: impl Iterator<Item = RecordedEnd>,
    marked: Option<RecordedEnd>,
) -> Option<RecordedEnd> {
    let last = results.max_by_key(|ended| ended.at);
    match (last, marked) {
        (Some(last), Some(marked)) if last.at < marked.at && last.sequence != marked.sequence => {
            Some(marked)
        }
        (last, marked) => last.or(marked),
    }
}

fn from_result(
    query: &CallQuery,
    queue: &QueueName,
    message: &StreamMessage,
    callback: CallbackState,
) -> Option<RecordedEnd> {
    let result = Callback::decode(&message.headers, Bytes::new()).ok()?;
    let at = stored_at(message);
    let state = match result.end {
        EndState::Done | EndState::Dead => {
            CallState::done(result.status, result.attempt, result.duration, at, Some(callback))
        }
        end => CallState::without_run(end, at)?,
    };
    let mut status = CallStatus::new(query, queue, None, state);
    status.function = Some(result.function.to_string());
    Some(RecordedEnd { at, sequence: Some(result.sequence), is_tombstone: false, status })
}

fn from_kept_result(
    query: &CallQuery,
    queue: &QueueName,
    result: &KeptResult,
    at: Timestamp,
) -> Option<RecordedEnd> {
    let KeptResult { end, status, attempt, duration, sequence, .. } = *result;
    let state = match (end, CallState::without_run(end, at)) {
        (EndState::Done, _) => CallState::done(status, attempt, duration, at, None),
        (EndState::Dead, Some(CallState::Dead { reason, since, .. })) => {
            CallState::Dead { reason, attempt: Some(attempt), status: Some(status), since }
        }
        (_, state) => state?,
    };
    let mut call = CallStatus::new(query, queue, None, state);
    call.function = Some(result.function.to_string());
    let start = result.headers.get(&X_START_TIME).and_then(|nanos| nanos.to_str().ok());
    let start = start.and_then(|nanos| nanos.parse().ok());
    if let Some(Ok(start)) = start.map(Timestamp::from_nanosecond) {
        call = call.submitted(start, Timestamp::now());
    }
    Some(RecordedEnd { at, sequence: Some(sequence), is_tombstone: false, status: call })
}

fn from_dead_letter(query: &CallQuery, queue: &QueueName, letter: &StreamMessage) -> RecordedEnd {
    let get = |name| letter.headers.get(name).map(async_nats::HeaderValue::as_str);
    let at = stored_at(letter);
    let state = CallState::Dead {
        reason: get(dead_letter::H_REASON).unwrap_or_default().to_owned(),
        attempt: get(dead_letter::H_ATTEMPTS).and_then(|text| text.parse().ok()),
        status: get(dead_letter::H_STATUS).and_then(|text| text.parse().ok()),
        since: at,
    };
    let mut status = CallStatus::new(query, queue, Some(&letter.subject), state);
    if let Ok(invocation) = native::decode(&letter.headers, Bytes::new()) {
        status = status.submitted(invocation.submitted_at, Timestamp::now());
    }
    RecordedEnd {
        at,
        sequence: dead_letter::original_sequence(&letter.headers),
        is_tombstone: false,
        status,
    }
}

fn original_subject(headers: &NatsHeaders) -> &str {
    headers.get(dead_letter::H_SUBJECT).map_or("", async_nats::HeaderValue::as_str)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Invocation, names::FunctionName};

    fn kept(end: EndState, status: u16) -> KeptResult {
        let function = FunctionName::new("figlet", "dev").unwrap();
        let call = Invocation::new("id-1".parse().unwrap(), function, "");
        KeptResult {
            attempt: 2,
            duration: Duration::from_micros(1_200),
            ..KeptResult::new(&call, 7, end, status)
        }
    }

    #[test]
    fn kept_result_says_how_its_call_ended() {
        let query = CallQuery { id: "id-1".parse().unwrap(), function: None };
        let queue = "jobs".parse().unwrap();
        let at: Timestamp = "2026-11-29T10:00:00Z".parse().unwrap();
        let status = |result: &KeptResult| {
            let recorded = from_kept_result(&query, &queue, result, at).unwrap();
            assert_eq!((recorded.sequence, recorded.is_tombstone), (Some(7), false));
            recorded.status
        };
        let mut done = kept(EndState::Done, 201);
        let submitted: Timestamp = "2026-11-29T09:00:00Z".parse().unwrap();
        let nanos = submitted.as_nanosecond().to_string();
        done.headers.insert(X_START_TIME, nanos.parse().unwrap());
        let status_of_done = status(&done);
        assert_eq!(status_of_done.submitted_at, Some(submitted));
        assert_eq!(status_of_done.function.as_deref(), Some("figlet.dev"));
        let expected = CallState::done(201, 2, Duration::from_millis(2), at, None);
        assert_eq!(status_of_done.state, expected);
        let json = serde_json::to_value(&status_of_done).unwrap();
        assert_eq!((&json["duration"], &json["attempt"]), (&"2ms".into(), &2.into()));
        assert_eq!(
            (&json["finishedAt"], json.get("callback")),
            (&"2026-11-29T10:00:00Z".into(), None)
        );

        let dead = status(&kept(EndState::Dead, 500)).state;
        let CallState::Dead { attempt, status: code, since, .. } = dead else { panic!("{dead:?}") };
        assert_eq!((attempt, code, since), (Some(2), Some(500), at));
        assert_eq!(status(&kept(EndState::Expired, 504)).state, CallState::Expired { since: at });
        let cancelled = status(&kept(EndState::Cancelled, 499)).state;
        assert_eq!(cancelled, CallState::Cancelled { since: at });
    }
}
