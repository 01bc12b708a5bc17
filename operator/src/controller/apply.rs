//! The fourth step: brings NATS and Kubernetes to the desired state, and returns the outcome.

use std::{borrow::Cow, sync::Arc};

use asyncqueue::{
    fairness_change::{SwitchStep, SwitchWait, switch_fairness},
    lanes::Fairness,
    stream::{EnsureError, PlanError, ensure_queue},
};
use asyncqueue_runtime::nats::jetstream_check::JetStreamOff;
use k8s_openapi::{
    api::apps::v1::Deployment, apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde::Serialize;

use super::{
    applied::{AppliedCache, DesiredHash},
    build::DesiredObjects,
    dereference::{OwnedObjects, Ownership},
    error::ignore_gone,
    validate::ValidationError,
};
use crate::{
    cache::{deployment::CachedDeployment, object::CachedObject, watch::NamespacedObject},
    labels::OPERATOR_NAME,
    nats::connections::NatsConnection,
};

/// A kind of objects that queues consist of.
pub(crate) trait AppliedObject: NamespacedObject + Serialize {}

impl<W: NamespacedObject + Serialize> AppliedObject for W {}

/// Outcome of a reconciliation, part by part.
#[derive(Debug)]
pub(crate) struct ApplyOutcome {
    /// Streams and consumers.
    pub(crate) stream: Result<StreamState, StreamError>,
    /// The Deployment.
    pub(crate) workers: Result<Workers, ObjectError>,
    /// The other objects: `ServiceAccount` and `PodDisruptionBudget`.
    pub(crate) auxiliary: Result<(), ObjectError>,
}

/// State of the queue on `JetStream`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StreamState {
    /// Name of the stream.
    pub(crate) stream: String,
    /// Name of the durable consumer.
    pub(crate) consumer: String,
    /// Time at which the stream was created.
    pub(crate) created: Option<Time>,
    /// Whether the queue is suspended: no call is delivered.
    pub(crate) suspended: bool,
    /// Number of calls in the stream.
    pub(crate) messages: u64,
    /// Number of dead letters.
    pub(crate) dead_letters: u64,
    /// The streams whose sequences begin at 1, because an earlier version created them.
    pub(crate) repeating: Vec<String>,
    /// Number of calls that wait for their next attempt and begin at the first one again, since the
    /// fairness of the queue was just changed. `None`: it was not.
    pub(crate) forgotten: Option<u64>,
    /// Descriptions of what was created or changed.
    pub(crate) changes: Vec<String>,
}

/// Reason why the stream is not in its desired state.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// The queue is not valid: no request was sent to NATS.
    #[error(transparent)]
    Invalid(ValidationError),
    /// There is no connection.
    #[error(
        "Not connected to NATS, retrying: {why}. \
         Check that NATS is running and that the URL is correct."
    )]
    Disconnected {
        /// The servers, and how the last attempt to connect failed.
        why: String,
    },
    /// The connection is there, and JetStream is not enabled.
    #[error("{}", off.message(servers))]
    NoJetStream {
        /// How that was detected.
        off: JetStreamOff,
        /// The servers.
        servers: String,
    },
    /// The connection is there, and a request had no answer.
    #[error("NATS at {servers} accepts connections but does not answer")]
    NoResponse {
        /// The servers.
        servers: String,
        /// The error of the request.
        #[source]
        source: EnsureError,
    },
    /// The connection is there, and the answer is an error.
    #[error(transparent)]
    Ensure(EnsureError),
    /// The stream stores calls. None is delivered until the fairness of the queue is changed.
    #[error(
        "Calls are accepted, and are delivered once the fairness of the queue is changed to \
         {wanted}: {wait}."
    )]
    Migrating {
        /// The new fairness.
        wanted: Fairness,
        /// Why the change must wait.
        wait: SwitchWait,
    },
}

/// State of the workers.
#[derive(Clone, Debug)]
pub(crate) enum Workers {
    /// The Deployment is in its desired state.
    Deployed(Arc<CachedDeployment>),
    /// There are no workers, and none are wanted for now.
    Absent,
}

/// Result of applying an object.
enum Applied<W, L> {
    /// The object is up to date.
    Unchanged(Arc<L>),
    /// The object as the API server stored it.
    Written(W),
}

/// Reason why an object is not in its desired state.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ObjectError {
    /// Another object has the name, and does not belong to this queue.
    #[error(
        "{kind} `{name}` exists and does not belong to this queue. \
         Delete it, or create this queue under another name."
    )]
    NotOwned { kind: Cow<'static, str>, name: String },
    /// The object of an earlier queue of this name is still being deleted.
    #[error("The previous {kind} `{name}` is still terminating.")]
    Terminating { kind: Cow<'static, str>, name: String },
    /// The API server refused the request, or did not answer.
    #[error("Failed to apply or delete {kind} `{name}`: {}", crate::error::chain(.source))]
    Kubernetes { kind: Cow<'static, str>, name: String, source: kube::Error },
}

// === impl StreamError ===

impl StreamError {
    /// Returns whether the error says that the stream belongs to something else. The queue's
    /// workers must not use it then.
    pub(crate) fn is_not_owned(&self) -> bool {
        match self {
            Self::Invalid(invalid) => matches!(invalid, ValidationError::Conflict(_)),
            Self::Ensure(EnsureError::SubjectOverlap { .. }) => true,
            Self::Ensure(EnsureError::Refused(refusal)) => match refusal {
                PlanError::OtherOwner { .. }
                | PlanError::PreviousInstance { .. }
                | PlanError::Released { .. }
                | PlanError::NotAllowed { .. }
                | PlanError::Unowned { .. } => true,
                PlanError::ImmutableField { .. } | PlanError::OtherFairness { .. } => false,
            },
            Self::Ensure(_)
            | Self::Migrating { .. }
            | Self::Disconnected { .. }
            | Self::NoJetStream { .. }
            | Self::NoResponse { .. } => false,
        }
    }
}

/// Applies what was built. The stream comes first: without it, workers would have nothing to take
/// calls from, or might take those of another queue.
pub(crate) async fn apply(
    desired: DesiredObjects,
    owned: &OwnedObjects,
    connection: Option<&NatsConnection>,
    client: &Client,
    cache: &AppliedCache,
) -> ApplyOutcome {
    let stream = ensure_stream(&desired, connection).await;
    match &stream {
        Err(error) if error.is_not_owned() => return remove_workers(stream, owned, client).await,
        Err(StreamError::Migrating { .. }) => {}
        // Running workers continue, and are updated. New ones wait for their stream.
        Err(_) if matches!(owned.deployment, Ownership::Absent) => {
            return ApplyOutcome { stream, workers: Ok(Workers::Absent), auxiliary: Ok(()) };
        }
        _ => {}
    }
    // The ServiceAccount first: no pod starts without it.
    let account =
        reconcile_object(desired.service_account, &owned.service_account, client, cache).await;
    let workers = reconcile_workers(&desired.deployment, &owned.deployment, client, cache).await;
    let budget =
        reconcile_object(desired.disruption_budget, &owned.disruption_budget, client, cache).await;
    ApplyOutcome { stream, workers: workers.map(Workers::Deployed), auxiliary: account.and(budget) }
}

/// Leaves the objects of a queue that is not valid as they are. Removes its workers only if it
/// wants what another queue has.
pub(crate) async fn skip_invalid(
    invalid: ValidationError,
    owned: &OwnedObjects,
    client: &Client,
) -> ApplyOutcome {
    let error = StreamError::Invalid(invalid);
    if error.is_not_owned() {
        return remove_workers(Err(error), owned, client).await;
    }
    let workers = match &owned.deployment {
        Ownership::Owned(live) => Workers::Deployed(live.clone()),
        _ => Workers::Absent,
    };
    ApplyOutcome { stream: Err(error), workers: Ok(workers), auxiliary: Ok(()) }
}

/// Deletes a queue's workers, if there are any: their stream belongs to something else.
async fn remove_workers(
    stream: Result<StreamState, StreamError>,
    owned: &OwnedObjects,
    client: &Client,
) -> ApplyOutcome {
    let workers = remove(&owned.deployment, client).await;
    let budget = remove(&owned.disruption_budget, client).await;
    let auxiliary = budget.and(remove(&owned.service_account, client).await);
    ApplyOutcome { stream, workers: workers.map(|()| Workers::Absent), auxiliary }
}

async fn ensure_stream(
    desired: &DesiredObjects,
    connection: Option<&NatsConnection>,
) -> Result<StreamState, StreamError> {
    let connection =
        connection.filter(|connection| connection.is_connected()).ok_or_else(|| {
            StreamError::Disconnected {
                why: connection.map_or_else(String::new, NatsConnection::disconnected_reason),
            }
        })?;
    let queue = &desired.queue;
    let failed = |error| {
        let servers = connection.servers().to_owned();
        match (JetStreamOff::from_error(&error), error) {
            (Some(off), _) => StreamError::NoJetStream { off, servers },
            (None, error @ EnsureError::Unavailable { .. }) => {
                StreamError::NoResponse { servers, source: error }
            }
            (None, error) => StreamError::Ensure(error),
        }
    };
    connection.ensure_buckets_once(queue.replicas).await.map_err(|error| failed(error.into()))?;
    let mut forgotten = None;
    let mut ensured = ensure_queue(&connection.js, queue, desired.adopt).await;
    if ensured.as_ref().is_err_and(is_other_fairness) {
        let wanted = queue.fairness;
        match switch_fairness(&connection.js, queue).await.map_err(failed)? {
            SwitchStep::Waiting(wait) => return Err(StreamError::Migrating { wanted, wait }),
            SwitchStep::Done { forgotten: calls, changes } => {
                forgotten = Some(calls);
                ensured = ensure_queue(&connection.js, queue, desired.adopt).await;
                if let Ok(ensured) = &mut ensured {
                    ensured.changes.splice(0..0, changes);
                }
            }
        }
    }
    let ensured = ensured.map_err(failed)?;
    Ok(StreamState {
        stream: queue.stream.clone(),
        consumer: queue.durable.clone(),
        created: timestamp(ensured.info.created.unix_timestamp()),
        suspended: ensured.consumer.paused,
        messages: ensured.info.state.messages,
        dead_letters: ensured.dead_letters,
        repeating: ensured.repeating,
        forgotten,
        changes: ensured.changes,
    })
}

/// Returns whether a queue is in use with another fairness than the wanted one.
fn is_other_fairness(error: &EnsureError) -> bool {
    match error {
        EnsureError::Refused(PlanError::OtherFairness { .. }) => true,
        EnsureError::Consumer(of_consumer) => is_other_fairness(of_consumer),
        _ => false,
    }
}

/// Applies the desired object, or removes the existing one if none is desired.
async fn reconcile_object<W: AppliedObject, T>(
    desired: Option<W>,
    found: &Ownership<CachedObject<W, T>>,
    client: &Client,
    cache: &AppliedCache,
) -> Result<(), ObjectError> {
    match desired {
        Some(desired) => apply_object(&desired, found, client, cache).await.map(|_| ()),
        None => remove(found, client).await,
    }
}

/// Applies the desired Deployment, and returns the part of it that the operator caches.
async fn reconcile_workers(
    desired: &Deployment,
    found: &Ownership<CachedDeployment>,
    client: &Client,
    cache: &AppliedCache,
) -> Result<Arc<CachedDeployment>, ObjectError> {
    Ok(match apply_object(desired, found, client, cache).await? {
        Applied::Unchanged(live) => live,
        Applied::Written(deployment) => Arc::new(CachedDeployment::from_workers(&deployment)),
    })
}

/// Applies an object, unless it is up to date.
async fn apply_object<W: AppliedObject, L: AppliedObject, T>(
    desired: &W,
    found: &Ownership<CachedObject<L, T>>,
    client: &Client,
    cache: &AppliedCache,
) -> Result<Applied<W, CachedObject<L, T>>, ObjectError> {
    let live = check_ownership(desired, found, client).await?;
    let hash = DesiredHash::new(desired);
    if let Some(live) = live.filter(|live| cache.is_up_to_date(&live.meta, hash)) {
        return Ok(Applied::Unchanged(live.clone()));
    }
    let applied = server_side_apply(desired, client).await?;
    cache.record(applied.meta(), hash);
    Ok(Applied::Written(applied))
}

/// Deletes an object that belongs to the queue or to a deleted queue of this name.
async fn remove<W: AppliedObject, T>(
    found: &Ownership<CachedObject<W, T>>,
    client: &Client,
) -> Result<(), ObjectError> {
    let (Ownership::Owned(live) | Ownership::Orphaned(live)) = found else { return Ok(()) };
    delete(live, client).await.map_err(|source| api_error::<W>(&live.meta.name, source))
}

/// Returns the existing object for a desired one, unless it belongs to something else. Deletes an
/// object of a deleted queue of this name first: the watch shows when it is gone.
async fn check_ownership<'a, W: AppliedObject, L: AppliedObject, T>(
    desired: &W,
    found: &'a Ownership<CachedObject<L, T>>,
    client: &Client,
) -> Result<Option<&'a Arc<CachedObject<L, T>>>, ObjectError> {
    match found {
        Ownership::NotOwned => {
            Err(ObjectError::NotOwned { kind: W::kind(&()), name: desired.name_any() })
        }
        Ownership::Terminating => {
            Err(ObjectError::Terminating { kind: W::kind(&()), name: desired.name_any() })
        }
        Ownership::Orphaned(_) => {
            remove(found, client).await?;
            Err(ObjectError::Terminating { kind: W::kind(&()), name: desired.name_any() })
        }
        Ownership::Owned(live) => Ok(Some(live)),
        Ownership::Absent => Ok(None),
    }
}

/// Writes an object, and returns it as the API server stored it.
async fn server_side_apply<W: AppliedObject>(
    desired: &W,
    client: &Client,
) -> Result<W, ObjectError> {
    let api: Api<W> = Api::namespaced(client.clone(), &desired.namespace().unwrap_or_default());
    let params = PatchParams::apply(OPERATOR_NAME).force();
    let applied = api.patch(&desired.name_any(), &params, &Patch::Apply(desired)).await;
    applied.map_err(|source| api_error::<W>(&desired.name_any(), source))
}

/// Deletes an object and what belongs to it. An object that is already gone is not an error.
pub(crate) async fn delete<W: AppliedObject, T>(
    object: &CachedObject<W, T>,
    client: &Client,
) -> kube::Result<()> {
    let api: Api<W> = Api::namespaced(client.clone(), &object.meta.namespace);
    // The uid selects this object: the cache may be older than another one of the same name.
    let preconditions =
        Preconditions { uid: Some(object.meta.uid.to_string()), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
    ignore_gone(api.delete(&object.meta.name, &params).await)
}

fn api_error<W: AppliedObject>(name: &str, source: kube::Error) -> ObjectError {
    ObjectError::Kubernetes { kind: W::kind(&()), name: name.to_owned(), source }
}

fn timestamp(second: i64) -> Option<Time> {
    Timestamp::from_second(second).ok().map(Time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stream_of_another_owner_is_not_owned() {
        let stream = || "s".to_owned();
        let refused = |refusal| StreamError::Ensure(EnsureError::Refused(refusal));
        assert!(refused(PlanError::Unowned { stream: stream() }).is_not_owned());
        assert!(
            refused(PlanError::OtherOwner { stream: stream(), owner: "ns/o".to_owned() })
                .is_not_owned()
        );
        assert!(
            StreamError::Ensure(EnsureError::SubjectOverlap { subject: stream() }).is_not_owned()
        );
        assert!(!StreamError::Disconnected { why: String::new() }.is_not_owned());
        let (name, is, wanted) = (stream(), "File".to_owned(), "Memory".to_owned());
        assert!(
            !refused(PlanError::ImmutableField { name, field: "storage", is, wanted })
                .is_not_owned()
        );
    }
}
