//! Deletes a queue: first its workers, then its streams, which are deleted or released as
//! `spec.deletionPolicy` says. A deletion waits for NATS only for a bounded time.

use std::{sync::Arc, time::Duration};

use asyncqueue::stream::{EnsureError, QueueSpec, Removal, RemovalPolicy, remove_queue};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{Resource, runtime::controller::Action};
use tracing::info;

use super::{
    apply::delete,
    context::Context,
    dereference::{Ownership, owned_objects},
    error::Error,
    update_status,
};
use crate::{
    crd::{AsyncQueue, DeletionPolicy},
    nats::{
        connections::{NatsConnection, NatsEndpoint},
        queue_spec::queue_spec,
    },
};

/// Maximum time that a deletion waits for NATS. A restart of NATS takes less, and it is short
/// enough that the namespace does not seem to be stuck.
const NATS_DEADLINE: Duration = Duration::from_secs(5 * 60);

/// Pause between attempts to release a stream after its queue was deleted.
const RELEASE_RETRY_DELAY: Duration = Duration::from_secs(5);

/// Reasons of the events.
mod reason {
    /// The stream was deleted.
    pub(super) const STREAM_DELETED: &str = "StreamDeleted";
    /// The stream was kept.
    pub(super) const STREAM_KEPT: &str = "StreamKept";
}

/// Deletes or releases all that belongs to a queue. Returns once its object may be deleted.
pub(crate) async fn cleanup(queue: &AsyncQueue, context: &Context) -> Result<Action, Error> {
    if let Ownership::Owned(workers) = owned_objects(queue, context).deployment {
        delete(&*workers, &context.client).await.map_err(Error::Delete)?;
    }
    // A queue whose name or URL is not usable never had a stream.
    let (Ok(spec), Ok(connection)) =
        (queue_spec(queue), context.nats_pool.get(NatsEndpoint::from_queue(queue)).await)
    else {
        return Ok(Action::await_change());
    };
    match release_streams(&connection, &spec, policy(queue.spec.deletion_policy)).await {
        Ok(removal) => publish_removal_event(queue, &spec, removal, context).await,
        // It has nothing there for which the deletion would have to wait.
        Err(why) if !queue.owns_stream() => {
            info!(queue = %spec.queue, "no stream to release: {why}");
        }
        Err(why) => {
            let (now, deadline) = (Timestamp::now(), deadline(queue));
            if now < deadline {
                let why = format!("Deletion is waiting for NATS (until {deadline}): {why}");
                let status = update_status::terminating_status(queue, &why, &Time(now));
                if update_status::write(context, queue, &status).await.map_err(Error::Status)? {
                    info!(queue = queue.namespaced_name(), "{why}");
                }
                return Err(Error::Waiting(why));
            }
            retain_streams(queue, &spec, connection.clone(), &why, context).await;
        }
    }
    connection.inflight.remove_queue(&spec.queue);
    Ok(Action::await_change())
}

/// Deletes or releases the streams. A failure is returned as text.
async fn release_streams(
    connection: &NatsConnection,
    spec: &QueueSpec,
    policy: RemovalPolicy,
) -> Result<Removal, String> {
    if !connection.is_connected() {
        return Err("not connected to NATS".to_owned());
    }
    let removal: Result<_, EnsureError> = remove_queue(&connection.js, spec, policy).await;
    removal.map_err(|error| crate::error::chain(&error))
}

async fn publish_removal_event(
    queue: &AsyncQueue,
    spec: &QueueSpec,
    removal: Removal,
    context: &Context,
) {
    let (object, stream, events) = (queue.object_ref(&()), &spec.stream, &context.events);
    match removal {
        Removal::NotOwned => {}
        Removal::Deleted => {
            events
                .normal(&object, reason::STREAM_DELETED, format!("Deleted stream {stream}."))
                .await;
        }
        Removal::Released { messages: 0 } => {
            let note =
                format!("Retained the empty stream {stream}: {} takes it over.", successors(spec));
            events.normal(&object, reason::STREAM_KEPT, note).await;
        }
        Removal::Released { messages } => {
            let calls = if messages == 1 { "call" } else { "calls" };
            let note = format!(
                "Retained stream {stream} with {messages} {calls} (deletionPolicy {:?}): {} takes \
                 them over. To delete them: nats stream rm {stream}",
                queue.spec.deletion_policy,
                successors(spec)
            );
            events.warning(&object, reason::STREAM_KEPT, note).await;
        }
    }
}

/// Returns which queues may take over the streams of a deleted queue.
fn successors(spec: &QueueSpec) -> String {
    let named = [&spec.owner.name].into_iter().chain(&spec.release_to);
    format!("an AsyncQueue {}", named.map(String::as_str).collect::<Vec<_>>().join(" or "))
}

/// Lets the object be deleted without its streams. They are released as soon as NATS is available,
/// if this process lives that long. If not, a new queue of the name says how to take them over.
async fn retain_streams(
    queue: &AsyncQueue,
    spec: &QueueSpec,
    connection: Arc<NatsConnection>,
    why: &str,
    context: &Context,
) {
    let note = format!(
        "NATS unreachable for {} minutes; retained stream {}: {why}",
        NATS_DEADLINE.as_secs() / 60,
        spec.stream
    );
    context.events.warning(&queue.object_ref(&()), reason::STREAM_KEPT, note).await;
    let spec = spec.clone();
    tokio::spawn(async move {
        loop {
            connection.wait_until_connected().await;
            match release_streams(&connection, &spec, RemovalPolicy::Retain).await {
                Ok(_) => {
                    return info!(stream = spec.stream, "released the stream of a deleted queue");
                }
                Err(_) => tokio::time::sleep(RELEASE_RETRY_DELAY).await,
            }
        }
    });
}

/// Returns when a deletion stops waiting, in whole seconds.
fn deadline(queue: &AsyncQueue) -> Timestamp {
    let begun =
        queue.metadata.deletion_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    begun.saturating_add(NATS_DEADLINE).unwrap_or(begun)
}

fn policy(policy: DeletionPolicy) -> RemovalPolicy {
    match policy {
        DeletionPolicy::Retain => RemovalPolicy::Retain,
        DeletionPolicy::Delete => RemovalPolicy::Delete,
        DeletionPolicy::DeleteIfEmpty => RemovalPolicy::DeleteIfEmpty,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn the_deadline_counts_from_the_deletion() {
        let mut queue = fixtures::queue("q");
        queue.metadata.deletion_timestamp = Some(fixtures::second(1000));
        assert_eq!(deadline(&queue), fixtures::second(1300).0);
    }
}
