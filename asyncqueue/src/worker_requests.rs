//! Requests to the workers of a queue over core NATS: whether they have a call, that they stop one
//! that is cancelled, and how one has ended. Each worker receives all requests of its queue.

use std::time::Duration;

use async_nats::{Client, Message, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use tokio::time::{Instant, timeout_at};

#[cfg(doc)]
use crate::call::{CallQuery, CallRef, RememberedEnd, WorkerReport};
use crate::{jetstream::NatsError, names::QueueName};

/// Reply to a cancellation: the worker was running the call, and has closed the connection to the
/// function.
pub const REPLY_RUNNING: &str = "running";

/// Reply to a cancellation: the worker has the call, or had it, and does not start it.
pub const REPLY_HELD: &str = "held";

/// Reply to a cancellation: the worker has handed the call back, and the next attempt is not due
/// yet.
pub const REPLY_WAITING: &str = "waiting";

/// Reply to a cancellation: the call has ended by itself in this worker.
pub const REPLY_ENDED: &str = "ended";

/// How long workers have to reply to a request. They reply within a millisecond or not at all.
pub(crate) const REPLY_TIMEOUT: Duration = Duration::from_millis(250);

/// Returns the subject on which a queue's workers are asked for a call. The request is
/// [`CallRef::encode`] of the call. The worker that has it replies with a [`WorkerReport`] in
/// JSON, and the others do not reply.
#[must_use]
pub fn status_request_subject(queue: &QueueName) -> String {
    format!("asyncqueue.status.{queue}")
}

/// Returns the subject on which a queue's workers receive cancellations. The reply subject is for
/// their replies.
#[must_use]
pub fn cancel_subject(queue: &QueueName) -> String {
    format!("asyncqueue.cancel.{queue}")
}

/// Returns the subject on which a queue's workers are asked how a call has ended. The request is
/// [`CallQuery::encode`] of the call. Each worker replies with the [`RememberedEnd`] in JSON, or
/// with `null`. Workers before version 0.2 do not listen on it.
#[must_use]
pub fn end_request_subject(queue: &QueueName) -> String {
    format!("asyncqueue.end.{queue}")
}

/// Asks the workers that listen on a subject, and returns the first reply that `read` understands.
/// `None` if no worker listens, or none replies in time.
pub(crate) async fn request_workers<T>(
    client: Client,
    subject: String,
    request: Bytes,
    read: impl Fn(&Message) -> Option<T>,
) -> Result<Option<T>, NatsError> {
    Ok(WorkerRequest::send(&client, subject, request)
        .await?
        .reply(Instant::now() + REPLY_TIMEOUT, read)
        .await)
}

/// A request to the workers of a queue, and their replies.
pub(crate) struct WorkerRequest {
    replies: Subscriber,
}

impl WorkerRequest {
    /// Sends a request to the workers that listen on a subject.
    pub(crate) async fn send(
        client: &Client,
        subject: String,
        request: Bytes,
    ) -> Result<Self, NatsError> {
        Self::send_to_all(client, vec![subject], request).await
    }

    /// Sends a request to the workers that listen on any of these subjects.
    pub(crate) async fn send_to_all(
        client: &Client,
        subjects: Vec<String>,
        request: Bytes,
    ) -> Result<Self, NatsError> {
        let inbox = client.new_inbox();
        let replies = client
            .subscribe(inbox.clone())
            .await
            .map_err(NatsError::during("subscribe to the replies"))?;
        for subject in subjects {
            client
                .publish_with_reply(subject, inbox.clone(), request.clone())
                .await
                .map_err(NatsError::during("send a request to the workers"))?;
        }
        Ok(Self { replies })
    }

    /// Returns the next reply that `read` understands; `None` if no worker listens, or none
    /// replies in time.
    pub(crate) async fn reply<T>(
        &mut self,
        deadline: Instant,
        read: impl Fn(&Message) -> Option<T>,
    ) -> Option<T> {
        while let Some(reply) = self.next(deadline).await {
            if is_no_worker(&reply) {
                return None;
            }
            if let Some(read) = read(&reply) {
                return Some(read);
            }
        }
        None
    }

    /// Returns the next reply, or the message that no worker listens on one of the subjects: see
    /// [`is_no_worker`]. `None` if none comes in time.
    pub(crate) async fn next(&mut self, deadline: Instant) -> Option<Message> {
        timeout_at(deadline, self.replies.next()).await.ok().flatten()
    }
}

/// Returns whether a message says that no worker listens on the subject of a request.
pub(crate) fn is_no_worker(reply: &Message) -> bool {
    reply.status.is_some()
}
