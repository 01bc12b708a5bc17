//! Records how the calls of a batch end, and reports the end of the batch.

use async_nats::jetstream::{Context, message::PublishMessage};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use tracing::warn;

use super::{
    BatchId, BatchMember, BatchRecord, BatchReport, CallEnd, EndRecord, OnFailure,
    removed::stream_exists,
    storage::{self, Written},
};
use crate::{
    call::CallRef,
    end_state::EndState,
    headers::X_BATCH_ID,
    invocation::{CallbackUrl, Invocation},
    jetstream::NatsError,
    message::callback::Callback,
    publish_failure::PublishFailure,
    subject::result_subject,
};

/// The status that the callback of a batch reports. It says nothing of its calls.
const CALLBACK_STATUS: u16 = 200;

/// What the end of a call means for its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndEffect {
    /// Nothing more.
    None,
    /// The calls that have not ended are to be cancelled.
    CancelRest,
}

/// Records how a call of a batch has ended, unless it has an end, and reports the end of the batch
/// if this was the last call. A repeat is safe, and needed if this failed.
pub async fn record_end(
    js: &Context,
    member: &BatchMember,
    call: &CallRef,
    end: CallEnd,
    status: u16,
) -> Result<EndEffect, NatsError> {
    let (id, call_id) = (&member.id, call.id.as_str());
    let record = EndRecord { sequence: call.sequence, end, status: Some(status) };
    let end = match storage::write_end(js, id, call_id, &record).await? {
        Written::Now => end,
        Written::Before => match storage::read_end(js, id, call_id).await? {
            // An earlier attempt to record this end, of which not all was done.
            Some(before) if before.sequence == call.sequence => before.end,
            // The call is a replay, or the batch has ended.
            _ => return Ok(EndEffect::None),
        },
    };
    let counted = storage::count_end(js, id, &call.id, call.sequence).await?;
    if may_be_last(counted, member.size) && finish_if_complete(js, id).await? {
        return Ok(EndEffect::None);
    }
    if end.is_failure()
        && let Some((record, ..)) = storage::read_record(js, id).await?
        && record.on_failure == OnFailure::Cancel
    {
        return Ok(EndEffect::CancelRest);
    }
    Ok(EndEffect::None)
}

/// Returns whether the end of a call may be the last one of its batch, given how many ends were
/// counted. If it was counted before, the earlier attempt may have failed after that.
fn may_be_last(counted: Option<usize>, size: usize) -> bool {
    counted.is_none_or(|counted| counted >= size)
}

/// Reports the end of a batch if each of its calls has ended. Returns whether it has ended.
pub(crate) async fn finish_if_complete(js: &Context, id: &BatchId) -> Result<bool, NatsError> {
    let Some((record, sequence, _)) = storage::read_record(js, id).await? else { return Ok(true) };
    let ends = storage::read_ends(js, id, &record.calls).await?;
    if ends.iter().any(Option::is_none) {
        return Ok(false);
    }
    let report = BatchReport::new(id, &record, &ends);
    publish_callback(js, id, &record, sequence, &report).await?;
    storage::write_ended(js, id, &report, &record.digest).await?;
    storage::remove_open(js, id).await?;
    Ok(true)
}

/// Stores the report for delivery, as the result of a call is stored. It is stored once, since its
/// message id is that of the batch.
async fn publish_callback(
    js: &Context,
    id: &BatchId,
    record: &BatchRecord,
    sequence: u64,
    report: &BatchReport,
) -> Result<(), NatsError> {
    let Some(callback) = callback(id, record, sequence) else { return Ok(()) };
    let store = async |report: &BatchReport| {
        let body = serde_json::to_vec(report)
            .map_err(NatsError::during("write the callback of a batch"))?;
        let subject =
            result_subject(&record.queue, &callback.function, &callback.call_id, sequence);
        let message = PublishMessage::build().headers(callback.encode()).payload(Bytes::from(body));
        let stored = async { js.send_publish(subject, message).await?.await };
        stored.await.map(drop).map_err(NatsError::during("store the callback of a batch"))
    };
    let stored = match store(report).await {
        Err(error) if storage::is_too_large(&error) => store(&report.clone().without_calls()).await,
        stored => stored,
    };
    match stored {
        Err(error)
            if PublishFailure::from_error(&error) == PublishFailure::NoStream
                && is_queue_deleted(js, record).await? =>
        {
            let queue = &record.queue;
            warn!(batch = %id, %queue, "no callback is sent for a batch: its queue was deleted");
            Ok(())
        }
        stored => stored,
    }
}

/// Returns whether neither the calls of a batch nor its callback have a stream. A stream without a
/// leader exists.
async fn is_queue_deleted(js: &Context, record: &BatchRecord) -> Result<bool, NatsError> {
    Ok(!stream_exists(js, &record.stream).await?
        && !stream_exists(js, &record.queue.callback_stream()).await?)
}

/// Returns the callback of a batch without its body; `None` if the client wants none. It names the
/// function of the first call, since a result has a function.
fn callback(id: &BatchId, record: &BatchRecord, sequence: u64) -> Option<Callback> {
    let url = CallbackUrl::parse(record.callback_url.as_ref()?).ok()?;
    let function = record.calls.first()?.function.clone();
    let stand_in =
        Invocation { depth: record.depth, ..Invocation::new(id.clone(), function, Bytes::new()) };
    let json = HeaderValue::from_static("application/json");
    let id_value = HeaderValue::from_str(id.as_str()).ok()?;
    Some(Callback {
        headers: HeaderMap::from_iter([(header::CONTENT_TYPE, json), (X_BATCH_ID, id_value)]),
        ..Callback::new(&stand_in, url, sequence, EndState::Done, CALLBACK_STATUS)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{batch::MemberCall, names::FunctionName};

    #[test]
    fn only_the_last_end_reads_the_others() {
        assert!(!may_be_last(Some(1), 2) && !may_be_last(Some(999), 1_000));
        assert!(may_be_last(Some(2), 2) && may_be_last(Some(3), 2) && may_be_last(None, 2));
    }

    #[test]
    fn callback_of_a_batch_has_its_id() {
        let record = BatchRecord {
            queue: "jobs".parse().unwrap(),
            stream: "jobs".to_owned(),
            subject: "jobs".to_owned(),
            digest: String::new(),
            callback_url: Some("http://h/cb".to_owned()),
            on_failure: OnFailure::Continue,
            depth: 2,
            submitted_at: jiff::Timestamp::UNIX_EPOCH,
            calls: vec![MemberCall {
                call_id: "c".to_owned(),
                function: FunctionName::new("f", "ns").unwrap(),
            }],
        };
        let id: BatchId = "b-1".parse().unwrap();
        let callback = |record: &BatchRecord| callback(&id, record, 7);
        let with_url = callback(&record).unwrap();
        assert_eq!(with_url.event_id(), "b-1_7_done");
        assert_eq!((with_url.depth, with_url.function.to_string()), (2, "f.ns".to_owned()));
        assert_eq!(with_url.headers["x-batch-id"], "b-1");
        assert_eq!(callback(&BatchRecord { callback_url: None, ..record }), None);
    }
}
