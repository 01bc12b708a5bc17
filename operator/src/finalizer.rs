//! Deletes a queue: first its workers, then its streams, which are deleted or released as
//! `spec.deletionPolicy` says. A deletion waits for NATS only for a bounded time.

use std::{sync::Arc, time::Duration};

use asyncqueue::stream::{EnsureError, QueueSpec, Removal, RemovalPolicy, remove_queue};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{Resource, runtime::controller::Action};
use tracing::info;

use crate::{
    broker::{Address, Broker},
    claims::owns_stream,
    controller::{
        Context, Error,
        apply::delete,
        dereference::{Found, find_objects},
        status,
    },
    crd::{AsyncQueue, DeletionPolicy},
    spec::{full_name, queue_spec},
};

/// Maximum time that a deletion waits for NATS. A restart of NATS takes less, and it is short
/// enough that the namespace does not seem to be stuck.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// Pause between attempts to release a stream after its queue was deleted.
const RELEASE_PAUSE: Duration = Duration::from_secs(5);

/// Reasons of the events.
mod reason {
    /// The stream was deleted.
    pub(super) const STREAM_DELETED: &str = "StreamDeleted";
    /// The stream was kept.
    pub(super) const STREAM_KEPT: &str = "StreamKept";
}

/// Deletes or releases all that belongs to a queue. Returns once its object may be deleted.
pub(crate) async fn cleanup(queue: &AsyncQueue, context: &Context) -> Result<Action, Error> {
    if let Found::Ours(workers) = find_objects(queue, context).workers {
        delete(&*workers, &context.client).await.map_err(Error::Delete)?;
        context.verified.forget(&workers);
    }
    // A queue whose name or URL is not usable never had a stream.
    let (Ok(spec), Ok(broker)) = (queue_spec(queue), context.brokers.get(Address::of(queue)).await)
    else {
        return Ok(Action::await_change());
    };
    match let_go(&broker, &spec, policy(queue.spec.deletion_policy)).await {
        Ok(removal) => tell(queue, &spec, removal, context).await,
        // It has nothing there for which the deletion would have to wait.
        Err(why) if !owns_stream(queue) => {
            info!(queue = %spec.queue, "nothing to let go of, and {why}");
        }
        Err(why) => {
            let (now, patience_ends) = (Timestamp::now(), patience_ends(queue));
            if now < patience_ends {
                let why =
                    format!("the deletion waits for NATS until {patience_ends} at most: {why}");
                let status = status::going(queue, &why, &Time(now));
                if status::write(context, queue, &status).await.map_err(Error::Status)? {
                    info!(queue = full_name(queue), "{why}");
                }
                return Err(Error::Waiting(why));
            }
            give_up(queue, &spec, broker.clone(), &why, context).await;
        }
    }
    broker.running.forget(&spec.queue);
    Ok(Action::await_change())
}

/// Deletes or releases the streams. A failure is returned as text.
async fn let_go(
    broker: &Broker,
    spec: &QueueSpec,
    policy: RemovalPolicy,
) -> Result<Removal, String> {
    if !broker.is_connected() {
        return Err("there is no connection to NATS".to_owned());
    }
    let removal: Result<_, EnsureError> = remove_queue(&broker.js, spec, policy).await;
    removal.map_err(|error| crate::error::chain(&error))
}

async fn tell(queue: &AsyncQueue, spec: &QueueSpec, removal: Removal, context: &Context) {
    let (object, stream, events) = (queue.object_ref(&()), &spec.stream, &context.events);
    match removal {
        Removal::NotOwned => {}
        Removal::Deleted => {
            events
                .normal(&object, reason::STREAM_DELETED, format!("deleted stream {stream}"))
                .await;
        }
        Removal::Released { messages: 0 } => {
            let note =
                format!("kept stream {stream}, which is empty: {} takes it over", heirs(spec));
            events.normal(&object, reason::STREAM_KEPT, note).await;
        }
        Removal::Released { messages } => {
            let calls = if messages == 1 { "call" } else { "calls" };
            let note = format!(
                "kept stream {stream} with {messages} {calls} (deletionPolicy {:?}): {} takes them over; \
                 to delete them: nats stream rm {stream}",
                queue.spec.deletion_policy,
                heirs(spec)
            );
            events.warning(&object, reason::STREAM_KEPT, note).await;
        }
    }
}

/// Returns which queues may take over the streams of a deleted queue.
fn heirs(spec: &QueueSpec) -> String {
    let named = [&spec.owner.name].into_iter().chain(&spec.release_to);
    format!("an AsyncQueue {}", named.map(String::as_str).collect::<Vec<_>>().join(" or "))
}

/// Lets the object be deleted without its streams. They are released as soon as NATS is available,
/// if this process lives that long. If not, a new queue of the name says how to take them over.
async fn give_up(
    queue: &AsyncQueue,
    spec: &QueueSpec,
    broker: Arc<Broker>,
    why: &str,
    context: &Context,
) {
    let note = format!(
        "kept stream {} as with deletionPolicy Retain, since NATS could not be asked for {} minutes: {why}",
        spec.stream,
        PATIENCE.as_secs() / 60
    );
    context.events.warning(&queue.object_ref(&()), reason::STREAM_KEPT, note).await;
    let spec = spec.clone();
    tokio::spawn(async move {
        loop {
            broker.connected().await;
            match let_go(&broker, &spec, RemovalPolicy::Retain).await {
                Ok(_) => {
                    return info!(
                        stream = spec.stream,
                        "released the stream of a queue that is gone"
                    );
                }
                Err(_) => tokio::time::sleep(RELEASE_PAUSE).await,
            }
        }
    });
}

/// Returns when a deletion stops waiting, in whole seconds.
fn patience_ends(queue: &AsyncQueue) -> Timestamp {
    let begun =
        queue.metadata.deletion_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    begun.saturating_add(PATIENCE).unwrap_or(begun)
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
    fn patience_counts_from_the_deletion() {
        let mut queue = fixtures::queue("q");
        queue.metadata.deletion_timestamp = Some(fixtures::second(1000));
        assert_eq!(patience_ends(&queue), fixtures::second(1300).0);
    }
}
