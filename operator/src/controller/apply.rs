//! The fourth step: brings NATS and Kubernetes to the desired state, and returns the outcome.

use std::{borrow::Cow, sync::Arc};

use asyncqueue::stream::{EnsureError, PlanError, ensure_queue};
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
    build::Prepared,
    current::is_current,
    dereference::{Found, Objects, Surroundings},
    validate::Invalid,
    verified::Verified,
};
use crate::{
    account::Account, broker::Broker, budget::Budget, slim::Slim, watch::Namespaced,
    workload::Workload,
};

/// Field manager of the fields that the operator sets.
const FIELD_MANAGER: &str = "asyncqueue-operator";

/// A kind of objects that queues consist of.
pub(crate) trait Object: Namespaced + Serialize {}

impl<W: Namespaced + Serialize> Object for W {}

/// Outcome of a reconciliation, part by part.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Streams and consumers.
    pub(crate) stream: Result<Stored, StreamError>,
    /// The Deployment.
    pub(crate) workers: Result<Workers, ObjectError>,
    /// The other objects: `ServiceAccount` and `PodDisruptionBudget`.
    pub(crate) beside: Result<(), ObjectError>,
}

/// State of the queue on `JetStream`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stored {
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
    /// Descriptions of what was created or changed.
    pub(crate) changes: Vec<String>,
}

/// Reason why the stream is not in its desired state.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// The queue is not valid: no request was sent to NATS.
    #[error(transparent)]
    Invalid(Invalid),
    /// There is no connection.
    #[error(
        "Not connected to NATS, retrying: {why}. Check that NATS is running and that the URL is correct"
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
    #[error("NATS at {servers} is connected and does not answer")]
    Silent {
        /// The servers.
        servers: String,
        /// The error of the request.
        #[source]
        source: EnsureError,
    },
    /// The connection is there, and the answer is an error.
    #[error(transparent)]
    Ensure(EnsureError),
}

/// State of the workers.
#[derive(Clone, Debug)]
pub(crate) enum Workers {
    /// The Deployment is in its desired state.
    Deployed(Arc<Workload>),
    /// There are no workers, and none are wanted for now.
    Absent,
}

/// Reason why an object is not in its desired state.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ObjectError {
    /// Another object has the name, and does not belong to this queue.
    #[error(
        "{kind} `{name}` exists and does not belong to this queue: delete it, or create this queue under another name"
    )]
    Foreign { kind: Cow<'static, str>, name: String },
    /// The object of an earlier queue of this name is still being deleted.
    #[error("{kind} `{name}` is still being deleted")]
    Going { kind: Cow<'static, str>, name: String },
    /// The API server refused the request, or did not answer.
    #[error("{kind} `{name}`: {}", crate::error::chain(.source))]
    Kubernetes { kind: Cow<'static, str>, name: String, source: kube::Error },
}

// === impl StreamError ===

impl StreamError {
    /// Returns whether the error says that the stream belongs to something else. The queue's
    /// workers must not use it then.
    pub(crate) fn is_foreign(&self) -> bool {
        match self {
            Self::Invalid(invalid) => matches!(invalid, Invalid::Conflict(_)),
            Self::Ensure(EnsureError::SubjectOverlap { .. }) => true,
            Self::Ensure(EnsureError::Refused(refusal)) => match refusal {
                PlanError::OtherOwner { .. }
                | PlanError::PreviousInstance { .. }
                | PlanError::Released { .. }
                | PlanError::NotAllowed { .. }
                | PlanError::Unowned { .. } => true,
                PlanError::ImmutableField { .. } => false,
            },
            Self::Ensure(_)
            | Self::Disconnected { .. }
            | Self::NoJetStream { .. }
            | Self::Silent { .. } => false,
        }
    }
}

/// Applies what was built. The stream comes first: without it, workers would have nothing to take
/// calls from, or might take those of another queue.
pub(crate) async fn apply(
    prepared: Prepared,
    seen: &Surroundings,
    broker: Option<&Broker>,
    client: &Client,
    verified: &Verified,
) -> Outcome {
    let stream = store(&prepared, broker).await;
    let Objects { account, workers, budget } = &seen.objects;
    match &stream {
        Err(error) if error.is_foreign() => return withdraw(stream, seen, client).await,
        // Running workers continue, and are updated. New ones wait for their stream.
        Err(_) if matches!(workers, Found::None) => {
            return Outcome { stream, workers: Ok(Workers::Absent), beside: Ok(()) };
        }
        _ => {}
    }
    // The account first: no pod starts without it.
    let account = bring(prepared.account, account, Account::is, client).await;
    let workers = bring_workers(prepared.workers, workers, client, verified).await;
    let is_current = |live: &Budget, wanted: &_| is_current(&*live.rest, wanted);
    let budget = bring(prepared.budget, budget, is_current, client).await;
    Outcome { stream, workers: workers.map(Workers::Deployed), beside: account.and(budget) }
}

/// Leaves the objects of a queue that is not valid as they are. Removes its workers only if it
/// wants what another queue has.
pub(crate) async fn refuse(invalid: Invalid, seen: &Surroundings, client: &Client) -> Outcome {
    let error = StreamError::Invalid(invalid);
    if error.is_foreign() {
        return withdraw(Err(error), seen, client).await;
    }
    let workers = match &seen.objects.workers {
        Found::Ours(live) => Workers::Deployed(live.clone()),
        _ => Workers::Absent,
    };
    Outcome { stream: Err(error), workers: Ok(workers), beside: Ok(()) }
}

/// Deletes a queue's workers, if there are any: their stream belongs to something else.
async fn withdraw(
    stream: Result<Stored, StreamError>,
    seen: &Surroundings,
    client: &Client,
) -> Outcome {
    let Objects { account, workers, budget } = &seen.objects;
    let workers = remove(workers, client).await;
    let beside = remove(budget, client).await.and(remove(account, client).await);
    Outcome { stream, workers: workers.map(|()| Workers::Absent), beside }
}

async fn store(prepared: &Prepared, broker: Option<&Broker>) -> Result<Stored, StreamError> {
    let broker = broker.filter(|broker| broker.is_connected()).ok_or_else(|| {
        StreamError::Disconnected { why: broker.map_or_else(String::new, Broker::why_disconnected) }
    })?;
    let queue = &prepared.queue;
    let failed = |error| {
        let servers = broker.servers().to_owned();
        match (JetStreamOff::from_error(&error), error) {
            (Some(off), _) => StreamError::NoJetStream { off, servers },
            (None, error @ EnsureError::Unavailable { .. }) => {
                StreamError::Silent { servers, source: error }
            }
            (None, error) => StreamError::Ensure(error),
        }
    };
    broker.ensure_buckets_once(queue.replicas).await.map_err(|error| failed(error.into()))?;
    let ensured = ensure_queue(&broker.js, queue, prepared.adopt).await.map_err(failed)?;
    Ok(Stored {
        stream: queue.stream.clone(),
        consumer: queue.durable.clone(),
        created: timestamp(ensured.info.created.unix_timestamp()),
        suspended: ensured.consumer.paused,
        messages: ensured.info.state.messages,
        dead_letters: ensured.dead_letters,
        repeating: ensured.repeating,
        changes: ensured.changes,
    })
}

/// Brings an object to what is wanted; `None` removes it.
async fn bring<W: Object, T>(
    wanted: Option<W>,
    found: &Found<Slim<W, T>>,
    is_current: impl Fn(&Slim<W, T>, &W) -> bool,
    client: &Client,
) -> Result<(), ObjectError> {
    let Some(wanted) = wanted else { return remove(found, client).await };
    if ours(&wanted, found, client).await?.is_some_and(|live| is_current(live, &wanted)) {
        return Ok(());
    }
    put(&wanted, client).await.map(|_| ())
}

/// Deletes an object that belongs to the queue or to a deleted queue of this name.
async fn remove<W: Object, T>(
    found: &Found<Slim<W, T>>,
    client: &Client,
) -> Result<(), ObjectError> {
    let (Found::Ours(live) | Found::Left(live)) = found else { return Ok(()) };
    delete(live, client).await.map_err(|source| refused::<W>(&live.meta.name, source))
}

/// Brings the Deployment to what is wanted, and returns the part of it that the operator keeps.
async fn bring_workers(
    wanted: Deployment,
    found: &Found<Workload>,
    client: &Client,
    verified: &Verified,
) -> Result<Arc<Workload>, ObjectError> {
    if let Some(live) = ours(&wanted, found, client).await?
        && verified.is_current(live, &wanted, client).await
    {
        return Ok(live.clone());
    }
    let applied = Workload::of_workers(&put(&wanted, client).await?);
    verified.note(&applied);
    Ok(Arc::new(applied))
}

/// Returns the existing object for a wanted one, unless it belongs to something else. Deletes an
/// object of a deleted queue of this name first: the watch shows when it is gone.
async fn ours<'a, W: Object, L: Object, T>(
    wanted: &W,
    found: &'a Found<Slim<L, T>>,
    client: &Client,
) -> Result<Option<&'a Arc<Slim<L, T>>>, ObjectError> {
    match found {
        Found::Foreign => Err(ObjectError::Foreign { kind: W::kind(&()), name: wanted.name_any() }),
        Found::Going => Err(ObjectError::Going { kind: W::kind(&()), name: wanted.name_any() }),
        Found::Left(_) => {
            remove(found, client).await?;
            Err(ObjectError::Going { kind: W::kind(&()), name: wanted.name_any() })
        }
        Found::Ours(live) => Ok(Some(live)),
        Found::None => Ok(None),
    }
}

/// Writes an object, and returns it as the API server stored it.
async fn put<W: Object>(wanted: &W, client: &Client) -> Result<W, ObjectError> {
    let api: Api<W> = Api::namespaced(client.clone(), &wanted.namespace().unwrap_or_default());
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let applied = api.patch(&wanted.name_any(), &params, &Patch::Apply(wanted)).await;
    applied.map_err(|source| refused::<W>(&wanted.name_any(), source))
}

/// Deletes an object and what belongs to it. An object that is already gone is not an error.
pub(crate) async fn delete<W: Object, T>(object: &Slim<W, T>, client: &Client) -> kube::Result<()> {
    let api: Api<W> = Api::namespaced(client.clone(), &object.meta.namespace);
    // The uid selects this object: the cache may be older than another one of the same name.
    let preconditions =
        Preconditions { uid: Some(object.meta.uid.to_string()), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
    match api.delete(&object.meta.name, &params).await {
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        result => result.map(|_| ()),
    }
}

fn refused<W: Object>(name: &str, source: kube::Error) -> ObjectError {
    ObjectError::Kubernetes { kind: W::kind(&()), name: name.to_owned(), source }
}

fn timestamp(second: i64) -> Option<Time> {
    Timestamp::from_second(second).ok().map(Time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_leave_a_stream_that_is_anothers_and_only_that() {
        let stream = || "s".to_owned();
        let refused = |refusal| StreamError::Ensure(EnsureError::Refused(refusal));
        assert!(refused(PlanError::Unowned { stream: stream() }).is_foreign());
        assert!(
            refused(PlanError::OtherOwner { stream: stream(), owner: "ns/o".to_owned() })
                .is_foreign()
        );
        assert!(
            StreamError::Ensure(EnsureError::SubjectOverlap { subject: stream() }).is_foreign()
        );
        assert!(!StreamError::Disconnected { why: String::new() }.is_foreign());
        let (name, is, wanted) = (stream(), "File".to_owned(), "Memory".to_owned());
        assert!(
            !refused(PlanError::ImmutableField { name, field: "storage", is, wanted }).is_foreign()
        );
    }
}
