//! The fourth step: brings NATS and Kubernetes to what was built, and tells how that went.

use std::{borrow::Cow, sync::Arc};

use asyncqueue::{
    ensure::{EnsureError, ensure},
    stream::Refusal,
};
use asyncqueue_runtime::nats::jetstream::JetStreamOff;
use k8s_openapi::{api::apps::v1::Deployment, apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
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
    account::Account, broker::Broker, budget::Budget, slim::Slim, watch::Namespaced, workload::Workload,
};

/// Who owns the fields that we set.
const FIELD_MANAGER: &str = "asyncqueue-operator";

/// A kind of objects that queues consist of.
pub(crate) trait Object: Namespaced + Serialize {}

impl<W: Namespaced + Serialize> Object for W {}

/// How a reconciliation went, part by part.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Streams and consumers.
    pub(crate) stream: Result<Stored, StreamError>,
    /// The Deployment.
    pub(crate) workers: Result<Workers, ObjectError>,
    /// What there is beside it: account and budget.
    pub(crate) beside: Result<(), ObjectError>,
}

/// What there is on `JetStream`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stored {
    /// The stream.
    pub(crate) stream: String,
    /// The durable consumer.
    pub(crate) consumer: String,
    /// When the stream was created.
    pub(crate) created: Option<Time>,
    /// Whether no call is delivered.
    pub(crate) suspended: bool,
    /// How many calls it holds.
    pub(crate) messages: u64,
    /// How many dead letters there are.
    pub(crate) dead_letters: u64,
    /// The streams whose sequences begin at 1, since an earlier version created them.
    pub(crate) repeating: Vec<String>,
    /// What was created or changed, in words.
    pub(crate) changes: Vec<String>,
}

/// Why there is no stream as it shall be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// Nothing was asked of NATS.
    #[error(transparent)]
    Invalid(Invalid),
    /// There is no connection.
    #[error("Not connected to NATS, retrying: {why}. Check that NATS is running and that the URL is correct")]
    Disconnected {
        /// Which servers, and how the last attempt failed.
        why: String,
    },
    /// The connection is there, and JetStream is not enabled.
    #[error("{}", off.message(servers))]
    NoJetStream {
        /// How that was found out.
        off: JetStreamOff,
        /// The servers.
        servers: String,
    },
    /// The connection is there, and a request had no answer.
    #[error("NATS at {servers} is connected and does not answer")]
    Silent {
        /// The servers.
        servers: String,
        /// Which request.
        #[source]
        source: EnsureError,
    },
    /// The connection is there, and the answer is not what it should be.
    #[error(transparent)]
    Ensure(EnsureError),
}

/// What there is of workers.
#[derive(Clone, Debug)]
pub(crate) enum Workers {
    /// The Deployment is as it shall be.
    Deployed(Arc<Workload>),
    /// There are none, and shall be none for now.
    Absent,
}

/// Why an object is not as it shall be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ObjectError {
    /// Somebody else's has the name.
    #[error(
        "{kind} `{name}` exists and does not belong to this queue: delete it, or create this queue under another name"
    )]
    Foreign { kind: Cow<'static, str>, name: String },
    /// That of a queue before this one is not gone yet.
    #[error("{kind} `{name}` is still being deleted")]
    Going { kind: Cow<'static, str>, name: String },
    /// The API server answered no, or not at all.
    #[error("{kind} `{name}`: {}", crate::error::chain(.source))]
    Kubernetes { kind: Cow<'static, str>, name: String, source: kube::Error },
}

// === impl StreamError ===

impl StreamError {
    /// Whether it says that the stream is another's, so that our workers have no business with it.
    pub(crate) fn is_foreign(&self) -> bool {
        match self {
            Self::Invalid(invalid) => matches!(invalid, Invalid::Conflict(_)),
            Self::Ensure(EnsureError::SubjectOverlap { .. }) => true,
            Self::Ensure(EnsureError::Refused(refusal)) => match refusal {
                Refusal::Owned { .. }
                | Refusal::Namesake { .. }
                | Refusal::Released { .. }
                | Refusal::NotAllowed { .. }
                | Refusal::Unowned { .. } => true,
                Refusal::Immutable { .. } => false,
            },
            Self::Ensure(_) | Self::Disconnected { .. } | Self::NoJetStream { .. } | Self::Silent { .. } => {
                false
            }
        }
    }
}

/// Applies what was built. First the stream: without it, workers would have nothing to take from, and might take what is
/// another queue's.
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
        // Workers that run go on, with what is new; new ones wait for their stream.
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

/// Leaves a queue that may not be built as it is. Only if it wants what another one has, its workers go.
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

/// Takes a queue's workers away, if there are any: their stream is another's.
async fn withdraw(stream: Result<Stored, StreamError>, seen: &Surroundings, client: &Client) -> Outcome {
    let Objects { account, workers, budget } = &seen.objects;
    let workers = remove(workers, client).await;
    let beside = remove(budget, client).await.and(remove(account, client).await);
    Outcome { stream, workers: workers.map(|()| Workers::Absent), beside }
}

async fn store(prepared: &Prepared, broker: Option<&Broker>) -> Result<Stored, StreamError> {
    let broker = broker.filter(|broker| broker.is_connected()).ok_or_else(|| StreamError::Disconnected {
        why: broker.map_or_else(String::new, Broker::why_disconnected),
    })?;
    let queue = &prepared.queue;
    let failed = |error| {
        let servers = broker.servers().to_owned();
        match (JetStreamOff::of_error(&error), error) {
            (Some(off), _) => StreamError::NoJetStream { off, servers },
            (None, error @ EnsureError::Unavailable { .. }) => StreamError::Silent { servers, source: error },
            (None, error) => StreamError::Ensure(error),
        }
    };
    broker.ensure_buckets_once(queue.replicas).await.map_err(|error| failed(error.into()))?;
    let ensured = ensure(&broker.js, queue, prepared.adopt).await.map_err(failed)?;
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

/// Brings an object to what is wanted, which may be none.
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

/// Deletes an object if it is the queue's own, or that of a queue of this name that is gone.
async fn remove<W: Object, T>(found: &Found<Slim<W, T>>, client: &Client) -> Result<(), ObjectError> {
    let (Found::Ours(live) | Found::Left(live)) = found else { return Ok(()) };
    delete(live, client).await.map_err(|source| refused::<W>(&live.meta.name, source))
}

/// Brings the Deployment to what is wanted, and returns what is kept of it.
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

/// What is there already of an object that is wanted, unless it is somebody else's. That of a queue of this name that
/// is gone is deleted first: the watch sees when it is gone.
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

/// Writes an object, and returns it as it is then.
async fn put<W: Object>(wanted: &W, client: &Client) -> Result<W, ObjectError> {
    let api: Api<W> = Api::namespaced(client.clone(), &wanted.namespace().unwrap_or_default());
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let applied = api.patch(&wanted.name_any(), &params, &Patch::Apply(wanted)).await;
    applied.map_err(|source| refused::<W>(&wanted.name_any(), source))
}

/// Deletes an object, and what belongs to it. That it is gone already is fine.
pub(crate) async fn delete<W: Object, T>(object: &Slim<W, T>, client: &Client) -> kube::Result<()> {
    let api: Api<W> = Api::namespaced(client.clone(), &object.meta.namespace);
    // This very one: the cache may be older than another of the same name.
    let preconditions = Preconditions { uid: Some(object.meta.uid.to_string()), resource_version: None };
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
        assert!(refused(Refusal::Unowned { stream: stream() }).is_foreign());
        assert!(refused(Refusal::Owned { stream: stream(), owner: "ns/o".to_owned() }).is_foreign());
        assert!(StreamError::Ensure(EnsureError::SubjectOverlap { subject: stream() }).is_foreign());
        assert!(!StreamError::Disconnected { why: String::new() }.is_foreign());
        let (name, is, wanted) = (stream(), "File".to_owned(), "Memory".to_owned());
        assert!(!refused(Refusal::Immutable { name, field: "storage", is, wanted }).is_foreign());
    }
}
