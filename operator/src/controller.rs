//! The controller of `AsyncQueues`: dereference -> validate -> build -> apply -> status.
//!
//! Only [`dereference`], [`apply`] and the write of the status use clients. All steps between them
//! work on plain values. Each reconciliation reads the whole state and can be repeated at any time.

use std::{hash::Hash, sync::Arc, time::Duration};

use asyncqueue::QueueName;
use futures::{Stream, StreamExt, stream::select};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{
        Controller,
        controller::{self, Action},
        finalizer::{Error as Finalizing, Event as FinalizerEvent, finalizer},
        reflector::{ObjectRef, Store},
        scheduler::{ScheduleRequest, scheduler},
        watcher::Event,
    },
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::{
    apply::{Outcome, Workers},
    build::{Installation, Revision},
    news::news,
    status::Functions,
    verified::Verified,
    written::Written,
};
use crate::{
    cache::{
        deployment::Workload,
        disruption_budget::Budget,
        object::{Meta, Slim},
        service_account::Account,
        watch::Stores,
    },
    conditions::{self, Status, find, kind},
    crd::{AsyncQueue, AsyncQueueStatus, Condition},
    error::chain,
    events::Events,
    finalizer::cleanup,
    functions::{Counts, Refused},
    metrics::Metrics,
    nats::connections::Brokers,
    pods::{self, Follower, Look, Pods, WorkerPod},
    spec::full_name,
};

pub(crate) mod apply;
pub(crate) mod build;
mod current;
pub(crate) mod dereference;
pub(crate) mod fingerprint;
mod news;
pub(crate) mod status;
pub(crate) mod validate;
pub(crate) mod verified;
mod workers;
pub(crate) mod written;

/// The finalizer that keeps an `AsyncQueue` until its stream is deleted or released.
pub(crate) const FINALIZER: &str = "asyncqueue.io/stream";

/// Delay between two reconciliations of a queue that is not yet in its desired state.
const RETRY: Duration = Duration::from_secs(5);

/// Reason of the event that lists what was created or changed on NATS.
const APPLIED: &str = "Applied";

/// Reason of the event for a recreated stream, whose calls are lost.
const STREAM_RECREATED: &str = "StreamRecreated";

/// Delay between a change of a queue's objects and the one reconciliation for it. These objects
/// change together, and mostly because the operator has just written them.
///
/// Also the time to wait for the watch to show what the operator wrote to the queue itself.
const SETTLE: Duration = Duration::from_millis(500);

/// Number of queues that are reconciled concurrently. They wait for NATS and the API server most of
/// the time.
const CONCURRENCY: u16 = 16;

/// State that all reconciliations share.
pub(crate) struct Context {
    /// Client of the Kubernetes API.
    pub(crate) client: Client,
    /// Connections to NATS.
    pub(crate) brokers: Arc<Brokers>,
    /// All `AsyncQueues`.
    pub(crate) queues: Stores<AsyncQueue>,
    /// All Deployments.
    pub(crate) deployments: Stores<Workload>,
    /// The `ServiceAccounts` of workers.
    pub(crate) accounts: Stores<Account>,
    /// The `PodDisruptionBudgets` of workers.
    pub(crate) budgets: Stores<Budget>,
    /// The pods of workers. They are used only to find causes: all else works without the
    /// permission to watch them.
    pub(crate) pod_watches: Stores<WorkerPod>,
    /// The pods of workers that are not ready.
    pub(crate) pods: Arc<Pods>,
    /// The Deployments of workers that are known to be as they were applied.
    pub(crate) verified: Verified,
    /// What was written to queues and is not yet seen by the watch.
    pub(crate) written: Written,
    /// Number of functions of each queue; `None` until it is known.
    pub(crate) functions: watch::Receiver<Option<Counts>>,
    /// Settings that all queues have in common.
    pub(crate) installation: Installation,
    /// Publisher of events.
    pub(crate) events: Events,
    /// Metrics of the operator.
    pub(crate) metrics: Metrics,
}

/// The events from the watch of one kind of objects.
pub(crate) trait Changes<K>: Stream<Item = Event<K>> + Send + 'static {}

impl<K, S: Stream<Item = Event<K>> + Send + 'static> Changes<K> for S {}

/// The changes of the Kubernetes objects that are created for queues.
pub(crate) struct Owned<D, A, B, P> {
    pub(crate) deployments: D,
    pub(crate) accounts: A,
    pub(crate) budgets: B,
    /// The pods of workers, and the follower that processes their events.
    pub(crate) pods: P,
    pub(crate) follower: Follower,
}

/// Reason why a reconciliation did not complete. The reconciliation is retried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API server did not accept a status.
    #[error("the status could not be written")]
    Status(#[source] kube::Error),
    /// The API server did not delete a Deployment.
    #[error("the workers could not be deleted")]
    Delete(#[source] kube::Error),
    /// A queue is being deleted, and its stream can't be deleted or released yet.
    #[error("{0}")]
    Waiting(String),
    /// The API server did not add or remove the finalizer.
    #[error("the finalizer could not be changed")]
    Finalizer(#[source] kube::Error),
    /// The object has no name. The API server does not accept such objects.
    #[error("the object has no name")]
    Nameless,
}

/// Runs the controller over one store of `AsyncQueues` until `shutdown`.
pub(crate) async fn run(
    context: Arc<Context>,
    store: Store<AsyncQueue>,
    queues: impl Changes<AsyncQueue>,
    owned: Owned<
        impl Changes<Workload>,
        impl Changes<Account>,
        impl Changes<Budget>,
        impl Changes<WorkerPod>,
    >,
    triggers: impl Stream<Item = ObjectRef<AsyncQueue>> + Send + 'static,
    shutdown: CancellationToken,
) {
    let Owned { deployments, accounts, budgets, pods, mut follower } = owned;
    let seen = context.pods.clone();
    let pods = pods.filter_map(move |event| std::future::ready(follower.take(&event, &seen)));
    let owned =
        select(select(owners(deployments), owners(accounts)), select(owners(budgets), pods));
    Controller::for_stream(news(queues), store)
        .reconcile_on(later(owned))
        .reconcile_on(triggers)
        .with_config(controller::Config::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(reconcile, |queue, error, context| on_error(&queue, error, &context), context)
        .for_each(|done| {
            match done {
                Ok((queue, _)) => debug!(%queue, "reconciled"),
                Err(controller::Error::ObjectNotFound(queue)) => debug!(%queue, "gone"),
                // `on_error` has logged it.
                Err(controller::Error::ReconcilerFailed(..)) => {}
                Err(error) => warn!(%error, "the controller stumbled"),
            }
            std::future::ready(())
        })
        .await;
}

/// Returns the queues whose objects change.
fn owners<W, T: Send>(
    changes: impl Changes<Slim<W, T>>,
) -> impl Stream<Item = ObjectRef<AsyncQueue>> + Send {
    let queue = |event: Event<Slim<W, T>>| match event {
        Event::Apply(object) | Event::InitApply(object) | Event::Delete(object) => {
            let Meta { owner, namespace, .. } = object.meta;
            Some(ObjectRef::new(&owner?.name).within(&namespace))
        }
        Event::Init | Event::InitDone => None,
    };
    changes.filter_map(move |event| std::future::ready(queue(event)))
}

/// Delays the items by [`SETTLE`] and merges equal items that arrive during the delay.
fn later<T: Clone + Eq + Hash + Send>(
    stream: impl Stream<Item = T> + Send,
) -> impl Stream<Item = T> + Send {
    scheduler(stream.map(|message| ScheduleRequest { message, run_at: Instant::now() + SETTLE }))
}

async fn reconcile(queue: Arc<AsyncQueue>, context: Arc<Context>) -> Result<Action, Error> {
    // An object that the watches have not listed yet could be taken for missing.
    context.complete().await;
    if context.written.is_ahead_of(&queue) {
        return Ok(Action::requeue(SETTLE));
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
    let (seen, broker) = dereference::dereference(queue, context).await;
    let (outcome, revision) = match validate::validate(queue, &seen) {
        Ok(valid) => {
            let prepared = build::build(&valid, &context.installation);
            let revision = Revision::of(&prepared.workers);
            let Context { client, verified, .. } = context;
            let applied = apply::apply(prepared, &seen, broker.as_deref(), client, verified);
            (Box::pin(applied).await, revision)
        }
        Err(invalid) => (apply::refuse(invalid, &seen, &context.client).await, None),
    };
    let Look { cause, again, .. } = match &outcome.workers {
        Ok(Workers::Deployed(_)) => context.look_at_pods(queue, revision).await,
        Ok(Workers::Absent) | Err(_) => Look::default(),
    };
    let now = Time(Timestamp::now());
    let name: Option<QueueName> = queue.name_any().parse().ok();
    let functions = name.as_ref().and_then(|name| context.functions_of(name));
    let refused = name.as_ref().map(|name| context.refused_of(name)).unwrap_or_default();
    let blocked = name.as_ref().zip(broker.as_deref());
    let blocked =
        blocked.map(|(name, broker)| broker.running.blocked(name, std::time::Instant::now()));
    let (blocked, functions) =
        (blocked.unwrap_or_default(), Functions { count: functions, refused: &refused });
    let status = status::status(queue, &outcome, cause.as_ref(), &functions, &blocked, &now);
    tell(queue, &outcome, &status, context).await;
    status::write(context, queue, &status).await.map_err(Error::Status)?;
    let settled = outcome.stream.is_ok() && outcome.workers.is_ok() && outcome.beside.is_ok();
    // A settled queue is reconciled again when it changes, and by `resync`.
    let again = if settled { again } else { Some(again.unwrap_or(RETRY).min(RETRY)) };
    Ok(again.map_or_else(Action::await_change, Action::requeue))
}

/// Accepts that an object is gone, or that another one has its name.
fn ignore_gone<T>(result: kube::Result<T>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        result => result.map(|_| ()),
    }
}

/// Reports changes, and nothing else, as events and in the log.
async fn tell(queue: &AsyncQueue, outcome: &Outcome, status: &AsyncQueueStatus, context: &Context) {
    let (object, name) = (queue.object_ref(&()), full_name(queue));
    let changes = changes(outcome);
    if let Some(changes) = &changes {
        info!(queue = name, "{changes}");
    }
    if let Some(stream) = queue.status.as_ref().and_then(|before| recreated(before, status)) {
        let note = format!(
            "stream {stream} was created anew: somebody deleted it, and the calls that it held with it"
        );
        warn!(queue = name, "{note}");
        context.events.warning(&object, STREAM_RECREATED, note).await;
    }
    let before = queue.status.as_ref();
    let turned =
        turned(before, status, kind::READY).or_else(|| turned(before, status, kind::STALLED));
    let Some(turned) = turned else {
        if let Some(changes) = changes {
            context.events.normal(&object, APPLIED, changes).await;
        }
        return;
    };
    // One event for both if both come at once.
    let (status, reason, message) =
        (turned.status.as_str(), turned.reason.as_str(), &turned.message);
    let is_ready = turned.kind.as_str() == kind::READY && status == Status::True.as_str();
    let note =
        changes.map_or_else(|| message.to_string(), |changes| format!("{message}; {changes}"));
    if is_ready || reason == conditions::reason::PROGRESSING {
        info!(queue = name, ready = is_ready, reason, "{message}");
        context.events.normal(&object, reason, note).await;
    } else {
        warn!(queue = name, ready = is_ready, reason, "{message}");
        context.events.warning(&object, reason, note).await;
    }
}

/// Returns a condition if its status or its reason has changed.
fn turned<'a>(
    before: Option<&AsyncQueueStatus>,
    now: &'a AsyncQueueStatus,
    kind: &str,
) -> Option<&'a Condition> {
    let before = before.and_then(|status| find(&status.conditions, kind));
    let same = |now: &Condition| {
        before.is_some_and(|before| before.reason == now.reason && before.status == now.status)
    };
    find(&now.conditions, kind).filter(|now| !same(now))
}

/// Describes what was created or changed on NATS, if anything was.
fn changes(outcome: &Outcome) -> Option<String> {
    let changes = &outcome.stream.as_ref().ok()?.changes;
    (!changes.is_empty()).then(|| changes.join(", "))
}

/// Returns the name of the stream if it is another stream than before.
fn recreated<'a>(before: &AsyncQueueStatus, now: &'a AsyncQueueStatus) -> Option<&'a String> {
    let created = before.stream_created.as_ref().zip(now.stream_created.as_ref());
    created.filter(|(before, now)| before != now).and(now.stream.as_ref())
}

// === impl Context ===

impl Context {
    /// Waits until all watches have listed everything.
    pub(crate) async fn complete(&self) {
        tokio::join!(
            self.queues.complete(),
            self.deployments.complete(),
            self.accounts.complete(),
            self.budgets.complete(),
            self.pod_watches.complete(),
        );
    }

    /// Finds why a queue's workers do not start. Reads the events of a pod where only they may name
    /// the cause.
    async fn look_at_pods(&self, queue: &AsyncQueue, revision: Option<Revision>) -> Look {
        let key: pods::Key =
            (queue.namespace().unwrap_or_default().into(), queue.name_any().into());
        let look = self.pods.look(&key, revision, Timestamp::now());
        let Some(pod) = look.unexplained else { return look };
        let now = std::time::Instant::now();
        if !self.pods.may_read_events(now) {
            return Look { again: look.again.or(Some(RETRY)), ..look };
        }
        let cause = pods::events::read(&self.client, &key.0, pod).await;
        self.pods.note(&key, pod, cause, now);
        self.pods.look(&key, revision, Timestamp::now())
    }

    /// Returns the number of functions that send their calls to a queue, if it is known.
    pub(crate) fn functions_of(&self, queue: &QueueName) -> Option<usize> {
        let counts = self.functions.borrow();
        counts.as_ref().map(|counts| counts.get(queue).map_or(0, |count| count.functions))
    }

    /// Returns the functions that name a queue and are not admitted to it.
    pub(crate) fn refused_of(&self, queue: &QueueName) -> Refused {
        let counts = self.functions.borrow();
        let count = counts.as_ref().and_then(|counts| counts.get(queue));
        count.map(|count| count.refused.clone()).unwrap_or_default()
    }
}

// === impl Error ===

impl Error {
    /// All values of [`Self::category`].
    pub(crate) const CATEGORIES: [&str; 5] =
        ["status", "delete", "waiting", "finalizer", "nameless"];

    /// Returns a fixed name for each error, as a label of the metric.
    fn category(&self) -> &'static str {
        match self {
            Self::Status(_) => "status",
            Self::Delete(_) => "delete",
            Self::Waiting(_) => "waiting",
            Self::Finalizer(_) => "finalizer",
            Self::Nameless => "nameless",
        }
    }
}

impl From<Finalizing<Self>> for Error {
    fn from(error: Finalizing<Self>) -> Self {
        match error {
            Finalizing::ApplyFailed(error) | Finalizing::CleanupFailed(error) => error,
            Finalizing::AddFinalizer(error) | Finalizing::RemoveFinalizer(error) => {
                Self::Finalizer(error)
            }
            Finalizing::UnnamedObject | Finalizing::InvalidFinalizer => Self::Nameless,
        }
    }
}

fn on_error(queue: &AsyncQueue, error: &Error, context: &Context) -> Action {
    context.metrics.reconcile_error(error.category());
    let queue = full_name(queue);
    match error {
        // Logged where the wait began.
        Error::Waiting(why) => debug!(queue, "{why}"),
        error => warn!(queue, "{}", chain(error)),
    }
    Action::requeue(RETRY)
}

#[cfg(test)]
mod tests {
    use futures::stream::{iter, pending};

    use super::*;
    use crate::{
        conditions::{Verdict, reason},
        fixtures,
    };

    #[tokio::test]
    async fn what_comes_together_is_looked_at_once_and_later() {
        let begun = Instant::now();
        let mut looks: Vec<_> = later(iter([1, 1, 2]).chain(pending())).take(2).collect().await;
        looks.sort_unstable();
        assert_eq!(looks, [1, 2]);
        assert!(begun.elapsed() >= SETTLE, "{:?}", begun.elapsed());
    }

    #[test]
    fn a_stream_is_another_one_when_it_was_created_again() {
        let of = |second: Option<i64>| AsyncQueueStatus {
            stream: second.map(|_| "s".to_owned()),
            stream_created: second.map(fixtures::second),
            ..AsyncQueueStatus::default()
        };
        assert_eq!(recreated(&of(Some(1)), &of(Some(2))), Some(&"s".to_owned()));
        for (before, now) in [(Some(1), Some(1)), (None, Some(1)), (Some(1), None)] {
            assert_eq!(recreated(&of(before), &of(now)), None);
        }
    }

    #[test]
    fn a_queue_turns_when_it_is_ready_or_not_for_another_reason() {
        let of = |verdict: Verdict| AsyncQueueStatus {
            conditions: vec![verdict.into_condition(
                kind::READY,
                Some(1),
                &[],
                &fixtures::second(1),
            )],
            ..AsyncQueueStatus::default()
        };
        let away = |message| of(Verdict::no(reason::NATS_UNAVAILABLE, message));
        let (refused, ready) = (
            of(Verdict::no(reason::NATS_REFUSED, "no")),
            of(Verdict::yes(reason::RECONCILED, "well")),
        );
        for (before, now) in [
            (None, &ready),
            (Some(&AsyncQueueStatus::default()), &ready),
            (Some(&ready), &refused),
            (Some(&away("for 1 s")), &refused),
        ] {
            assert_eq!(
                turned(before, now, kind::READY),
                find(&now.conditions, kind::READY),
                "{before:?} {now:?}"
            );
        }
        assert_eq!(turned(Some(&away("for 1 s")), &away("for 2 s"), kind::READY), None);
        assert_eq!(turned(Some(&ready), &AsyncQueueStatus::default(), kind::READY), None);
    }
}
