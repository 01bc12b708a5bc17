//! Reads how a call ended, from what it leaves.
//!
//! A call that has ended leaves a record in one of three places: its result until the client has
//! it, its dead letter for as long as that is kept, and its tombstone for a day. A call that ended
//! well and has no callback leaves none, and is not known any more.

use async_nats::{
    HeaderMap as NatsHeaders,
    jetstream::{Context, message::StreamMessage},
};
use bytes::Bytes;
use jiff::Timestamp;

use crate::{
    call::{CallQuery, CallState, CallStatus, CallbackState},
    end_state::EndState,
    jetstream::{NatsError, first_message, last_message, stored_at},
    message::{callback::Callback, dead_letter, native},
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

/// Returns the ends of a call that a queue's streams of results and of dead letters record.
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
    let (keyed, result, letter) = futures::try_join!(
        last_message(js, &results, &keyed_filter),
        last_message(js, &results, &result_filter),
        last_message(js, &letters, &letter_filter)
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
            CallState::Done { status: result.status, attempt: result.attempt, callback }
        }
        end => CallState::without_run(end, at)?,
    };
    let mut status = CallStatus::new(query, queue, None, state);
    status.function = Some(result.function.to_string());
    Some(RecordedEnd { at, sequence: Some(result.sequence), is_tombstone: false, status })
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
