//! The first step: looks up what a queue depends on.

use std::sync::Arc;

use asyncqueue::{QueueName, stream::QueueSpec};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{Resource, ResourceExt};

use super::Context;
use crate::{
    broker::Broker,
    claims::{self, Conflict},
    crd::AsyncQueue,
    spec::queue_spec,
};

/// What a queue finds around it.
#[derive(Debug)]
pub(crate) struct Surroundings {
    /// Whether the URL of its NATS can be used, or why not.
    pub(crate) nats_url: Result<(), String>,
    /// The Deployment that has the name of its workers'.
    pub(crate) workers: Found,
    /// What another queue has that this one wants.
    pub(crate) conflict: Option<Conflict>,
}

/// A Deployment of the name that a queue's workers have.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    /// None.
    None,
    /// The queue's own.
    Ours(Arc<Deployment>),
    /// One that is being deleted, or that will be, since it belongs to a queue of this name that is gone.
    Going,
    /// Somebody else's.
    Foreign,
}

/// Looks around, and finds the connection to the queue's NATS. Reads caches alone, so it can't fail.
pub(crate) async fn dereference(
    queue: &AsyncQueue,
    context: &Context,
) -> (Surroundings, Option<Arc<Broker>>) {
    let broker = context.brokers.get(queue.spec.nats.url.as_deref()).await;
    let nats_url = broker.as_ref().map(|_| ()).map_err(|error| format!("{error:#}"));
    let broker = broker.ok();
    // A name that can't be used is for `validate` to refuse.
    let spec = queue_spec(queue).ok();
    let seen = Surroundings {
        nats_url,
        workers: find_workers(queue, context),
        conflict: spec.as_ref().and_then(|spec| find_conflict(queue, spec, context)),
    };
    (seen, broker)
}

fn find_conflict(queue: &AsyncQueue, spec: &QueueSpec, context: &Context) -> Option<Conflict> {
    // Nobody comes before it, so there is no need to compare it with each of ten thousand others.
    if claims::owns_stream(queue) {
        return None;
    }
    claims::conflict(queue, spec, context.queues.all().iter().map(AsRef::as_ref))
}

/// The Deployment of a queue's workers, as far as the watch has seen.
pub(crate) fn find_workers(queue: &AsyncQueue, context: &Context) -> Found {
    let Ok(name) = queue.name_any().parse::<QueueName>() else { return Found::None };
    let namespace = queue.namespace().unwrap_or_default();
    match context.deployments.get(&namespace, &name.worker_deployment()) {
        Some(deployment) => whose(deployment, queue),
        None => Found::None,
    }
}

fn whose(deployment: Arc<Deployment>, queue: &AsyncQueue) -> Found {
    let owner = deployment.owner_references().iter().find(|owner| owner.kind == AsyncQueue::kind(&()));
    match owner {
        _ if deployment.metadata.deletion_timestamp.is_some() => Found::Going,
        Some(owner) if Some(&owner.uid) == queue.metadata.uid.as_ref() => Found::Ours(deployment),
        Some(owner) if owner.name == queue.name_any() => Found::Going,
        _ => Found::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    fn deployment(owner: Option<&AsyncQueue>) -> Deployment {
        let mut deployment = fixtures::function("q-worker", None);
        deployment.metadata.owner_references =
            owner.map(|queue| vec![queue.controller_owner_ref(&()).unwrap()]);
        deployment
    }

    #[test]
    fn a_deployment_is_ours_by_its_owners_uid() {
        let queue = fixtures::queue("q");
        let found = |deployment| whose(Arc::new(deployment), &queue);
        assert!(matches!(found(deployment(Some(&queue))), Found::Ours(_)));
        assert!(matches!(found(deployment(None)), Found::Foreign));
        assert!(matches!(found(deployment(Some(&fixtures::queue("other")))), Found::Foreign));

        let mut before = fixtures::queue("q");
        before.metadata.uid = Some("before".to_owned());
        assert!(matches!(found(deployment(Some(&before))), Found::Going));

        let mut going = deployment(Some(&queue));
        going.metadata.deletion_timestamp = Some(fixtures::second(1));
        assert!(matches!(found(going), Found::Going));
    }
}
