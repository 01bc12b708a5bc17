//! Stores dead letters: one for each call and sequence, no matter which program stores it and how
//! often.
//!
//! A worker may die after it stored a dead letter and before it acknowledged the call. The next
//! worker may get the call after the stream has forgotten the message id. So the letters on the
//! subject are read first, and the letter is stored only if no other letter was stored there since
//! then.

use async_nats::{
    HeaderMap as NatsHeaders,
    header::NATS_MESSAGE_ID,
    jetstream::{Context, message::PublishMessage},
};
use bytes::Bytes;

use crate::{
    jetstream::{NatsError, last_message, next_message},
    publish_failure::PublishFailure,
};

/// Maximum number of attempts to store a letter, each of which found that another letter was just
/// stored on the subject.
const MAX_CAS_ATTEMPTS: usize = 10;

/// Maximum number of letters on one subject that are read: as many calls with one id may have died.
const MAX_LETTERS: usize = 1_000;

/// What the stream of dead letters holds on a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExistingLetters {
    /// This letter.
    Same,
    /// Other letters, with the sequence of the last one. 0: no letter.
    Others(u64),
}

/// Stores a dead letter on a subject of this stream, unless it is there already. `message_id`
/// identifies the call and its sequence ([`crate::message::dead_letter::message_id`]).
pub async fn store_once(
    js: &Context,
    stream: &str,
    subject: &str,
    message_id: &str,
    headers: NatsHeaders,
    payload: Bytes,
) -> Result<(), NatsError> {
    let to_error = NatsError::during("store the dead letter");
    let mut attempts = 0;
    loop {
        attempts += 1;
        let ExistingLetters::Others(last) = find(js, stream, subject, message_id).await? else {
            return Ok(());
        };
        let letter = PublishMessage::build()
            .headers(headers.clone())
            .payload(payload.clone())
            .message_id(message_id)
            .expected_last_subject_sequence(last);
        let stored = async { js.send_publish(subject.to_owned(), letter).await?.await };
        match stored.await {
            Ok(_) => return Ok(()),
            Err(error)
                if attempts < MAX_CAS_ATTEMPTS
                    && PublishFailure::from_error(&error).is_conflict_or_in_process() => {}
            Err(error) => return Err(to_error(error)),
        }
    }
}

/// Searches the letters on a subject for one.
async fn find(
    js: &Context,
    stream: &str,
    subject: &str,
    message_id: &str,
) -> Result<ExistingLetters, NatsError> {
    let is_same = |headers: &NatsHeaders| {
        headers.get(NATS_MESSAGE_ID).is_some_and(|found| found.as_str() == message_id)
    };
    let Some(last) = last_message(js, stream, subject).await? else {
        return Ok(ExistingLetters::Others(0));
    };
    if is_same(&last.headers) {
        return Ok(ExistingLetters::Same);
    }
    let mut next = 1;
    for _ in 0..MAX_LETTERS {
        match next_message(js, stream, subject, next).await? {
            Some(letter) if letter.sequence >= last.sequence => break,
            Some(letter) if is_same(&letter.headers) => return Ok(ExistingLetters::Same),
            Some(letter) => next = letter.sequence + 1,
            None => break,
        }
    }
    Ok(ExistingLetters::Others(last.sequence))
}
