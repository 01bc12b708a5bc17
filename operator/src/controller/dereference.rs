//! The first step: finds what a queue depends on.

use std::sync::Arc;

use asyncqueue::{QueueName, stream::QueueSpec};
use kube::ResourceExt;

use super::{
    conflict::{self, Conflict},
    context::Context,
};
use crate::{
    cache::{
        deployment::CachedDeployment,
        disruption_budget::CachedDisruptionBudget,
        object::{CachedObject, uid},
        service_account::CachedServiceAccount,
        watch::{Cacheable, MultiStore},
    },
    crd::AsyncQueue,
    nats::{
        allowed_streams::AllowedStreams,
        connections::{NatsConnection, NatsEndpoint},
        queue_spec::queue_spec,
    },
};

/// What a queue depends on, as it was found.
#[derive(Debug)]
pub(crate) struct DereferencedObjects {
    /// Whether the URL and the Secrets of its NATS are usable, or why not.
    pub(crate) nats: Result<(), String>,
    /// The objects that have the name of the queue's own objects.
    pub(crate) objects: OwnedObjects,
    /// Whether the operator's NATS needs credentials, and no setting names those of the workers.
    pub(crate) lacks_credentials: bool,
    /// The gateway through which the workers of all queues call functions, if any.
    pub(crate) gateway_url: Option<String>,
    /// The streams of other programs that queues may take over.
    pub(crate) allowed_streams: AllowedStreams,
    /// What this queue wants and another queue has.
    pub(crate) conflict: Option<Conflict>,
}

/// The objects of a queue, as cached.
#[derive(Clone, Debug, Default)]
pub(crate) struct OwnedObjects {
    /// The `ServiceAccount` of the workers.
    pub(crate) service_account: Ownership<CachedServiceAccount>,
    /// The Deployment of the workers.
    pub(crate) deployment: Ownership<CachedDeployment>,
    /// The `PodDisruptionBudget`, which says how many workers may be unavailable at once.
    pub(crate) disruption_budget: Ownership<CachedDisruptionBudget>,
}

/// An object that has the name of a queue's own object.
#[derive(Clone, Debug, Default)]
pub(crate) enum Ownership<K> {
    /// There is no such object.
    #[default]
    Absent,
    /// The queue's own object.
    Owned(Arc<K>),
    /// An object that is being deleted.
    Terminating,
    /// An object of a deleted queue of this name. Kubernetes' garbage collector deletes such an
    /// object. But it may be minutes late, or miss the object while CRDs change.
    Orphaned(Arc<K>),
    /// An object that belongs to something else.
    NotOwned,
}

/// Finds what the queue depends on, and the connection to its NATS. Reads only caches, so it can't
/// fail.
pub(crate) async fn dereference(
    queue: &AsyncQueue,
    context: &Context,
) -> (DereferencedObjects, Option<Arc<NatsConnection>>) {
    let connection = context.nats_pool.get(NatsEndpoint::from_queue(queue)).await;
    let nats = connection.as_ref().map(|_| ()).map_err(|error| format!("{error:#}"));
    let connection = connection.ok();
    // `validate` refuses a name that is not valid.
    let spec = queue_spec(queue).ok();
    let dereferenced = DereferencedObjects {
        nats,
        objects: owned_objects(queue, context),
        lacks_credentials: context.worker_defaults.lacks_credentials(),
        gateway_url: context.worker_defaults.gateway_url.clone(),
        allowed_streams: context.worker_defaults.allowed_streams.clone(),
        conflict: spec.as_ref().and_then(|spec| find_conflict(queue, spec, context)),
    };
    (dereferenced, connection)
}

fn find_conflict(queue: &AsyncQueue, spec: &QueueSpec, context: &Context) -> Option<Conflict> {
    // A queue that owns its stream comes first, so it need not be compared with ten thousand
    // others.
    if queue.owns_stream() {
        return None;
    }
    conflict::conflict(queue, spec, context.queues.all().iter().map(AsRef::as_ref))
}

/// Finds the objects of a queue, which all have one name.
pub(crate) fn owned_objects(queue: &AsyncQueue, context: &Context) -> OwnedObjects {
    let Ok(name) = queue.name_any().parse::<QueueName>() else { return OwnedObjects::default() };
    let name = name.worker_deployment();
    OwnedObjects {
        service_account: lookup(&context.accounts, queue, &name),
        deployment: lookup(&context.deployments, queue, &name),
        disruption_budget: lookup(&context.budgets, queue, &name),
    }
}

fn lookup<W, T>(
    objects: &MultiStore<CachedObject<W, T>>,
    queue: &AsyncQueue,
    name: &str,
) -> Ownership<CachedObject<W, T>>
where
    CachedObject<W, T>: Cacheable,
{
    let object = objects.get(&queue.namespace().unwrap_or_default(), name);
    object.map_or(Ownership::Absent, |object| classify(object, queue))
}

fn classify<W, T>(
    object: Arc<CachedObject<W, T>>,
    queue: &AsyncQueue,
) -> Ownership<CachedObject<W, T>> {
    match &object.meta.owner {
        _ if object.meta.is_terminating => Ownership::Terminating,
        Some(owner) if !owner.uid.is_nil() && owner.uid == uid(&queue.metadata) => {
            Ownership::Owned(object)
        }
        Some(owner) if *owner.name == queue.name_any() => Ownership::Orphaned(object),
        _ => Ownership::NotOwned,
    }
}

#[cfg(test)]
mod tests {
    use kube::Resource;

    use super::*;
    use crate::{cache::deployment::PartialDeployment, fixtures};

    fn deployment(owner: Option<&AsyncQueue>) -> PartialDeployment {
        let mut deployment = PartialDeployment::default();
        deployment.metadata.owner_references =
            owner.map(|queue| vec![queue.controller_owner_ref(&()).unwrap()]);
        deployment
    }

    #[test]
    fn an_object_is_owned_by_the_uid_of_its_owner() {
        let queue = fixtures::queue("q");
        let classified =
            |deployment| classify(Arc::new(CachedDeployment::from_object(deployment)), &queue);
        assert!(matches!(classified(deployment(Some(&queue))), Ownership::Owned(_)));
        assert!(matches!(classified(deployment(None)), Ownership::NotOwned));
        assert!(matches!(
            classified(deployment(Some(&fixtures::queue("other")))),
            Ownership::NotOwned
        ));

        let mut before = fixtures::queue("q");
        before.metadata.uid = Some(fixtures::uid("before"));
        assert!(matches!(classified(deployment(Some(&before))), Ownership::Orphaned(_)));

        let mut going = deployment(Some(&before));
        going.metadata.deletion_timestamp = Some(fixtures::second(1));
        assert!(matches!(classified(going), Ownership::Terminating));

        let mut going = deployment(Some(&queue));
        going.metadata.deletion_timestamp = Some(fixtures::second(1));
        assert!(matches!(classified(going), Ownership::Terminating));
    }
}
