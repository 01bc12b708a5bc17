//! What is stored of a batch, and what follows from it. Pure.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::BatchId;
use crate::{
    end_state::EndState,
    names::{FunctionName, QueueName},
};

/// The first status of a response that counts as a failure.
const FIRST_FAILURE: u16 = 400;

/// What happens to the rest of a batch when one of its calls fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// The other calls continue.
    #[default]
    Continue,
    /// The calls that have not ended are cancelled.
    Cancel,
}

/// How a call of a batch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallEnd {
    /// The function answered with a status below 400.
    Done,
    /// The function answered with a status from 400 on that is not retried.
    Failed,
    /// The attempts of the call are exhausted.
    Dead,
    /// The call was cancelled, or its queue was deleted.
    Cancelled,
    /// The call was older than its queue allows when it was delivered.
    Expired,
    /// The call has left its queue and its end was not recorded, or it had not ended at the
    /// deadline of the batch.
    Unknown,
}

/// A call of a batch, as it was submitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberCall {
    /// The call's id.
    pub call_id: String,
    /// Its function.
    pub function: FunctionName,
}

/// A batch, as it was submitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchRecord {
    /// The queue of all calls.
    pub queue: QueueName,
    /// Name of the queue's stream.
    pub stream: String,
    /// Subject below which the calls are stored.
    pub subject: String,
    /// Digest of what the client submitted, by which a repeat is recognised.
    pub digest: String,
    /// The URL that gets the report, with credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback_url: Option<String>,
    /// What happens to the rest when a call fails.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// How many calls precede those of the batch in their chain.
    #[serde(default)]
    pub depth: u32,
    /// When the gateway accepted the batch.
    pub submitted_at: Timestamp,
    /// The calls, in the order of the request.
    pub calls: Vec<MemberCall>,
}

/// How a call of a batch ended, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndRecord {
    /// The call's sequence on the queue's stream. 0 if it is not known.
    pub sequence: u64,
    /// How the call ended.
    pub end: CallEnd,
    /// The status of the function's last response, or the one that represents its failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
}

/// Numbers of calls by their state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Calls that have not ended.
    pub pending: usize,
    /// See [`CallEnd::Done`].
    pub done: usize,
    /// See [`CallEnd::Failed`].
    pub failed: usize,
    /// See [`CallEnd::Dead`].
    pub dead: usize,
    /// See [`CallEnd::Cancelled`].
    pub cancelled: usize,
    /// See [`CallEnd::Expired`].
    pub expired: usize,
    /// See [`CallEnd::Unknown`].
    pub unknown: usize,
}

/// A call of a batch, as clients see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CallReport {
    /// The call's id and function.
    #[serde(flatten)]
    pub call: MemberCall,
    /// How it ended; `pending` if it has not ended.
    pub state: String,
    /// The status of the function's last response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
}

/// A batch, as clients see it: the body of its callback, and of the response to `GET`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchReport {
    /// The batch's id.
    pub batch_id: String,
    /// The queue of all calls.
    pub queue: QueueName,
    /// `pending`, or `ended`.
    pub state: String,
    /// Number of calls.
    pub total: usize,
    /// Numbers of calls by their state.
    pub counts: Counts,
    /// When the gateway accepted the batch.
    pub submitted_at: Timestamp,
    /// The calls, in the order of the request. Left out where they do not fit into a message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<Vec<CallReport>>,
}

// === impl CallEnd ===

impl CallEnd {
    /// Returns the end of a call of a batch, from its end state and the status of its result.
    #[must_use]
    pub fn new(end: EndState, status: u16) -> Self {
        match end {
            EndState::Done if status < FIRST_FAILURE => Self::Done,
            EndState::Done => Self::Failed,
            EndState::Dead => Self::Dead,
            EndState::Cancelled => Self::Cancelled,
            EndState::Expired => Self::Expired,
        }
    }

    /// Returns whether `onFailure=cancel` cancels the rest of the batch after this end.
    #[must_use]
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::Dead | Self::Expired)
    }

    /// Returns the end as reports spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Unknown => "unknown",
        }
    }
}

// === impl Counts ===

impl Counts {
    /// Counts a call, `None` if it has not ended.
    fn add(&mut self, end: Option<CallEnd>) {
        let count = match end {
            None => &mut self.pending,
            Some(CallEnd::Done) => &mut self.done,
            Some(CallEnd::Failed) => &mut self.failed,
            Some(CallEnd::Dead) => &mut self.dead,
            Some(CallEnd::Cancelled) => &mut self.cancelled,
            Some(CallEnd::Expired) => &mut self.expired,
            Some(CallEnd::Unknown) => &mut self.unknown,
        };
        *count += 1;
    }
}

/// The numbers that are not 0, in one line, for people.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pending, done, failed, dead, cancelled, expired, unknown } = *self;
        let counts = [
            (pending, "pending"),
            (done, CallEnd::Done.as_str()),
            (failed, CallEnd::Failed.as_str()),
            (dead, CallEnd::Dead.as_str()),
            (cancelled, CallEnd::Cancelled.as_str()),
            (expired, CallEnd::Expired.as_str()),
            (unknown, CallEnd::Unknown.as_str()),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        let texts: Vec<_> = counts.map(|(count, state)| format!("{count} {state}")).collect();
        f.write_str(&texts.join(", "))
    }
}

// === impl BatchReport ===

impl BatchReport {
    /// Describes a batch. `ends` are those of its calls, in their order.
    #[must_use]
    pub fn new(id: &BatchId, record: &BatchRecord, ends: &[Option<EndRecord>]) -> Self {
        let mut counts = Counts::default();
        for end in ends {
            counts.add(end.as_ref().map(|end| end.end));
        }
        let calls = record.calls.iter().zip(ends).map(|(call, end)| CallReport {
            call: call.clone(),
            state: end.as_ref().map_or("pending", |end| end.end.as_str()).to_owned(),
            status: end.as_ref().and_then(|end| end.status),
        });
        Self {
            batch_id: id.to_string(),
            queue: record.queue.clone(),
            state: if counts.pending > 0 { "pending" } else { "ended" }.to_owned(),
            total: record.calls.len(),
            counts,
            submitted_at: record.submitted_at,
            calls: Some(calls.collect()),
        }
    }

    /// Returns the report without its calls, for messages that they do not fit into.
    #[must_use]
    pub fn without_calls(self) -> Self {
        Self { calls: None, ..self }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [CallEnd; 6] = [
        CallEnd::Done,
        CallEnd::Failed,
        CallEnd::Dead,
        CallEnd::Cancelled,
        CallEnd::Expired,
        CallEnd::Unknown,
    ];

    fn record(calls: usize) -> BatchRecord {
        BatchRecord {
            queue: "jobs".parse().unwrap(),
            stream: "jobs".to_owned(),
            subject: "jobs".to_owned(),
            digest: "d".to_owned(),
            callback_url: None,
            on_failure: OnFailure::Continue,
            depth: 0,
            submitted_at: "2026-11-29T10:11:12Z".parse().unwrap(),
            calls: (0..calls)
                .map(|n| MemberCall {
                    call_id: format!("c-{n}"),
                    function: FunctionName::new("f", "ns").unwrap(),
                })
                .collect(),
        }
    }

    #[test]
    fn done_call_with_an_error_status_has_failed() {
        assert_eq!(CallEnd::new(EndState::Done, 200), CallEnd::Done);
        assert_eq!(CallEnd::new(EndState::Done, 399), CallEnd::Done);
        assert_eq!(CallEnd::new(EndState::Done, 400), CallEnd::Failed);
        assert_eq!(CallEnd::new(EndState::Dead, 500), CallEnd::Dead);
        let failures = ALL.into_iter().filter(|end| end.is_failure()).collect::<Vec<_>>();
        assert_eq!(failures, [CallEnd::Failed, CallEnd::Dead, CallEnd::Expired]);
    }

    #[test]
    fn ends_are_written_as_reports_spell_them() {
        for end in ALL {
            assert_eq!(serde_json::to_value(end).unwrap(), end.as_str());
        }
        let end = EndRecord { sequence: 7, end: CallEnd::Unknown, status: None };
        assert_eq!(serde_json::to_string(&end).unwrap(), r#"{"sequence":7,"end":"unknown"}"#);
    }

    #[test]
    fn report_is_as_the_documents_say() {
        let end = EndRecord { sequence: 7, end: CallEnd::Done, status: Some(200) };
        let report = BatchReport::new(&"b-1".parse().unwrap(), &record(2), &[Some(end), None]);
        assert_eq!(
            serde_json::to_value(&report).unwrap(),
            serde_json::json!({
                "batchId": "b-1", "queue": "jobs", "state": "pending", "total": 2,
                "counts": {
                    "pending": 1, "done": 1, "failed": 0, "dead": 0, "cancelled": 0, "expired": 0,
                    "unknown": 0,
                },
                "submittedAt": "2026-11-29T10:11:12Z",
                "calls": [
                    {"callId": "c-0", "function": "f.ns", "state": "done", "status": 200},
                    {"callId": "c-1", "function": "f.ns", "state": "pending"},
                ],
            })
        );
        let json = serde_json::to_vec(&report).unwrap();
        assert_eq!(serde_json::from_slice::<BatchReport>(&json).unwrap(), report);
        assert_eq!(report.without_calls().calls, None);
    }

    proptest! {
        #[test]
        fn counts_add_up_to_the_total(ends in prop::collection::vec(0_usize..7, 0..50)) {
            let ends: Vec<_> = ends.into_iter().map(|n| ALL.get(n).copied()).collect();
            let records: Vec<_> = ends
                .iter()
                .map(|end| end.map(|end| EndRecord { sequence: 1, end, status: None }))
                .collect();
            let report =
                BatchReport::new(&"b".parse().unwrap(), &record(ends.len()), &records);
            let Counts { pending, done, failed, dead, cancelled, expired, unknown } =
                report.counts;
            let sum = pending + done + failed + dead + cancelled + expired + unknown;
            prop_assert_eq!(sum, report.total);
            prop_assert_eq!(report.state == "ended", ends.iter().all(Option::is_some));
        }
    }
}
