//! Stores one message in AsyncQueue, exactly once.

use anyhow::{Context as _, bail};
use async_nats::{
    HeaderMap as NatsHeaders,
    jetstream::{Context, stream::RawMessageErrorKind},
};
use asyncqueue::{
    FunctionName, IdempotencyKey, Invocation, QueueName,
    message::{self, DecodeError, Fallback, native},
    subject::call_subject,
    submit::{SubmitError, SubmitOutcome, Submitter},
};
use jiff::Timestamp;

use super::{
    Common,
    arrival::Message,
    dead::Letter,
    destination::{Destination, Destinations, StreamId},
    doubt::{Step, step},
    identity::{Identity, Origin},
    record::{End, Record, Records},
    retry::Retry,
    tally::Outcome,
};
use crate::session::{NATS_TIMEOUT, Session};

/// Why a message that may have been stored becomes a dead letter.
const UNCERTAIN: &str = "a drain was interrupted while it stored this call, and was run again after the duplicate \
                         window: the call may have run; replay it if it has not";

/// Stores the messages of a source.
#[derive(Debug)]
pub(super) struct Transfer {
    js: Context,
    submitter: Submitter,
    records: Records,
    retry: Retry,
    destinations: Destinations,
    origin: Origin,
    namespace: String,
}

// === impl Transfer ===

impl Transfer {
    /// Prepares to store the messages of `origin`. `source` is its stream if it is a JetStream
    /// stream.
    pub(super) async fn open(
        session: &Session,
        common: &Common,
        origin: Origin,
        source: Option<StreamId>,
    ) -> anyhow::Result<Self> {
        let js = session.js.clone();
        Ok(Self {
            submitter: Submitter::new(js.clone(), NATS_TIMEOUT),
            records: Records::open(&js).await?,
            retry: Retry::new(js.client()),
            destinations: Destinations::open(&js, common, source).await?,
            namespace: common.function_namespace.clone(),
            origin,
            js,
        })
    }

    /// Returns where the messages come from.
    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Stops repeating requests: what cannot be stored at once stays at its source, without a
    /// record that it may have been stored.
    pub(super) fn stop(&self) {
        self.retry.stop();
    }

    /// Stores a message: as a call, or as a dead letter if it cannot be one. An error ends the
    /// drain.
    pub(super) async fn store(
        &self,
        identity: &Identity,
        message: &Message,
    ) -> anyhow::Result<Outcome> {
        let outcome = match self.read(identity, message)? {
            Ok(call) => self.store_call(identity, message, call).await?,
            Err(error) => self.store_unreadable(identity, message, &error).await?,
        };
        let end = match outcome {
            Outcome::Stored | Outcome::StoredBefore => End::Stored,
            Outcome::Unusable | Outcome::Uncertain => End::Dead,
            Outcome::EndedBefore | Outcome::Left => return Ok(outcome),
        };
        self.retry.until_done(async || self.records.end(identity, end).await).await;
        Ok(outcome)
    }

    fn read(
        &self,
        identity: &Identity,
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
        identity: &Identity,
        message: &Message,
        call: Invocation,
    ) -> anyhow::Result<Outcome> {
        let (function, destination) = self.destinations.of(&call.function, &self.retry).await?;
        let call = renamed(call, function);
        let key = identity.idempotency_key()?;
        let Destination { queue, subject, duplicate_window, .. } = &destination;
        // Since when the call may be stored without our knowledge.
        let mut doubt: Option<Timestamp> = None;
        loop {
            match self.begin(identity).await {
                Record::Ended => return Ok(Outcome::EndedBefore),
                Record::Begun(at) => doubt = Some(at),
                Record::New => {}
            }
            let now = self.records.now();
            if step(doubt, now, *duplicate_window) == Step::Check {
                if self.is_pending(&call, &key, &destination).await {
                    return Ok(Outcome::StoredBefore);
                }
                let outcome = Outcome::Uncertain;
                return self
                    .store_dead(identity, message, Some(&call), queue, UNCERTAIN, outcome)
                    .await;
            }
            match self.submitter.submit_with_key(&call, &key, subject).await {
                Ok(SubmitOutcome::Stored) => return Ok(Outcome::Stored),
                // Refers to the key alone, which no other message has.
                Ok(SubmitOutcome::Duplicate { .. }) | Err(SubmitError::KeyReused { .. }) => {
                    return Ok(Outcome::StoredBefore);
                }
                Err(error @ SubmitError::Unavailable { .. }) => {
                    doubt.get_or_insert(now);
                    self.retry.pause(&error.to_string()).await;
                }
                Err(error @ SubmitError::QueueFull { .. }) => {
                    self.withdraw(identity, doubt).await;
                    self.retry.pause(&error.to_string()).await;
                }
                Err(error @ SubmitError::NoStream) => {
                    self.withdraw(identity, doubt).await;
                    bail!("queue `{queue}`, subject `{subject}`: {error}");
                }
                Err(
                    error @ (SubmitError::TooLarge { .. }
                    | SubmitError::TooLargeForStream
                    | SubmitError::HeadersTooLarge),
                ) => {
                    self.withdraw(identity, doubt).await;
                    let (reason, outcome) = (error.to_string(), Outcome::Unusable);
                    return self
                        .store_dead(identity, message, Some(&call), queue, &reason, outcome)
                        .await;
                }
            }
        }
    }

    /// Stores a message that is not a call as a dead letter, unless an earlier drain did.
    async fn store_unreadable(
        &self,
        identity: &Identity,
        message: &Message,
        error: &DecodeError,
    ) -> anyhow::Result<Outcome> {
        if self.begin(identity).await == Record::Ended {
            return Ok(Outcome::EndedBefore);
        }
        let queue = self.destinations.unnamed();
        self.store_dead(identity, message, None, queue, &error.to_string(), Outcome::Unusable).await
    }

    /// Records that a message is about to be stored.
    async fn begin(&self, identity: &Identity) -> Record {
        self.retry.until_done(async || self.records.begin(identity).await).await
    }

    /// Removes the record of a message that was refused, unless an earlier request may have stored
    /// it. If the drain is stopped now, it is certain that the message was not stored.
    async fn withdraw(&self, identity: &Identity, doubt: Option<Timestamp>) {
        if doubt.is_none() {
            self.retry.until_done(async || self.records.withdraw(identity).await).await;
        }
    }

    /// Returns whether a call is on its queue.
    async fn is_pending(
        &self,
        call: &Invocation,
        key: &IdempotencyKey,
        destination: &Destination,
    ) -> bool {
        let subject = call_subject(&destination.subject, &call.function, &call.call_id);
        let id = key.message_id(&call.function);
        let newest =
            self.retry.until_done(async || newest(&self.js, &destination.stream, &subject).await);
        newest.await.is_some_and(|headers| native::message_id(&headers) == Some(&id))
    }

    /// Stores a message as a dead letter. Returns `outcome`, or [`Outcome::Left`] if it can't be
    /// stored.
    async fn store_dead(
        &self,
        identity: &Identity,
        message: &Message,
        call: Option<&Invocation>,
        queue: &QueueName,
        reason: &str,
        outcome: Outcome,
    ) -> anyhow::Result<Outcome> {
        let letter = Letter { origin: &self.origin, identity, message, call, queue, reason };
        Ok(if letter.store(&self.js, &self.retry).await? { outcome } else { Outcome::Left })
    }
}

/// Gives a call the function's name as the directory spells it, which may differ in case. Its
/// callback has the name as the client wrote it.
fn renamed(call: Invocation, function: FunctionName) -> Invocation {
    if function == call.function {
        return call;
    }
    let written_name = call.written_name.or_else(|| Some(call.function.to_string()));
    Invocation { function, written_name, ..call }
}

/// Returns the headers of the newest message on a subject. Returns `None` if there is no message.
async fn newest(js: &Context, stream: &str, subject: &str) -> anyhow::Result<Option<NatsHeaders>> {
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
    fn a_callback_has_the_name_that_the_client_wrote() {
        let name = |name| FunctionName::new(name, "openfaas-fn").unwrap();
        let call = |written: Option<&str>| {
            let id = CallId::generate(&"jobs".parse().unwrap());
            let call = Invocation::new(id, name("Figlet"), "hi");
            Invocation { written_name: written.map(str::to_owned), ..call }
        };
        let written = |call: Invocation, function| renamed(call, function).written_name;
        assert_eq!(written(call(None), name("Figlet")), None);
        assert_eq!(written(call(None), name("figlet")).as_deref(), Some("Figlet.openfaas-fn"));
        assert_eq!(written(call(Some("Figlet")), name("figlet")).as_deref(), Some("Figlet"));
    }
}
