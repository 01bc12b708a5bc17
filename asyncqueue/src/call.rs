//! The model of calls: how a call is named and searched for, where it is, and its status.

use std::{
    fmt,
    hash::{Hash, Hasher},
    time::Duration,
};

use async_nats::jetstream::message::StreamMessage;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    call_id::CallId,
    directory::QueueEntry,
    duration::GoDuration,
    end_state::EndState,
    names::{FunctionName, QueueName},
    subject::parse_function,
};

pub use crate::end_state::CANCELLED_STATUS;

/// A stored call: its id, and its sequence on the queue's stream. Several calls may share an id,
/// but a sequence is one call, because streams are created with a first sequence that was never
/// used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallRef {
    /// The call's id.
    pub id: CallId,
    /// Its sequence.
    pub sequence: u64,
}

/// The call to find.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallQuery {
    /// Id of the call.
    pub id: CallId,
    /// Function of the call, if it is known.
    pub function: Option<FunctionName>,
}

/// A queue, and where its calls are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueLocation {
    /// Name of the queue.
    pub queue: QueueName,
    /// Stream and subject of the queue.
    pub entry: QueueEntry,
}

/// The queues that may have a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CandidateQueues {
    /// The queues that the id or the function names. Never empty.
    pub named: Vec<QueueLocation>,
    /// The other queues, which are asked if the named ones do not know the call: a client's own
    /// UUID may name a queue by chance.
    pub rest: Vec<QueueLocation>,
}

/// What is known of a call that was searched for.
#[derive(Debug)]
pub enum Lookup {
    /// The call is stored: queued, running, or waiting for its next attempt.
    Pending {
        /// The newest call with the id.
        newest: Box<PendingCall>,
        /// Number of other stored calls with the id.
        others: u64,
    },
    /// The call has ended, and its end is still known.
    Ended(CallStatus),
    /// The call is marked as cancelled, and a worker that has it may still run it, or end it in
    /// another way.
    Cancelling(CallStatus),
    /// Nothing is known of the call: it never existed, or its end is not known any more.
    NotFound,
}

/// A call on its queue's stream.
#[derive(Debug)]
pub struct PendingCall {
    /// The queue.
    pub location: QueueLocation,
    /// The call's message, as it was when it was found.
    pub message: StreamMessage,
}

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
    pub state: CallState,
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
pub enum CallState {
    /// The call was not delivered yet, or not since its queue has other consumers.
    Queued {
        /// Maximum number of calls before it.
        #[serde(skip_serializing_if = "Option::is_none")]
        position: Option<u64>,
    },
    /// The call is delayed, and not due yet.
    Scheduled {
        /// The call does not run before this time.
        not_before: Timestamp,
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
        failure: Option<AttemptFailure>,
        /// Set if the platform failed and not the function, so that the invocation did not count as
        /// an attempt: until when such failures are not counted.
        #[serde(skip_serializing_if = "Option::is_none")]
        not_counted_until: Option<Timestamp>,
    },
    /// The call has run.
    Done {
        /// The function's status.
        status: u16,
        /// Number of attempts.
        attempt: u64,
        /// How long the last attempt took, in whole milliseconds.
        duration: GoDuration,
        /// When the end of the call was stored.
        finished_at: Timestamp,
        /// The state of the callback, if it was not accepted yet.
        #[serde(skip_serializing_if = "Option::is_none")]
        callback: Option<CallbackState>,
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
pub struct AttemptFailure {
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

/// A worker's report on a call that it runs, or has handed back for its next attempt.
#[doc(hidden)]
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
    pub failure: Option<AttemptFailure>,
    /// Set if the platform failed and not the function, so that the last invocation did not count
    /// as an attempt: until when such failures are not counted. Absent before version 0.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_counted_until: Option<Timestamp>,
}

/// What a worker does with a call.
#[doc(hidden)]
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

/// The end of a call that has run, as its worker remembers it for some minutes.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RememberedEnd {
    /// The call's queue.
    pub queue: QueueName,
    /// The function that ran.
    pub function: FunctionName,
    /// The call's sequence on its queue's stream.
    pub sequence: u64,
    /// The function's status.
    pub status: u16,
    /// Number of attempts.
    pub attempt: u64,
    /// How long the last attempt took, in whole milliseconds.
    pub duration: GoDuration,
    /// When the gateway accepted the call.
    pub submitted_at: Timestamp,
    /// When the worker had stored what follows from the end.
    pub finished_at: Timestamp,
}

// === impl CallRef ===

impl Hash for CallRef {
    /// Hashes only the sequence, which distinguishes calls well enough.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.sequence.hash(state);
    }
}

impl CallRef {
    /// Encodes the call for a message to workers: its id and its sequence.
    #[doc(hidden)]
    #[must_use]
    pub fn encode(&self) -> String {
        format!("{} {}", self.id, self.sequence)
    }

    /// Reads what [`CallRef::encode`] wrote.
    #[doc(hidden)]
    #[must_use]
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let (id, sequence) = std::str::from_utf8(payload).ok()?.split_once(' ')?;
        Some(Self { id: id.parse().ok()?, sequence: sequence.parse().ok()? })
    }
}

// === impl CallQuery ===

impl CallQuery {
    /// Encodes the call for a question to workers: its id, and its function if that is known.
    #[doc(hidden)]
    #[must_use]
    pub fn encode(&self) -> String {
        match &self.function {
            Some(function) => format!("{} {function}", self.id),
            None => self.id.to_string(),
        }
    }

    /// Reads what [`CallQuery::encode`] wrote.
    #[doc(hidden)]
    #[must_use]
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(payload).ok()?;
        let (id, function) = text.split_once(' ').map_or((text, None), |(id, f)| (id, Some(f)));
        let function = function.map(|name| FunctionName::try_from(name.to_owned())).transpose();
        Some(Self { id: id.parse().ok()?, function: function.ok()? })
    }
}

// === impl CallStatus ===

impl CallStatus {
    pub(crate) fn new(
        call: &CallQuery,
        queue: &QueueName,
        subject: Option<&str>,
        state: CallState,
    ) -> Self {
        Self {
            call_id: call.id.to_string(),
            function: subject.and_then(parse_function).as_ref().map(FunctionName::to_string),
            queue: queue.clone(),
            state,
            submitted_at: None,
            age: None,
            others: None,
        }
    }

    pub(crate) fn submitted(mut self, at: Timestamp, now: Timestamp) -> Self {
        let age = Duration::try_from(now.duration_since(at)).unwrap_or_default();
        self.submitted_at = Some(at);
        self.age = Some(GoDuration(Duration::from_secs(age.as_secs())));
        self
    }
}

// === impl CallState ===

impl CallState {
    /// Returns the end state of the call, if it has ended.
    #[must_use]
    pub fn end(&self) -> Option<EndState> {
        match self {
            Self::Queued { .. }
            | Self::Scheduled { .. }
            | Self::Delivered
            | Self::Running { .. }
            | Self::Waiting { .. } => None,
            Self::Done { .. } => Some(EndState::Done),
            Self::Dead { .. } => Some(EndState::Dead),
            Self::Cancelled { .. } => Some(EndState::Cancelled),
            Self::Expired { .. } => Some(EndState::Expired),
        }
    }

    /// Returns the state of a call that has run: `duration` is rounded up to whole milliseconds.
    pub(crate) fn done(
        status: u16,
        attempt: u64,
        duration: Duration,
        finished_at: Timestamp,
        callback: Option<CallbackState>,
    ) -> Self {
        let duration = whole_millis(duration);
        Self::Done { status, attempt, duration, finished_at, callback }
    }

    /// Returns the state of a call that ended so at a time, and not by running; `None` if that
    /// takes a run.
    pub(crate) fn without_run(end: EndState, since: Timestamp) -> Option<Self> {
        match end {
            EndState::Done => None,
            EndState::Dead => {
                let reason = "its attempts are exhausted".to_owned();
                Some(Self::Dead { reason, attempt: None, status: None, since })
            }
            EndState::Cancelled => Some(Self::Cancelled { since }),
            EndState::Expired => Some(Self::Expired { since }),
        }
    }
}

/// Rounds a duration up to whole milliseconds.
#[doc(hidden)]
#[must_use]
pub fn whole_millis(duration: Duration) -> GoDuration {
    let millis = duration.as_micros().div_ceil(1_000).try_into().unwrap_or(u64::MAX);
    GoDuration(Duration::from_millis(millis))
}

/// The state in one line, for people.
impl fmt::Display for CallState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queued { position: None } => write!(f, "queued"),
            Self::Queued { position: Some(position) } => {
                write!(f, "queued, {position} calls before it")
            }
            Self::Scheduled { not_before } => {
                write!(f, "scheduled, does not run before {not_before:.0}")
            }
            Self::Delivered => write!(f, "running, or waiting for its next attempt"),
            Self::Running { worker, attempt, max_attempts, since, blocked } => {
                let blocked = blocked.as_ref().map(|why| format!("; {why}")).unwrap_or_default();
                write!(
                    f,
                    "running on {worker} since {since:.0}, attempt {attempt} of \
                     {max_attempts}{blocked}"
                )
            }
            Self::Waiting { attempt, max_attempts, next_attempt, failure, not_counted_until } => {
                let why = failure
                    .as_ref()
                    .map(|failure| format!(": {}", failure.last_error))
                    .unwrap_or_default();
                match not_counted_until {
                    Some(until) => write!(
                        f,
                        "waiting until {next_attempt:.0}: the platform failed, \
                         which does not count as an attempt until {until:.0}{why}"
                    ),
                    None => {
                        write!(
                            f,
                            "waiting until {next_attempt:.0}, attempt {attempt} of {max_attempts} \
                             failed{why}"
                        )
                    }
                }
            }
            Self::Done { status, attempt, duration, finished_at, callback } => {
                let callback = match callback {
                    None => "",
                    Some(CallbackState::Pending) => ", the callback is not delivered yet",
                    Some(CallbackState::Dead) => ", the callback failed and is a dead letter",
                };
                write!(
                    f,
                    "done with status {status} at {finished_at:.0}, attempt {attempt} took \
                     {duration}{callback}"
                )
            }
            Self::Dead { reason, since, .. } => write!(f, "dead since {since:.0}: {reason}"),
            Self::Cancelled { since } => write!(f, "cancelled at {since:.0}"),
            Self::Expired { since } => {
                write!(f, "expired at {since:.0}: older than the maximum age of its queue")
            }
        }
    }
}

impl From<WorkerReport> for CallState {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_read_as_it_is_written() {
        let call = CallRef { id: "id-1".parse().unwrap(), sequence: 7 };
        assert_eq!(call.encode(), "id-1 7");
        assert_eq!(CallRef::decode(b"id-1 7"), Some(call));
        for other in ["", "id-1", "id-1 x", "a.b 7", "id-1 7 8"] {
            assert_eq!(CallRef::decode(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_question_is_read_as_it_is_written() {
        let id: CallId = "id-1".parse().unwrap();
        for (function, text) in
            [(None, "id-1"), (Some(FunctionName::new("figlet", "dev").unwrap()), "id-1 figlet.dev")]
        {
            let query = CallQuery { id: id.clone(), function };
            assert_eq!(query.encode(), text);
            assert_eq!(CallQuery::decode(text.as_bytes()), Some(query));
        }
        for other in ["", "a.b", "id-1 ", "id-1 figlet", "id-1 a b", "id-1 figlet.dev "] {
            assert_eq!(CallQuery::decode(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn status_and_worker_reports_have_stable_json() {
        let now: Timestamp = "2026-11-24T10:11:12Z".parse().unwrap();
        let query = CallQuery { id: "id-1".parse().unwrap(), function: None };
        let report = concat!(
            r#"{"worker":"w-1","attempt":2,"maxAttempts":10,"phase":"waiting","#,
            r#""nextAttempt":"2026-11-24T10:11:20Z"}"#
        );
        let mut report: WorkerReport = serde_json::from_str(report).unwrap();
        assert_eq!(
            report.phase,
            Phase::Waiting { next_attempt: "2026-11-24T10:11:20Z".parse().unwrap() }
        );
        assert_eq!(report.failure, None, "as an earlier version says it");
        let queue = "jobs".parse().unwrap();
        let status = |report: WorkerReport| {
            let status =
                CallStatus::new(&query, &queue, Some("jobs.ns.figlet.id-1"), report.into())
                    .submitted("2026-11-24T10:11:10.5Z".parse().unwrap(), now);
            serde_json::to_string(&status).unwrap()
        };
        assert_eq!(
            status(report.clone()),
            concat!(
                r#"{"callId":"id-1","function":"figlet.ns","queue":"jobs","state":"waiting","#,
                r#""attempt":2,"maxAttempts":10,"nextAttempt":"2026-11-24T10:11:20Z","#,
                r#""submittedAt":"2026-11-24T10:11:10.5Z","age":"1s"}"#
            )
        );
        let failure =
            AttemptFailure { last_status: 500, last_error: "the function answered 500".to_owned() };
        report.failure = Some(failure);
        let said = serde_json::to_string(&report).unwrap();
        assert_eq!(
            said,
            concat!(
                r#"{"worker":"w-1","attempt":2,"maxAttempts":10,"phase":"waiting","#,
                r#""nextAttempt":"2026-11-24T10:11:20Z","lastStatus":500,"#,
                r#""lastError":"the function answered 500"}"#
            )
        );
        assert_eq!(serde_json::from_str::<WorkerReport>(&said).unwrap(), report);
        let shown = status(report);
        assert!(
            shown.contains(r#""lastStatus":500,"lastError":"the function answered 500""#),
            "{shown}"
        );
        let uncounted = concat!(
            r#"{"worker":"w-1","attempt":1,"maxAttempts":10,"phase":"waiting","#,
            r#""nextAttempt":"2026-11-24T10:11:20Z","notCountedUntil":"2026-11-25T10:11:10Z"}"#
        );
        let uncounted: WorkerReport = serde_json::from_str(uncounted).unwrap();
        let state = serde_json::to_value(CallState::from(uncounted)).unwrap();
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
            concat!(
                r#"{"worker":"w-1","attempt":1,"maxAttempts":10,"phase":"running","#,
                r#""since":"2026-11-24T10:11:12Z"}"#
            )
        );
    }

    #[test]
    fn waiting_call_shows_its_last_error() {
        let failure =
            AttemptFailure { last_status: 500, last_error: "the function answered 500".to_owned() };
        let waiting = |failure| CallState::Waiting {
            attempt: 1,
            max_attempts: 3,
            next_attempt: "2026-11-24T10:00:00.5Z".parse().unwrap(),
            failure,
            not_counted_until: None,
        };
        let texts = [None, Some(failure)].map(|failure| waiting(failure).to_string());
        assert_eq!(texts[0], "waiting until 2026-11-24T10:00:00Z, attempt 1 of 3 failed");
        assert_eq!(texts[1], format!("{}: the function answered 500", texts[0]));
    }
}
