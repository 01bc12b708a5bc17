//! The fourth step: brings NATS and Kubernetes to what was built, and tells how that went.

use std::sync::Arc;

use asyncqueue::{
    ensure::{EnsureError, ensure},
    stream::Refusal,
};
use k8s_openapi::{api::apps::v1::Deployment, apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::Value;

use super::{
    build::{APPLIED_ANNOTATION, Prepared},
    dereference::{Found, Surroundings},
    validate::Invalid,
};
use crate::broker::Broker;

/// Who owns the fields of the Deployment that we set.
const FIELD_MANAGER: &str = "asyncqueue-operator";

/// How a reconciliation went, part by part.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Streams and consumers.
    pub(crate) stream: Result<Stored, StreamError>,
    /// The Deployment.
    pub(crate) workers: Result<Workers, WorkersError>,
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
    #[error("not connected to NATS: it is tried all the time, see whether NATS is up and the URL is right")]
    Disconnected,
    /// The connection is there, and the answer is not what it should be.
    #[error(transparent)]
    Ensure(EnsureError),
}

/// What there is of workers.
#[derive(Clone, Debug)]
pub(crate) enum Workers {
    /// The Deployment is as it shall be.
    Deployed(Arc<Deployment>),
    /// There are none, and shall be none for now.
    Absent,
}

/// Why there are no workers as they shall be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkersError {
    /// Somebody else's Deployment has the name.
    #[error(
        "Deployment `{0}` exists and does not belong to this queue: delete it, or create this queue under another name"
    )]
    Foreign(String),
    /// The Deployment of a queue before this one is not gone yet.
    #[error("Deployment `{0}` is still being deleted")]
    Going(String),
    /// The API server answered no, or not at all.
    #[error("Deployment `{name}`: {}", crate::error::chain(.source))]
    Kubernetes { name: String, source: kube::Error },
}

// === impl StreamError ===

impl StreamError {
    /// Whether it says that the stream is another's, so that our workers have no business with it.
    pub(crate) fn is_foreign(&self) -> bool {
        match self {
            Self::Invalid(invalid) => matches!(invalid, Invalid::Conflict(_)),
            Self::Ensure(EnsureError::SubjectOverlap { .. }) => true,
            Self::Ensure(EnsureError::Refused(refusal)) => match refusal {
                Refusal::Owned { .. } | Refusal::Namesake { .. } | Refusal::Unowned { .. } => true,
                Refusal::Immutable { .. } => false,
            },
            Self::Ensure(_) | Self::Disconnected => false,
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
) -> Outcome {
    let stream = store(&prepared, broker).await;
    let workers = match &stream {
        Err(error) if error.is_foreign() => withdraw(seen, client).await,
        // Workers that run go on, with what is new; new ones wait for their stream.
        Err(_) if matches!(seen.workers, Found::None) => Ok(Workers::Absent),
        _ => deploy(prepared.workers, &seen.workers, client).await,
    };
    Outcome { stream, workers }
}

/// Leaves a queue that may not be built as it is. Only if it wants what another one has, its workers go.
pub(crate) async fn refuse(invalid: Invalid, seen: &Surroundings, client: &Client) -> Outcome {
    let error = StreamError::Invalid(invalid);
    let workers = match &seen.workers {
        _ if error.is_foreign() => withdraw(seen, client).await,
        Found::Ours(live) => Ok(Workers::Deployed(live.clone())),
        _ => Ok(Workers::Absent),
    };
    Outcome { stream: Err(error), workers }
}

async fn store(prepared: &Prepared, broker: Option<&Broker>) -> Result<Stored, StreamError> {
    let broker = broker.filter(|broker| broker.is_connected()).ok_or(StreamError::Disconnected)?;
    let queue = &prepared.queue;
    let ensured = ensure(&broker.js, queue, prepared.adopt).await.map_err(StreamError::Ensure)?;
    Ok(Stored {
        stream: queue.stream.clone(),
        consumer: queue.durable.clone(),
        created: timestamp(ensured.info.created.unix_timestamp()),
        changes: ensured.changes,
    })
}

/// Takes a queue's workers away, if there are any: their stream is another's.
async fn withdraw(seen: &Surroundings, client: &Client) -> Result<Workers, WorkersError> {
    if let Found::Ours(deployment) = &seen.workers {
        let name = deployment.name_any();
        delete(deployment, client).await.map_err(|source| WorkersError::Kubernetes { name, source })?;
    }
    Ok(Workers::Absent)
}

/// Deletes a Deployment, and its pods with it. That it is gone already is fine.
pub(crate) async fn delete(deployment: &Deployment, client: &Client) -> kube::Result<()> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), &deployment.namespace().unwrap_or_default());
    // This very one: the cache may be older than another of the same name.
    let preconditions = Preconditions { uid: deployment.uid(), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
    match api.delete(&deployment.name_any(), &params).await {
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        result => result.map(|_| ()),
    }
}

async fn deploy(wanted: Deployment, found: &Found, client: &Client) -> Result<Workers, WorkersError> {
    let name = wanted.name_any();
    match found {
        Found::Foreign => return Err(WorkersError::Foreign(name)),
        Found::Going => return Err(WorkersError::Going(name)),
        Found::Ours(live) if is_current(live, &wanted) => return Ok(Workers::Deployed(live.clone())),
        Found::Ours(_) | Found::None => {}
    }
    let api = Api::namespaced(client.clone(), &wanted.namespace().unwrap_or_default());
    let params = PatchParams::apply(FIELD_MANAGER).force();
    match api.patch(&name, &params, &Patch::Apply(&wanted)).await {
        Ok(deployment) => Ok(Workers::Deployed(Arc::new(deployment))),
        Err(source) => Err(WorkersError::Kubernetes { name, source }),
    }
}

/// Whether a Deployment is as it was applied, and that is what is wanted now. Saves the API server a request every few
/// seconds for each queue.
fn is_current(live: &Deployment, wanted: &Deployment) -> bool {
    let applied = |deployment: &Deployment| deployment.annotations().get(APPLIED_ANNOTATION).cloned();
    // What can't be written as JSON is not current.
    let json = |deployment| serde_json::to_value(deployment).ok();
    applied(live) == applied(wanted)
        && json(live).zip(json(wanted)).is_some_and(|(live, wanted)| covers(&live, &wanted))
}

/// Whether all that is wanted is there. More may be: the API server adds defaults, and others their own fields.
fn covers(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| live.get(key).is_some_and(|live| covers(live, value)))
        }
        (Value::Array(live), Value::Array(wanted)) => {
            wanted.iter().all(|value| live.iter().any(|live| covers(live, value)))
        }
        _ => live == wanted,
    }
}

fn timestamp(second: i64) -> Option<Time> {
    Timestamp::from_second(second).ok().map(Time)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn more_may_be_there_than_is_wanted_but_not_less_or_other() {
        let wanted = json!({ "a": 1, "list": [{ "name": "x", "value": "1" }] });
        let live =
            json!({ "a": 1, "b": 2, "list": [{ "name": "y" }, { "name": "x", "value": "1", "more": true }] });
        assert!(covers(&live, &wanted));
        assert!(!covers(&json!({ "a": 1 }), &wanted));
        assert!(!covers(&json!({ "a": 1, "list": [{ "name": "x", "value": "2" }] }), &wanted));
    }

    #[test]
    fn a_deployment_is_current_if_it_was_applied_as_it_is_wanted_and_left_alone() {
        let applied = |fingerprint: &str, replicas: i32| -> Deployment {
            serde_json::from_value(json!({
                "metadata": { "name": "a", "annotations": { APPLIED_ANNOTATION: fingerprint } },
                "spec": { "replicas": replicas, "selector": {}, "template": {} },
            }))
            .unwrap()
        };
        assert!(is_current(&applied("x", 1), &applied("x", 1)));
        assert!(!is_current(&applied("x", 2), &applied("x", 1)));
        // Something that was set once is not wanted any more.
        assert!(!is_current(&applied("x", 1), &applied("y", 1)));
    }

    #[test]
    fn workers_leave_a_stream_that_is_anothers_and_only_that() {
        let stream = || "s".to_owned();
        let refused = |refusal| StreamError::Ensure(EnsureError::Refused(refusal));
        assert!(refused(Refusal::Unowned { stream: stream() }).is_foreign());
        assert!(refused(Refusal::Owned { stream: stream(), owner: "ns/o".to_owned() }).is_foreign());
        assert!(StreamError::Ensure(EnsureError::SubjectOverlap { subject: stream() }).is_foreign());
        assert!(!StreamError::Disconnected.is_foreign());
        let (name, is, wanted) = (stream(), "File".to_owned(), "Memory".to_owned());
        assert!(!refused(Refusal::Immutable { name, field: "storage", is, wanted }).is_foreign());
    }
}
