//! Stores one message in AsyncQueue, exactly once.

use anyhow::{Context as _, bail};
use async_nats::{
    HeaderMap as NatsHeaders,
    jetstream::{Context, stream::RawMessageErrorKind},
};
use asyncqueue::{
    FunctionName, IdempotencyKey, Invocation, QueueName,
    directory::QueueRoute,
    message::{self, DecodeError, Fallback, native},
    subject::call_subject,
    submit::{SubmitError, SubmitOutcome, Submitter},
};
use jiff::Timestamp;

use super::{
    Common,
    counts::TransferOutcome,
    dead_letter::NewDeadLetter,
    destination::{Destination, Destinations, StreamId},
    identity::{MessageIdentity, SourceId},
    records::{StoredAs, TransferRecords, TransferState},
    resubmission::{self, NextStep},
    retry::Retry,
    source::Message,
};
use crate::session::{NATS_TIMEOUT, Session};

/// Why a message that may have been stored becomes a dead letter.
const UNCERTAIN_REASON: &str = "a drain was interrupted while it stored this call, and was run \
                                again after the duplicate window: the call may have run; replay \
                                it if it has not";

/// Stores the messages of a source.
#[derive(Debug)]
pub(super) struct Transfer {
    js: Context,
    submitter: Submitter,
    records: TransferRecords,
    retry: Retry,
    destinations: Destinations,
    source_id: SourceId,
    namespace: String,
}

// === impl Transfer ===

impl Transfer {
    /// Prepares to store the messages of `source_id`. `source` is its stream if it is a JetStream
    /// stream.
    pub(super) async fn open(
        session: &Session,
        common: &Common,
        source_id: SourceId,
        source: Option<StreamId>,
    ) -> anyhow::Result<Self> {
        let js = session.js.clone();
        Ok(Self {
            submitter: Submitter::new(js.clone(), NATS_TIMEOUT),
            records: TransferRecords::open(&js).await?,
            retry: Retry::new(js.client()),
            destinations: Destinations::open(&js, common, source).await?,
            namespace: common.routing.function_namespace.clone(),
            source_id,
            js,
        })
    }

    /// Returns where the messages come from.
    pub(super) fn source_id(&self) -> &SourceId {
        &self.source_id
    }

    /// Stops repeating requests: what cannot be stored at once stays at its source, without a
    /// record that it may have been stored.
    pub(super) fn stop(&self) {
        self.retry.stop();
    }

    /// Waits until the functions of the calls that were stored have their lanes.
    pub(super) async fn finish(&self) {
        self.submitter.wait_for_lanes().await;
    }

    /// Stores a message: as a call, or as a dead letter if it cannot be one. An error ends the
    /// drain.
    pub(super) async fn store(
        &self,
        identity: &MessageIdentity,
        message: &Message,
    ) -> anyhow::Result<TransferOutcome> {
        let outcome = match self.decode(identity, message)? {
            Ok(call) => self.store_call(identity, message, call).await?,
            Err(error) => self.store_undecodable(identity, message, &error).await?,
        };
        let stored_as = match outcome {
            TransferOutcome::Stored | TransferOutcome::StoredBefore => StoredAs::Call,
            TransferOutcome::Unusable | TransferOutcome::Uncertain => StoredAs::DeadLetter,
            TransferOutcome::EndedBefore | TransferOutcome::Left => return Ok(outcome),
        };
        self.retry.until_ok(async || self.records.finish(identity, stored_as).await).await;
        Ok(outcome)
    }

    fn decode(
        &self,
        identity: &MessageIdentity,
        message: &Message,
    ) -> anyhow::Result<Result<Invocation, DecodeError>> {
        let fallback = Fallback {
            call_id: identity.call_id()?,
            stored_at: identity.stored_at,
            namespace: self.namespace.clone(),
        };
        Ok(message::decode(&message.headers, &message.payload, || fallback))
    }

    /// Stores a call, unless an earlier drain did.
    async fn store_call(
        &self,
        identity: &MessageIdentity,
        message: &Message,
        call: Invocation,
    ) -> anyhow::Result<TransferOutcome> {
        let (function, destination) =
            self.destinations.resolve(&call.function, &self.retry).await?;
        let call = with_function_name(call, function);
        let key = identity.idempotency_key()?;
        let Destination { route, duplicate_window, .. } = &destination;
        let QueueRoute { queue, subject, .. } = route;
        // The time since which the call may be stored without a record of that.
        let mut uncertain_since: Option<Timestamp> = None;
        loop {
            match self.begin(identity).await {
                TransferState::Finished => return Ok(TransferOutcome::EndedBefore),
                TransferState::Uncertain(at) => uncertain_since = Some(at),
                TransferState::New => {}
            }
            let now = self.records.now();
            if resubmission::next_step(uncertain_since, now, *duplicate_window)
                == NextStep::CheckPending
            {
                if self.is_pending(&call, &key, &destination).await {
                    return Ok(TransferOutcome::StoredBefore);
                }
                let outcome = TransferOutcome::Uncertain;
                return self
                    .store_dead(identity, message, Some(&call), queue, UNCERTAIN_REASON, outcome)
                    .await;
            }
            match self.submitter.submit_with_key(&call, &key, route).await {
                Ok(SubmitOutcome::Stored) => return Ok(TransferOutcome::Stored),
                // Refers to the key alone, which no other message has.
                Ok(SubmitOutcome::Duplicate { .. }) | Err(SubmitError::KeyReused { .. }) => {
                    return Ok(TransferOutcome::StoredBefore);
                }
                Err(error @ SubmitError::Unavailable { .. }) => {
                    uncertain_since.get_or_insert(now);
                    self.retry.wait_before_retry(&error.to_string()).await;
                }
                Err(error @ SubmitError::QueueFull { .. }) => {
                    self.remove_record(identity, uncertain_since).await;
                    self.retry.wait_before_retry(&error.to_string()).await;
                }
                Err(error @ SubmitError::NoStream) => {
                    self.remove_record(identity, uncertain_since).await;
                    bail!("queue `{queue}`, subject `{subject}`: {error}");
                }
                Err(
                    error @ (SubmitError::TooLarge { .. }
                    | SubmitError::TooLargeForStream
                    | SubmitError::HeadersTooLarge),
                ) => {
                    self.remove_record(identity, uncertain_since).await;
                    let (reason, outcome) = (error.to_string(), TransferOutcome::Unusable);
                    return self
                        .store_dead(identity, message, Some(&call), queue, &reason, outcome)
                        .await;
                }
            }
        }
    }

    /// Stores a message that is not a call as a dead letter, unless an earlier drain did.
    async fn store_undecodable(
        &self,
        identity: &MessageIdentity,
        message: &Message,
        error: &DecodeError,
    ) -> anyhow::Result<TransferOutcome> {
        if self.begin(identity).await == TransferState::Finished {
            return Ok(TransferOutcome::EndedBefore);
        }
        let queue = self.destinations.dead_letter_queue();
        self.store_dead(
            identity,
            message,
            None,
            queue,
            &error.to_string(),
            TransferOutcome::Unusable,
        )
        .await
    }

    /// Records that a message is about to be stored.
    async fn begin(&self, identity: &MessageIdentity) -> TransferState {
        self.retry.until_ok(async || self.records.begin(identity).await).await
    }

    /// Removes the record of a message that was refused, unless an earlier request may have stored
    /// it. If the drain is stopped now, it is certain that the message was not stored.
    async fn remove_record(&self, identity: &MessageIdentity, uncertain_since: Option<Timestamp>) {
        if uncertain_since.is_none() {
            self.retry.until_ok(async || self.records.remove(identity).await).await;
        }
    }

    /// Returns whether a call is on its queue.
    async fn is_pending(
        &self,
        call: &Invocation,
        key: &IdempotencyKey,
        destination: &Destination,
    ) -> bool {
        let subject = call_subject(&destination.route.subject, &call.function, &call.call_id);
        let id = key.message_id(&call.function);
        let newest = self
            .retry
            .until_ok(async || newest_headers(&self.js, &destination.stream, &subject).await);
        newest.await.is_some_and(|headers| native::message_id(&headers) == Some(&id))
    }

    /// Stores a message as a dead letter. Returns `outcome`, or [`TransferOutcome::Left`] if it
    /// can't be stored.
    async fn store_dead(
        &self,
        identity: &MessageIdentity,
        message: &Message,
        call: Option<&Invocation>,
        queue: &QueueName,
        reason: &str,
        outcome: TransferOutcome,
    ) -> anyhow::Result<TransferOutcome> {
        let dead_letter =
            NewDeadLetter { source_id: &self.source_id, identity, message, call, queue, reason };
        Ok(if dead_letter.store(&self.js, &self.retry).await? {
            outcome
        } else {
            TransferOutcome::Left
        })
    }
}

/// Gives a call the function's name as the directory spells it, which may differ in case. Its
/// callback has the name as the client wrote it.
fn with_function_name(call: Invocation, function: FunctionName) -> Invocation {
    if function == call.function {
        return call;
    }
    let written_name = call.written_name.or_else(|| Some(call.function.to_string()));
    Invocation { function, written_name, ..call }
}

/// Returns the headers of the newest message on a subject. Returns `None` if there is no message.
async fn newest_headers(
    js: &Context,
    stream: &str,
    subject: &str,
) -> anyhow::Result<Option<NatsHeaders>> {
    let stream = js.get_stream_no_info(stream).await.context("failed to open the stream")?;
    match stream.raw_message_builder().last_by_subject(subject.to_owned()).send().await {
        Ok(message) => Ok(Some(message.headers)),
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(error).context("failed to check whether the call is pending"),
    }
}

#[cfg(test)]
mod tests {
    use asyncqueue::CallId;

    use super::*;

    #[test]
    fn callback_keeps_the_name_that_the_client_wrote() {
        let name = |name| FunctionName::new(name, "openfaas-fn").unwrap();
        let call = |written: Option<&str>| {
            let id = CallId::generate(&"jobs".parse().unwrap());
            let call = Invocation::new(id, name("Figlet"), "hi");
            Invocation { written_name: written.map(str::to_owned), ..call }
        };
        let written = |call: Invocation, function| with_function_name(call, function).written_name;
        assert_eq!(written(call(None), name("Figlet")), None);
        assert_eq!(written(call(None), name("figlet")).as_deref(), Some("Figlet.openfaas-fn"));
        assert_eq!(written(call(Some("Figlet")), name("figlet")).as_deref(), Some("Figlet"));
    }
}
