//! The controller of `AsyncQueues`: dereference -> validate -> build -> apply -> update status.
//!
//! Only [`dereference`], [`apply`] and [`update_status`] use clients. All other steps work on plain
//! values. Each reconciliation reads the whole state and can be repeated at any time.

use std::{hash::Hash, sync::Arc, time::Duration};

use asyncqueue::QueueName;
use futures::{Stream, StreamExt, stream::select};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{
    Api, ResourceExt,
    runtime::{
        Controller,
        controller::{self, Action},
        finalizer::{Error as Finalizing, Event as FinalizerEvent, finalizer},
        reflector::{ObjectRef, Store},
        scheduler::{ScheduleRequest, scheduler},
        watcher::Event,
    },
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use self::{
    apply::Workers,
    context::{Changes, Context, Owned, RETRY_DELAY},
    error::Error,
    finalizer::cleanup,
    predicate::needs_reconciliation,
    publish_events::publish_events,
    update_status::{Functions, shared_lanes},
};
use crate::{
    cache::{
        deployment::CachedDeployment,
        disruption_budget::CachedDisruptionBudget,
        object::{CachedMeta, CachedObject},
        service_account::CachedServiceAccount,
    },
    crd::AsyncQueue,
    error::chain,
    labels::FINALIZER,
    pods::{Diagnosis, WorkerPod, revision::Revision},
};

pub(crate) mod applied;
pub(crate) mod apply;
pub(crate) mod build;
pub(crate) mod conflict;
pub(crate) mod context;
pub(crate) mod dereference;
pub(crate) mod error;
pub(crate) mod expectations;
mod finalizer;
mod predicate;
mod publish_events;
pub(crate) mod update_status;
pub(crate) mod validate;

/// Delay between a change of a queue's objects and the one reconciliation for it. These objects
/// change together, and mostly because the operator has just written them.
///
/// Also the time to wait for the watch to show what the operator wrote to the queue itself.
const DEBOUNCE: Duration = Duration::from_millis(500);

/// Number of queues that are reconciled concurrently. They wait for NATS and the API server most of
/// the time.
const CONCURRENCY: u16 = 16;

/// Runs the controller over one store of `AsyncQueues` until `shutdown`.
pub(crate) async fn run(
    context: Arc<Context>,
    store: Store<AsyncQueue>,
    queues: impl Changes<AsyncQueue>,
    owned: Owned<
        impl Changes<CachedDeployment>,
        impl Changes<CachedServiceAccount>,
        impl Changes<CachedDisruptionBudget>,
        impl Changes<WorkerPod>,
    >,
    triggers: impl Stream<Item = ObjectRef<AsyncQueue>> + Send + 'static,
    shutdown: CancellationToken,
) {
    let Owned { deployments, accounts, budgets, pods, mut pod_watch } = owned;
    let seen = context.clone();
    let pods = pods
        .filter_map(move |event| std::future::ready(pod_watch.handle_event(&event, &seen.pods)));
    let owned = select(
        select(owner_refs(deployments, context.clone()), owner_refs(accounts, context.clone())),
        select(owner_refs(budgets, context.clone()), pods),
    );
    Controller::for_stream(needs_reconciliation(queues), store)
        .reconcile_on(debounced(owned))
        .reconcile_on(triggers)
        .with_config(controller::Config::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(reconcile, |queue, error, context| on_error(&queue, error, &context), context)
        .for_each(|done| {
            match done {
                Ok((queue, _)) => debug!(%queue, "reconciled"),
                Err(controller::Error::ObjectNotFound(queue)) => {
                    debug!(%queue, "queue not found");
                }
                // `on_error` has logged it.
                Err(controller::Error::ReconcilerFailed(..)) => {}
                Err(error) => warn!(%error, "controller error"),
            }
            std::future::ready(())
        })
        .await;
}

/// Returns the queues whose objects change. Deleted objects are removed from the cache of applied
/// ones.
fn owner_refs<W, T: Send>(
    changes: impl Changes<CachedObject<W, T>>,
    context: Arc<Context>,
) -> impl Stream<Item = ObjectRef<AsyncQueue>> + Send {
    let queue = move |event: Event<CachedObject<W, T>>| match event {
        Event::Apply(object) | Event::InitApply(object) => owner_ref(object.meta),
        Event::Delete(object) => {
            context.applied.forget(object.meta.uid);
            owner_ref(object.meta)
        }
        Event::Init | Event::InitDone => None,
    };
    changes.filter_map(move |event| std::future::ready(queue(event)))
}

/// Returns the queue to which an object belongs.
fn owner_ref(CachedMeta { owner, namespace, .. }: CachedMeta) -> Option<ObjectRef<AsyncQueue>> {
    Some(ObjectRef::new(&owner?.name).within(&namespace))
}

/// Delays the items by [`DEBOUNCE`] and merges equal items that arrive during the delay.
fn debounced<T: Clone + Eq + Hash + Send>(
    stream: impl Stream<Item = T> + Send,
) -> impl Stream<Item = T> + Send {
    scheduler(stream.map(|message| ScheduleRequest { message, run_at: Instant::now() + DEBOUNCE }))
}

async fn reconcile(queue: Arc<AsyncQueue>, context: Arc<Context>) -> Result<Action, Error> {
    // An object that the watches have not listed yet could be taken for missing.
    context.complete().await;
    if context.pending_writes.is_stale(&queue) {
        return Ok(Action::requeue(DEBOUNCE));
    }
    let _measured = context.metrics.reconciliation();
    let api = Api::namespaced(context.client.clone(), &queue.namespace().unwrap_or_default());
    let done = finalizer(&api, FINALIZER, queue, async |event| match event {
        FinalizerEvent::Apply(queue) => Box::pin(ensure(&queue, &context)).await,
        FinalizerEvent::Cleanup(queue) => cleanup(&queue, &context).await,
    });
    match Box::pin(done).await {
        // Two events can ask for the same cleanup: the second one may find that it is done.
        Err(Finalizing::RemoveFinalizer(kube::Error::Api(status))) if status.is_not_found() => {
            Ok(Action::await_change())
        }
        done => done.map_err(Error::from),
    }
}

/// Brings everything that belongs to a queue to its desired state, and reports the outcome.
async fn ensure(queue: &AsyncQueue, context: &Context) -> Result<Action, Error> {
    let (dereferenced, connection) = dereference::dereference(queue, context).await;
    let objects = &dereferenced.objects;
    let (outcome, revision) = match validate::validate(queue, &dereferenced) {
        Ok(valid) => {
            let desired = build::build(&valid, &context.worker_defaults);
            let revision = Revision::of(&desired.deployment);
            let Context { client, applied, .. } = context;
            let apply = apply::apply(desired, objects, connection.as_deref(), client, applied);
            (Box::pin(apply).await, revision)
        }
        Err(invalid) => (apply::skip_invalid(invalid, objects, &context.client).await, None),
    };
    let Diagnosis { cause, check_after, .. } = match &outcome.workers {
        Ok(Workers::Deployed(_)) => context.diagnose_pods(queue, revision).await,
        Ok(Workers::Absent) | Err(_) => Diagnosis::default(),
    };
    let now = Time(Timestamp::now());
    let name: Option<QueueName> = queue.name_any().parse().ok();
    let functions = name.as_ref().and_then(|name| context.functions_of(name));
    let refused = name.as_ref().map(|name| context.refused_of(name)).unwrap_or_default();
    let blocked = name.as_ref().zip(connection.as_deref());
    let blocked = blocked
        .map(|(name, connection)| connection.inflight.blocked(name, std::time::Instant::now()));
    let blocked = blocked.unwrap_or_default();
    let lanes_shared = shared_lanes::condition(&context.lanes, queue);
    let functions =
        Functions { count: functions, refused: &refused, lanes_shared: lanes_shared.as_ref() };
    let pending =
        name.as_ref().and_then(|name| context.directory.pending_settings(name, &queue.spec));
    let status = update_status::compute_status(
        queue,
        &outcome,
        cause.as_ref(),
        &functions,
        &blocked,
        pending.as_deref(),
        &now,
    );
    publish_events(queue, &outcome, &status, context).await;
    update_status::write(context, queue, &status).await.map_err(Error::Status)?;
    let settled = outcome.stream.is_ok() && outcome.workers.is_ok() && outcome.auxiliary.is_ok();
    // A settled queue is reconciled check_after when it changes, and by `resync`.
    let check_after = if settled {
        check_after
    } else {
        Some(check_after.unwrap_or(RETRY_DELAY).min(RETRY_DELAY))
    };
    Ok(check_after.map_or_else(Action::await_change, Action::requeue))
}

fn on_error(queue: &AsyncQueue, error: &Error, context: &Context) -> Action {
    context.metrics.reconcile_error(error.category());
    let queue = queue.namespaced_name();
    match error {
        // Logged where the wait began.
        Error::Waiting(why) => debug!(queue, "{why}"),
        error => warn!(queue, "{}", chain(error)),
    }
    Action::requeue(RETRY_DELAY)
}

#[cfg(test)]
mod tests {
    use futures::stream::{iter, pending};

    use super::*;

    #[tokio::test]
    async fn equal_items_are_merged_and_delayed() {
        let begun = Instant::now();
        let mut reconciled: Vec<_> =
            debounced(iter([1, 1, 2]).chain(pending())).take(2).collect().await;
        reconciled.sort_unstable();
        assert_eq!(reconciled, [1, 2]);
        assert!(begun.elapsed() >= DEBOUNCE, "{:?}", begun.elapsed());
    }
}
