//! The first step: looks up what a queue depends on.

use std::sync::Arc;

use asyncqueue::{QueueName, stream::QueueSpec};
use kube::ResourceExt;

use super::Context;
use crate::{
    account::Account,
    allowed_streams::AllowedStreams,
    broker::{Address, Broker},
    budget::Budget,
    claims::{self, Conflict},
    crd::AsyncQueue,
    slim::{Slim, uid},
    spec::queue_spec,
    watch::{Stores, Watched},
    workload::Workload,
};

/// What a queue finds around it.
#[derive(Debug)]
pub(crate) struct Surroundings {
    /// Whether URL and Secrets of its NATS can be used, or why not.
    pub(crate) nats: Result<(), String>,
    /// The objects that have the name of its own.
    pub(crate) objects: Objects,
    /// Whether workers of the operator's own NATS need credentials that no setting names.
    pub(crate) lacks_credentials: bool,
    /// The gateway through which the workers of all queues call functions, if any.
    pub(crate) gateway_url: Option<String>,
    /// The streams of other programs that queues may take over.
    pub(crate) allowed_streams: AllowedStreams,
    /// What another queue has that this one wants.
    pub(crate) conflict: Option<Conflict>,
}

/// The objects that a queue consists of, as far as the watches have seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Objects {
    /// What the workers run as.
    pub(crate) account: Found<Account>,
    /// The workers.
    pub(crate) workers: Found<Workload>,
    /// How many workers may be away at once.
    pub(crate) budget: Found<Budget>,
}

/// An object of the name that a queue's own has.
#[derive(Clone, Debug, Default)]
pub(crate) enum Found<K> {
    /// None.
    #[default]
    None,
    /// The queue's own.
    Ours(Arc<K>),
    /// One that is being deleted.
    Going,
    /// One of a queue of this name that is gone. Kubernetes' garbage collector deletes such an object,
    /// but may be minutes late, or miss it while definitions of resources change.
    Left(Arc<K>),
    /// Somebody else's.
    Foreign,
}

/// Looks around, and finds the connection to the queue's NATS. Reads caches alone, so it can't fail.
pub(crate) async fn dereference(
    queue: &AsyncQueue,
    context: &Context,
) -> (Surroundings, Option<Arc<Broker>>) {
    let broker = context.brokers.get(Address::of(queue)).await;
    let nats = broker.as_ref().map(|_| ()).map_err(|error| format!("{error:#}"));
    let broker = broker.ok();
    // A name that can't be used is for `validate` to refuse.
    let spec = queue_spec(queue).ok();
    let seen = Surroundings {
        nats,
        objects: find_objects(queue, context),
        lacks_credentials: context.installation.lacks_credentials(),
        gateway_url: context.installation.gateway_url.clone(),
        allowed_streams: context.installation.allowed_streams.clone(),
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

/// The objects of a queue, which all have one name.
pub(crate) fn find_objects(queue: &AsyncQueue, context: &Context) -> Objects {
    let Ok(name) = queue.name_any().parse::<QueueName>() else { return Objects::default() };
    let name = name.worker_deployment();
    Objects {
        account: find(&context.accounts, queue, &name),
        workers: find(&context.deployments, queue, &name),
        budget: find(&context.budgets, queue, &name),
    }
}

fn find<W, T>(objects: &Stores<Slim<W, T>>, queue: &AsyncQueue, name: &str) -> Found<Slim<W, T>>
where
    Slim<W, T>: Watched,
{
    let object = objects.get(&queue.namespace().unwrap_or_default(), name);
    object.map_or(Found::None, |object| whose(object, queue))
}

fn whose<W, T>(object: Arc<Slim<W, T>>, queue: &AsyncQueue) -> Found<Slim<W, T>> {
    match &object.meta.owner {
        _ if object.meta.is_going => Found::Going,
        Some(owner) if !owner.uid.is_nil() && owner.uid == uid(&queue.metadata) => Found::Ours(object),
        Some(owner) if *owner.name == queue.name_any() => Found::Left(object),
        _ => Found::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use kube::Resource;

    use super::*;
    use crate::{fixtures, workload::Parts};

    fn deployment(owner: Option<&AsyncQueue>) -> Parts {
        let mut deployment = Parts::default();
        deployment.metadata.owner_references =
            owner.map(|queue| vec![queue.controller_owner_ref(&()).unwrap()]);
        deployment
    }

    #[test]
    fn an_object_is_ours_by_its_owners_uid() {
        let queue = fixtures::queue("q");
        let found = |deployment| whose(Arc::new(Workload::of(deployment)), &queue);
        assert!(matches!(found(deployment(Some(&queue))), Found::Ours(_)));
        assert!(matches!(found(deployment(None)), Found::Foreign));
        assert!(matches!(found(deployment(Some(&fixtures::queue("other")))), Found::Foreign));

        let mut before = fixtures::queue("q");
        before.metadata.uid = Some(fixtures::uid("before"));
        assert!(matches!(found(deployment(Some(&before))), Found::Left(_)));

        let mut going = deployment(Some(&before));
        going.metadata.deletion_timestamp = Some(fixtures::second(1));
        assert!(matches!(found(going), Found::Going));

        let mut going = deployment(Some(&queue));
        going.metadata.deletion_timestamp = Some(fixtures::second(1));
        assert!(matches!(found(going), Found::Going));
    }
}
