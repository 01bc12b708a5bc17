//! What can be seen of a call, and of what is done to the system at the same time.

use std::{fmt, time::Duration};

use asyncqueue::{EndState, batch::BatchReport};

/// The number of a call in its run. Not its id: several calls may share one.
pub type CallNumber = u64;

/// The number of a batch in its run.
pub type BatchNumber = u64;

/// The number of a queue in its run.
pub type QueueNumber = usize;

/// The second life of a call, as a replayed dead letter, is a call of its own: its number is that
/// much higher.
pub const REPLAYED: CallNumber = 1 << 32;

/// Something that was seen, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Since the beginning of the run, by one clock for all.
    pub at: Duration,
    /// What was seen.
    pub what: What,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A step of one call.
    Step(CallNumber, Step),
    /// A step of one batch.
    Batch(BatchNumber, BatchStep),
    /// Something was done to the system.
    Fault {
        /// In words.
        name: String,
        /// What it excuses.
        excuse: Excuse,
        /// The only queue that it hits; `None`: all of them.
        queue: Option<QueueNumber>,
    },
    /// From now on, a queue has this total of open invocations. A lower one is recorded when all
    /// workers keep it.
    Concurrency {
        /// The queue.
        queue: QueueNumber,
        /// `concurrency`; `None`: there is no total.
        total: Option<u32>,
    },
    /// The process that records events was late by so much: it may have recorded what came before
    /// this too late.
    Late(Duration),
}

/// A step of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchStep {
    /// The client sent it, or sent it again.
    Submitted {
        /// Its calls, in the order of the lines.
        calls: Vec<CallNumber>,
        /// Whether it wants a callback.
        callback: bool,
    },
    /// The gateway answered with this status, or did not.
    Answered(Option<u16>),
    /// The gateway answered a request to cancel what has not ended of it.
    CancelAnswered {
        /// The status.
        status: u16,
        /// Of a 202: the calls that are cancelled, and those that had ended otherwise.
        counts: Option<(u64, u64)>,
    },
    /// The gateway answered where its calls are.
    Reported(BatchReport),
    /// When all calls had left their queues, the gateway answered where they were.
    ReportedLast(Option<BatchReport>),
    /// The receiver of callbacks got the report.
    CallbackReceived {
        /// The report.
        report: BatchReport,
        /// Whether the receiver took it; where not, it is sent again.
        taken: bool,
    },
}

/// What a fault excuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excuse {
    /// Nothing.
    None,
    /// A worker, or its lease, may have died at this moment.
    Once,
    /// From here on, workers or their leases may die.
    Begins,
    /// The same, since the only server is killed. It may have forgotten the deliveries of its last
    /// moment.
    BeginsKilled,
    /// The same, and nothing that the server does from here on may reach its disk: started again,
    /// it may have forgotten that a call has ended.
    BeginsUnwritten,
    /// Up to here.
    Ends,
    /// The consumer was deleted, and with it what was delivered how often.
    Forgets,
    /// From here on, other consumers may take the calls: what waits for its next attempt is queued
    /// again, with its attempts.
    BeginsRequeuing,
    /// The streams were deleted with what they held.
    Deletes,
}

/// A step of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The client sent it, or sent it again.
    Submitted {
        /// Whether it wants a callback.
        callback: bool,
        /// The queue that it belongs on.
        queue: QueueNumber,
        /// Whether other calls have the same id.
        shares_id: bool,
    },
    /// The client asks for its result to be kept.
    ResultWanted,
    /// The client wants it to run later.
    Delayed {
        /// It may not run before this time.
        due: Duration,
    },
    /// The gateway answered the client.
    Answered {
        /// 202: it is stored.
        status: u16,
        /// Whether the answer says when to try again.
        retry_after: bool,
    },
    /// The gateway's connection broke, or there was none: the client does not know whether the call
    /// is stored.
    Unanswered,
    /// The gateway let the client wait for longer than it may.
    Hung,
    /// The client had asked to wait for its result, and the call is stored. Recorded after
    /// [`Step::Answered`].
    WaitAnswered {
        /// When the client asked.
        asked: Duration,
        /// The result; `None`: the answer was 202.
        result: Option<SeenResult>,
    },
    /// The client asked for its cancellation.
    CancelSent,
    /// The gateway answered that: 202 is the promise that it does not start any more.
    CancelAnswered {
        /// The status.
        status: u16,
        /// Whether the answer says when to try again.
        retry_after: bool,
    },
    /// The gateway's connection broke: the client does not know whether it is cancelled.
    CancelUnanswered,
    /// The gateway answered where the call is.
    StatusAnswered {
        /// When the client asked.
        asked: Duration,
        /// What the answer was.
        reported: Reported,
    },
    /// The gateway answered what the result is.
    ResultRead {
        /// When the client asked.
        asked: Duration,
        /// What the answer was.
        read: ResultRead,
        /// Whether all calls had left their queues before the client asked.
        is_last: bool,
    },
    /// The function was called.
    Started {
        /// Which invocation of this call it is, from 1.
        run: u64,
    },
    /// The function answers.
    Returned {
        /// Which invocation.
        run: u64,
        /// Its status.
        status: u16,
    },
    /// The function breaks its answer off, as a crash does.
    Failed {
        /// Which invocation.
        run: u64,
    },
    /// The worker closed the connection before there was an answer.
    BrokenOff {
        /// Which invocation.
        run: u64,
    },
    /// The receiver of callbacks got a result.
    CallbackReceived {
        /// The status in it.
        status: u16,
        /// Whether the receiver took it; where not, it is sent again.
        taken: bool,
    },
    /// Its dead letter was replayed: what is seen of it from now on is of another call.
    Replayed,
    /// The last look found it still on its queue.
    LeftQueued,
    /// The last look found its result still on the way to the receiver.
    LeftResult,
    /// It was found among the dead letters.
    DeadLetter {
        /// When that was stored.
        stored: Duration,
    },
    /// The last look found its result among the dead letters: the receiver never took it.
    ResultDeadLetter,
}

/// Where a call is, as the gateway answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported {
    /// It is delayed, and not due.
    Scheduled,
    /// It was not delivered yet.
    Queued,
    /// It was delivered, and no worker says more.
    Delivered,
    /// An invocation runs.
    Running,
    /// It waits for its next attempt.
    Waiting,
    /// It ended with this status of its function.
    Done(u16),
    /// It is a dead letter.
    Dead,
    /// It was cancelled.
    Cancelled,
    /// It was too old.
    Expired,
    /// 404: nothing is known of it.
    Unknown,
    /// 503, or no answer at all.
    Unavailable,
    /// Another status, or any other state.
    Other(u16),
}

/// What the gateway answered to `GET /async-function/ID/result`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultRead {
    /// 200: the result.
    Kept(SeenResult),
    /// 202: the call has not ended.
    Pending,
    /// 410: it has ended, and its result is not kept.
    NotKept,
    /// 404: nothing is known of it.
    Unknown,
    /// 503, or no answer at all.
    Unavailable,
    /// Another status.
    Other(u16),
}

/// The result of a call, as its client got it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenResult {
    /// How the call ended.
    pub end: EndState,
    /// The status of the function.
    pub status: u16,
    /// Where the body is from.
    pub body: SeenBody,
}

/// Where the body of a result is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeenBody {
    /// The result has no body.
    Empty,
    /// It is what this invocation of the call answered.
    OfRun(u64),
    /// It is no response to this call.
    Foreign,
}

// === impl Reported ===

impl Reported {
    /// Reads the answer to `GET /async-function/ID`.
    #[must_use]
    pub fn of(status: u16, body: &[u8]) -> Self {
        match status {
            404 => return Self::Unknown,
            503 => return Self::Unavailable,
            200 => {}
            other => return Self::Other(other),
        }
        let call: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        match call["state"].as_str().unwrap_or_default() {
            "scheduled" => Self::Scheduled,
            "queued" => Self::Queued,
            "delivered" => Self::Delivered,
            "running" => Self::Running,
            "waiting" => Self::Waiting,
            "done" => {
                Self::Done(call["status"].as_u64().and_then(|s| s.try_into().ok()).unwrap_or(0))
            }
            "dead" => Self::Dead,
            "cancelled" => Self::Cancelled,
            "expired" => Self::Expired,
            _ => Self::Other(200),
        }
    }

    /// Whether this says that the call has not ended.
    #[must_use]
    pub fn is_pending(self) -> bool {
        matches!(
            self,
            Self::Scheduled | Self::Queued | Self::Delivered | Self::Running | Self::Waiting
        )
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step(_, step) => step.fmt(f),
            Self::Batch(batch, step) => write!(f, "-- batch {batch}: {step}"),
            Self::Fault { name, .. } => write!(f, "-- {name}"),
            Self::Concurrency { queue, total: Some(total) } => {
                write!(f, "-- queue {queue} has at most {total} invocations open")
            }
            Self::Concurrency { queue, total: None } => {
                write!(f, "-- queue {queue} has no total of invocations")
            }
            Self::Late(by) => write!(f, "-- the recorder was late by {} ms", by.as_millis()),
        }
    }
}

impl fmt::Display for BatchStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let write = |f: &mut fmt::Formatter<'_>, report: &BatchReport| {
            write!(f, "{}, {:?}", report.state, report.counts)
        };
        match self {
            Self::Submitted { calls, .. } => write!(f, "submitted with the calls {calls:?}"),
            Self::Answered(Some(status)) => write!(f, "answered {status}"),
            Self::Answered(None) => f.write_str("not answered"),
            Self::CancelAnswered { status, counts: Some((cancelled, ended)) } => {
                write!(f, "cancellation answered {status}: {cancelled} cancelled, {ended} ended")
            }
            Self::CancelAnswered { status, counts: None } => {
                write!(f, "cancellation answered {status}")
            }
            Self::ReportedLast(None) => f.write_str("not known at last"),
            Self::Reported(report) | Self::ReportedLast(Some(report)) => write(f, report),
            Self::CallbackReceived { report, taken } => {
                f.write_str(if *taken { "callback: " } else { "callback, not taken: " })?;
                write(f, report)
            }
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Submitted { callback, queue, shares_id } => {
                write!(f, "submitted to queue {queue}")?;
                f.write_str(if *callback { ", with a callback" } else { "" })?;
                f.write_str(if *shares_id { ", with a shared id" } else { "" })
            }
            Self::Answered { status, .. } => write!(f, "answered {status}"),
            Self::ResultWanted => f.write_str("its result is to be kept"),
            Self::Delayed { due } => write!(f, "not to run before {:.3} s", due.as_secs_f64()),
            Self::WaitAnswered { asked, result } => {
                write!(f, "waited since {:.3} s: ", asked.as_secs_f64())?;
                match result {
                    Some(result) => result.fmt(f),
                    None => f.write_str("no result"),
                }
            }
            Self::ResultRead { asked, read, is_last } => {
                let when = if *is_last { "at last" } else { "" };
                write!(f, "result asked {when} at {:.3} s: {read:?}", asked.as_secs_f64())
            }
            Self::Unanswered => f.write_str("not answered: the connection broke"),
            Self::Hung => f.write_str("not answered in time"),
            Self::CancelSent => f.write_str("cancellation sent"),
            Self::CancelAnswered { status, .. } => write!(f, "cancellation answered {status}"),
            Self::CancelUnanswered => {
                f.write_str("cancellation not answered: the connection broke")
            }
            Self::StatusAnswered { asked, reported } => {
                write!(f, "status asked at {:.3} s: {reported:?}", asked.as_secs_f64())
            }
            Self::Started { run } => write!(f, "invocation {run} started"),
            Self::Returned { run, status } => write!(f, "invocation {run} answered {status}"),
            Self::Failed { run } => write!(f, "invocation {run} broke its answer off"),
            Self::BrokenOff { run } => {
                write!(f, "invocation {run}: the worker closed the connection")
            }
            Self::CallbackReceived { status, taken: true } => write!(f, "callback with {status}"),
            Self::CallbackReceived { status, taken: false } => {
                write!(f, "callback with {status}, which its receiver did not take")
            }
            Self::Replayed => f.write_str("its dead letter is replayed"),
            Self::LeftQueued => f.write_str("last look: on its queue"),
            Self::LeftResult => f.write_str("last look: its result is on the way"),
            Self::DeadLetter { stored } => {
                write!(f, "found: a dead letter, stored at {:.3} s", stored.as_secs_f64())
            }
            Self::ResultDeadLetter => f.write_str("found: its result is a dead letter"),
        }
    }
}

impl fmt::Display for SeenResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { end, status, body } = self;
        write!(f, "{end} with status {status}, body {body:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_about_a_call_are_read() {
        let of = |body: &str| Reported::of(200, body.as_bytes());
        assert_eq!(of(r#"{"state":"queued","position":0}"#), Reported::Queued);
        assert_eq!(
            of(r#"{"state":"done","status":499,"callback":"pending"}"#),
            Reported::Done(499)
        );
        assert_eq!(of(r#"{"state":"expired"}"#), Reported::Expired);
        assert_eq!(of(r#"{"state":"scheduled","notBefore":"…"}"#), Reported::Scheduled);
        assert_eq!(of("no JSON"), Reported::Other(200));
        assert_eq!(Reported::of(404, b""), Reported::Unknown);
        assert_eq!(Reported::of(409, b""), Reported::Other(409));
    }
}
