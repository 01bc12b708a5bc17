//! Determines the state of a call from the streams themselves, without a database.
//!
//! A stored call is queued, or was delivered. For a delivered call, its worker is asked for details
//! over core NATS. A call that has ended leaves a record in one of three places: its result until
//! the client has it, its dead letter for as long as that is kept, and its tombstone for a day. A
//! call that ended well and has no callback leaves none, and is not known any more.

use std::time::Duration;

use async_nats::{
    HeaderMap as NatsHeaders,
    jetstream::{Context, message::StreamMessage},
};
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    GoDuration,
    consumer_progress::{self, Progress},
    end_state::EndState,
    locate::{Stored, Wanted},
    message::{callback::Callback, dead_letter, native},
    name::{FunctionName, QueueName},
    peek::{self, NatsError, ask_workers, last_message},
    stored_call::StoredCall,
    subject::{call_filter, function_of},
    timestamp::stored_at,
    tombstone::{self, Mark, Tombstone},
};

/// The status of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CallStatus {
    /// The call's id.
    pub call_id: String,
    /// Its function, `name.namespace`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// Its queue.
    pub queue: QueueName,
    /// The state of the call.
    #[serde(flatten)]
    pub state: State,
    /// When the gateway accepted the call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submitted_at: Option<Timestamp>,
    /// How long ago that was, in whole seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age: Option<GoDuration>,
    /// How many other calls with the id are stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub others: Option<u64>,
}

/// The state of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase", rename_all_fields = "camelCase")]
pub enum State {
    /// The call was not delivered yet.
    Queued {
        /// Maximum number of calls before it.
        #[serde(skip_serializing_if = "Option::is_none")]
        position: Option<u64>,
    },
    /// The call was delivered, and no worker reports more: it runs, or waits for its next attempt.
    Delivered,
    /// The call runs.
    Running {
        /// The worker that runs it.
        worker: String,
        /// Number of the attempt, from 1.
        attempt: u64,
        /// Maximum number of attempts.
        max_attempts: u64,
        /// When the attempt began.
        since: Timestamp,
        /// What its worker waits for, if it can't store the end of the call.
        #[serde(skip_serializing_if = "Option::is_none")]
        blocked: Option<String>,
    },
    /// An attempt failed, and there will be another.
    Waiting {
        /// Number of the attempt that failed, from 1.
        attempt: u64,
        /// Maximum number of attempts.
        max_attempts: u64,
        /// When the next attempt is due.
        next_attempt: Timestamp,
        /// How the attempt failed, if its worker reports that.
        #[serde(flatten, skip_serializing_if = "Option::is_none")]
        failure: Option<Failure>,
        /// Set if the platform failed and not the function, so that the invocation did not count as
        /// an attempt: until when such failures are not counted.
        #[serde(skip_serializing_if = "Option::is_none")]
        not_counted_until: Option<Timestamp>,
    },
    /// The call has run, and its result is on its way to the client.
    Done {
        /// The function's status.
        status: u16,
        /// Number of the attempt that ended it, from 1.
        attempt: u64,
        /// The state of the callback.
        callback: CallbackState,
    },
    /// The call is a dead letter.
    Dead {
        /// Why the call died.
        reason: String,
        /// Number of attempts.
        #[serde(skip_serializing_if = "Option::is_none")]
        attempt: Option<u64>,
        /// The function's last status.
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
        /// When the call died.
        since: Timestamp,
    },
    /// The call was cancelled.
    Cancelled {
        /// When the call was cancelled.
        since: Timestamp,
    },
    /// The call was older than its queue allows when it was delivered.
    Expired {
        /// When the expiry was noticed.
        since: Timestamp,
    },
}

/// How an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// The status of the function's response. If there was none, the status that represents that:
    /// 504 for the time limit, 503 for a function that could not be reached.
    pub last_status: u16,
    /// Why it failed, in a sentence, without any of the call's content.
    pub last_error: String,
}

/// The state of a callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CallbackState {
    /// The client does not have the result yet.
    Pending,
    /// The client did not accept the result, and it is a dead letter.
    Dead,
}

/// Returns the subject on which a queue's workers are asked for a call. The question is
/// [`StoredCall::encode`] of the call. The worker that has it answers with a [`WorkerReport`] in
/// JSON, and the others do not answer.
#[must_use]
pub fn question_subject(queue: &QueueName) -> String {
    format!("asyncqueue.status.{queue}")
}

/// A worker's report on a call that it runs, or has handed back for its next attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerReport {
    /// The worker's name, as in its statistics.
    pub worker: String,
    /// Number of the attempt that runs or has failed, from 1.
    pub attempt: u64,
    /// Maximum number of attempts.
    pub max_attempts: u64,
    /// What the worker does with the call.
    #[serde(flatten)]
    pub phase: Phase,
    /// What the worker waits for, if it can't store the end of the call. Absent before version 0.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked: Option<String>,
    /// How the last attempt failed, for a call that waits for its next one. Absent before version
    /// 0.2.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Set if the platform failed and not the function, so that the last invocation did not count
    /// as an attempt: until when such failures are not counted. Absent before version 0.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_counted_until: Option<Timestamp>,
}

/// What a worker does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "lowercase", rename_all_fields = "camelCase")]
pub enum Phase {
    /// The worker runs it.
    Running {
        /// When the attempt began.
        since: Timestamp,
    },
    /// The worker has handed it back after a failed attempt. Reported until the next attempt is
    /// due, and not after that.
    Waiting {
        /// When the next attempt is due.
        next_attempt: Timestamp,
    },
}

/// The end of a call, and when it ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) at: Timestamp,
    /// The call's sequence on its queue's stream, if the record contains it.
    pub(crate) sequence: Option<u64>,
    /// Whether only its tombstone is known.
    pub(crate) is_mark: bool,
    pub(crate) status: CallStatus,
}

// === impl CallStatus ===

impl CallStatus {
    pub(crate) fn new(
        call: &Wanted,
        queue: &QueueName,
        subject: Option<&str>,
        state: State,
    ) -> Self {
        Self {
            call_id: call.id.to_string(),
            function: subject.and_then(function_of).as_ref().map(FunctionName::to_string),
            queue: queue.clone(),
            state,
            submitted_at: None,
            age: None,
            others: None,
        }
    }

    fn submitted(mut self, at: Timestamp, now: Timestamp) -> Self {
        let age = Duration::try_from(now.duration_since(at)).unwrap_or_default();
        self.submitted_at = Some(at);
        self.age = Some(GoDuration(Duration::from_secs(age.as_secs())));
        self
    }
}

// === impl State ===

impl State {
    /// Returns the end state of the call, if it has ended.
    #[must_use]
    pub fn end(&self) -> Option<EndState> {
        match self {
            Self::Queued { .. } | Self::Delivered | Self::Running { .. } | Self::Waiting { .. } => {
                None
            }
            Self::Done { .. } => Some(EndState::Done),
            Self::Dead { .. } => Some(EndState::Dead),
            Self::Cancelled { .. } => Some(EndState::Cancelled),
            Self::Expired { .. } => Some(EndState::Expired),
        }
    }
}

impl From<WorkerReport> for State {
    fn from(report: WorkerReport) -> Self {
        let WorkerReport {
            worker,
            attempt,
            max_attempts,
            phase,
            blocked,
            failure,
            not_counted_until,
        } = report;
        match phase {
            Phase::Running { since } => {
                Self::Running { worker, attempt, max_attempts, since, blocked }
            }
            Phase::Waiting { next_attempt } => {
                Self::Waiting { attempt, max_attempts, next_attempt, failure, not_counted_until }
            }
        }
    }
}

/// Returns the status of a stored call.
pub async fn of_stored(
    js: &Context,
    wanted: &Wanted,
    stored: &Stored,
) -> Result<CallStatus, NatsError> {
    let Stored { place, message } = stored;
    let call = StoredCall { id: wanted.id.clone(), sequence: message.sequence };
    let (progress, tombstone) = futures::try_join!(
        consumer_progress::read(js, &place.entry.stream, &place.queue),
        tombstone::read(js, &place.queue, &call)
    )?;
    // A cancelled or expired call is stored until the program that ends it has finished. A call
    // that was delivered and is not certainly cancelled may end by itself.
    let queued = queued(progress, message.sequence);
    let is_open = tombstone.as_ref().is_some_and(|tombstone| {
        queued.is_none() && tombstone.mark == Mark::Cancelled { confirmed: false }
    });
    let mark = tombstone.filter(|_| !is_open).and_then(|tombstone| of_mark(&tombstone));
    let state = match (mark, queued) {
        (Some(state @ (State::Cancelled { .. } | State::Expired { .. })), _) | (_, Some(state)) => {
            state
        }
        (_, None) => ask(js, &place.queue, &call).await?,
    };
    let submitted_at = native::decode(&message.headers, Bytes::new())
        .map_or_else(|_| stored_at(message), |invocation| invocation.submitted_at);
    Ok(CallStatus::new(wanted, &place.queue, Some(&message.subject), state)
        .submitted(submitted_at, Timestamp::now()))
}

/// Returns the state of the call at a sequence, if it was not delivered yet.
fn queued(progress: Option<Progress>, sequence: u64) -> Option<State> {
    // Without a consumer, nothing is delivered.
    let Some(progress) = progress else { return Some(State::Queued { position: None }) };
    let distance = sequence.checked_sub(progress.delivered).filter(|distance| *distance > 0)?;
    // Calls that left the stream out of order leave gaps, so both are upper bounds.
    let position = (distance - 1).min(progress.pending.saturating_sub(1));
    Some(State::Queued { position: Some(position) })
}

async fn ask(js: &Context, queue: &QueueName, call: &StoredCall) -> Result<State, NatsError> {
    let report = worker_report(js, queue, call).await?;
    Ok(report.map_or(State::Delivered, State::from))
}

/// Returns the report of the worker that has a stored call; `None` if no worker reports that it has
/// it.
pub async fn worker_report(
    js: &Context,
    queue: &QueueName,
    call: &StoredCall,
) -> Result<Option<WorkerReport>, NatsError> {
    let question = call.encode().into();
    ask_workers(js.client(), question_subject(queue), question, |answer| {
        serde_json::from_slice(&answer.payload).ok()
    })
    .await
}

/// Returns the ends of a call that a queue's streams of results and of dead letters record.
pub(crate) async fn results(
    js: &Context,
    queue: QueueName,
    wanted: &Wanted,
) -> Result<Vec<Ended>, NatsError> {
    let (results, letters) = (queue.callback_stream(), queue.dead_letter_stream());
    let filter = |stream: &str| call_filter(stream, wanted.function.as_ref(), &wanted.id);
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
        result.and_then(|message| of_result(wanted, &queue, &message, CallbackState::Pending)),
    );
    if let Some(letter) = letter {
        if buried_subject(&letter.headers).starts_with(&format!("{results}.")) {
            // A result that the client did not accept. The call itself may be dead too, with an
            // earlier letter.
            let first = peek::first_message(js, &letters, &letter_filter).await?;
            let own = first.filter(|first| first.sequence != letter.sequence);
            ends.extend(of_result(wanted, &queue, &letter, CallbackState::Dead));
            ends.extend(
                own.map(|own| Ended { at: stored_at(&letter), ..of_letter(wanted, &queue, &own) }),
            );
        } else {
            ends.push(of_letter(wanted, &queue, &letter));
        }
    }
    Ok(ends)
}

/// Returns the end that the tombstone of a call records.
pub(crate) fn of_tombstone(wanted: &Wanted, tombstone: &Tombstone) -> Option<Ended> {
    let status = CallStatus::new(wanted, &tombstone.queue, None, of_mark(tombstone)?);
    Some(Ended { at: tombstone.at, sequence: Some(tombstone.call.sequence), is_mark: true, status })
}

/// Returns the end that a tombstone records.
fn of_mark(tombstone: &Tombstone) -> Option<State> {
    let since = tombstone.at;
    match tombstone.mark {
        Mark::Cancelled { .. } => Some(State::Cancelled { since }),
        Mark::Expired => Some(State::Expired { since }),
        Mark::Dead => {
            let reason = "its attempts are exhausted".to_owned();
            Some(State::Dead { reason, attempt: None, status: None, since })
        }
        Mark::Ended => None,
    }
}

/// Returns the end of the newest of the calls with one id, from all that is known of their ends. A
/// result or a dead letter says more than the tombstone of the same call: the client gets the
/// result that was stored first.
pub(crate) fn last_end(
    results: impl Iterator<Item = Ended>,
    marked: Option<Ended>,
) -> Option<Ended> {
    let last = results.max_by_key(|ended| ended.at);
    match (last, marked) {
        (Some(last), Some(marked)) if last.at < marked.at && last.sequence != marked.sequence => {
            Some(marked)
        }
        (last, marked) => last.or(marked),
    }
}

fn of_result(
    wanted: &Wanted,
    queue: &QueueName,
    message: &StreamMessage,
    callback: CallbackState,
) -> Option<Ended> {
    let result = Callback::decode(&message.headers, Bytes::new()).ok()?;
    let at = stored_at(message);
    let state = match result.end {
        EndState::Cancelled => State::Cancelled { since: at },
        EndState::Expired => State::Expired { since: at },
        EndState::Done | EndState::Dead => {
            State::Done { status: result.status, attempt: result.attempt, callback }
        }
    };
    let mut status = CallStatus::new(wanted, queue, None, state);
    status.function = Some(result.function.to_string());
    Some(Ended { at, sequence: Some(result.sequence), is_mark: false, status })
}

fn of_letter(wanted: &Wanted, queue: &QueueName, letter: &StreamMessage) -> Ended {
    let get = |name| letter.headers.get(name).map(async_nats::HeaderValue::as_str);
    let at = stored_at(letter);
    let state = State::Dead {
        reason: get(dead_letter::H_REASON).unwrap_or_default().to_owned(),
        attempt: get(dead_letter::H_ATTEMPTS).and_then(|text| text.parse().ok()),
        status: get(dead_letter::H_STATUS).and_then(|text| text.parse().ok()),
        since: at,
    };
    let mut status = CallStatus::new(wanted, queue, Some(&letter.subject), state);
    if let Ok(invocation) = native::decode(&letter.headers, Bytes::new()) {
        status = status.submitted(invocation.submitted_at, Timestamp::now());
    }
    Ended { at, sequence: dead_letter::sequence(&letter.headers), is_mark: false, status }
}

fn buried_subject(headers: &NatsHeaders) -> &str {
    headers.get(dead_letter::H_SUBJECT).map_or("", async_nats::HeaderValue::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_beyond_what_was_delivered_is_queued_and_so_is_one_without_a_consumer() {
        let (lease, now) = (Duration::from_secs(30), Timestamp::now());
        let at = |delivered, pending| Some(Progress { delivered, pending, lease, now });
        let position = |position| Some(State::Queued { position });
        assert_eq!(queued(None, 7), position(None));
        assert_eq!(queued(at(0, 3), 1), position(Some(0)));
        assert_eq!(queued(at(4, 9), 7), position(Some(2)));
        // Some of the calls before it have left the stream.
        assert_eq!(queued(at(4, 2), 700), position(Some(1)));
        assert_eq!(queued(at(7, 0), 7), None);
        assert_eq!(queued(at(9, 0), 7), None);
    }

    #[test]
    fn what_clients_read_and_what_workers_say_is_a_contract() {
        let now: Timestamp = "2026-11-24T10:11:12Z".parse().unwrap();
        let wanted = Wanted { id: "id-1".parse().unwrap(), function: None };
        let report = r#"{"worker":"w-1","attempt":2,"maxAttempts":10,"phase":"waiting","nextAttempt":"2026-11-24T10:11:20Z"}"#;
        let mut report: WorkerReport = serde_json::from_str(report).unwrap();
        assert_eq!(
            report.phase,
            Phase::Waiting { next_attempt: "2026-11-24T10:11:20Z".parse().unwrap() }
        );
        assert_eq!(report.failure, None, "as an earlier version says it");
        let queue = "jobs".parse().unwrap();
        let status = |report: WorkerReport| {
            let status =
                CallStatus::new(&wanted, &queue, Some("jobs.ns.figlet.id-1"), report.into())
                    .submitted("2026-11-24T10:11:10.5Z".parse().unwrap(), now);
            serde_json::to_string(&status).unwrap()
        };
        assert_eq!(
            status(report.clone()),
            r#"{"callId":"id-1","function":"figlet.ns","queue":"jobs","state":"waiting","attempt":2,"maxAttempts":10,"nextAttempt":"2026-11-24T10:11:20Z","submittedAt":"2026-11-24T10:11:10.5Z","age":"1s"}"#
        );
        let failure =
            Failure { last_status: 500, last_error: "the function answered 500".to_owned() };
        report.failure = Some(failure);
        let said = serde_json::to_string(&report).unwrap();
        assert_eq!(
            said,
            r#"{"worker":"w-1","attempt":2,"maxAttempts":10,"phase":"waiting","nextAttempt":"2026-11-24T10:11:20Z","lastStatus":500,"lastError":"the function answered 500"}"#
        );
        assert_eq!(serde_json::from_str::<WorkerReport>(&said).unwrap(), report);
        let shown = status(report);
        assert!(
            shown.contains(r#""lastStatus":500,"lastError":"the function answered 500""#),
            "{shown}"
        );
        let uncounted = r#"{"worker":"w-1","attempt":1,"maxAttempts":10,"phase":"waiting","nextAttempt":"2026-11-24T10:11:20Z","notCountedUntil":"2026-11-25T10:11:10Z"}"#;
        let uncounted: WorkerReport = serde_json::from_str(uncounted).unwrap();
        let state = serde_json::to_value(State::from(uncounted)).unwrap();
        assert_eq!(state["notCountedUntil"], "2026-11-25T10:11:10Z");
        let running = WorkerReport {
            worker: "w-1".to_owned(),
            attempt: 1,
            max_attempts: 10,
            phase: Phase::Running { since: now },
            blocked: None,
            failure: None,
            not_counted_until: None,
        };
        assert_eq!(
            serde_json::to_string(&running).unwrap(),
            r#"{"worker":"w-1","attempt":1,"maxAttempts":10,"phase":"running","since":"2026-11-24T10:11:12Z"}"#
        );
    }
}
