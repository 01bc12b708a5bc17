//! Runs everything that the leader does: watches, controllers, queue counts and the directory.

use std::{sync::Arc, time::Duration};

use asyncqueue::directory::{Contents, watch::watch_as_writer};
use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, join_all},
};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    app::App,
    cache::{
        deployment::CachedDeployment,
        disruption_budget::CachedDisruptionBudget,
        health::WatchHealth,
        service_account::CachedServiceAccount,
        watch::{Cacheable, MultiStore, Requirement, Watch},
    },
    controller::{
        self,
        applied::AppliedCache,
        context::{Context, Owned},
        expectations::PendingWrites,
    },
    crd::AsyncQueue,
    default_queue,
    events::Events,
    functions::{
        directory::FunctionCounts,
        published::PublishedDirectory,
        publisher::DirectoryPublisher,
        sources::{FunctionSources, SourceBuilder},
        unknown,
    },
    labels::{MANAGED_BY_LABEL, OPERATOR_NAME, QUEUE_LABEL},
    lane_limits::LaneStates,
    limited_functions::LimitChanges,
    nats::{advisories, connections::NatsPool, lanes, reserve},
    pods::{PodWatch, WorkerPod},
    queue_stats::collector::StatsCollector,
    trigger::{self, ReconcileTrigger},
    worker_defaults::WorkerDefaults,
    worker_image,
};

/// Time limit on shutdown for reconciliations in progress: NATS answers within 5 seconds or not at
/// all, and Kubernetes waits for 30.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(15);

/// The watches of the controllers, one of each kind for each watched namespace or one for all.
struct ControllerWatches {
    queues: Vec<Watch<AsyncQueue>>,
    deployments: Vec<Watch<CachedDeployment>>,
    service_accounts: Vec<Watch<CachedServiceAccount>>,
    budgets: Vec<Watch<CachedDisruptionBudget>>,
    pods: Vec<Watch<WorkerPod>>,
}

/// Everything that runs besides the controllers.
struct Background {
    context: Arc<Context>,
    triggers: ReconcileTrigger,
    publisher: DirectoryPublisher,
    /// Wakes the publisher when a function or a queue changes.
    directory_changed: Arc<Notify>,
    source_watches: Vec<BoxFuture<'static, ()>>,
    contents: watch::Receiver<Option<Contents>>,
    /// The names of the streams in advisories.
    advisories: mpsc::Receiver<String>,
}

/// Runs watches, controllers and background tasks until `shutdown`, and finishes the
/// reconciliations in progress.
pub(crate) async fn run_controllers(app: &App, shutdown: CancellationToken) -> anyhow::Result<()> {
    let App { settings, client, nats, health, metrics, .. } = app;
    let worker_image = tokio::select! {
        image = worker_image::worker_image(settings, client, health) => image?,
        () = shutdown.cancelled() => return Ok(()),
    };
    let (advisory_sender, advisories) = advisories::channel();
    let pool = NatsPool::new(nats.clone(), &settings.nats, health, client.clone(), advisory_sender);
    let pool = Arc::new(pool);
    let watch_health = WatchHealth::new(health.clone(), metrics.clone());
    let watches = ControllerWatches::new(app);
    let (count_sender, function_counts) = watch::channel(None);
    let (failure_sender, failure) = watch::channel(None);
    let contents = watch_as_writer(pool.own().js.clone());
    let directory = PublishedDirectory { contents: contents.clone(), failure };
    let context =
        new_context(app, worker_image, pool.clone(), &watches, function_counts, directory);
    let context = Arc::new(context);

    let directory_changed = Arc::new(Notify::new());
    let mut builder = SourceBuilder {
        client,
        namespaces: &settings.watch_namespaces,
        health: &watch_health,
        changed: &directory_changed,
        watches: Vec::new(),
    };
    let sources = FunctionSources::new(&mut builder, context.deployments.clone());
    let source_watches = builder.watches;
    let publisher = new_publisher(app, &context, sources, failure_sender, count_sender)?;

    let mut triggers = ReconcileTrigger::default();
    let controllers: Vec<_> = controllers(
        app,
        &context,
        watches,
        &watch_health,
        &directory_changed,
        &mut triggers,
        &shutdown,
    );
    let background = Background {
        context: context.clone(),
        triggers,
        publisher,
        directory_changed,
        source_watches,
        contents,
        advisories,
    };
    tokio::select! {
        // On shutdown, the controllers finish the reconciliations in progress and then stop.
        _ = join_all(controllers) => {}
        () = wait_for_forced_shutdown(&context, &shutdown) => {}
        () = background.run(app) => {}
    }
    Ok(())
}

/// Creates the state that all reconciliations share.
fn new_context(
    app: &App,
    worker_image: String,
    pool: Arc<NatsPool>,
    watches: &ControllerWatches,
    function_counts: watch::Receiver<Option<FunctionCounts>>,
    directory: PublishedDirectory,
) -> Context {
    let App { settings, client, metrics, .. } = app;
    Context {
        client: client.clone(),
        nats_pool: pool,
        queues: MultiStore::new(&watches.queues),
        deployments: MultiStore::new(&watches.deployments),
        accounts: MultiStore::new(&watches.service_accounts),
        budgets: MultiStore::new(&watches.budgets),
        pod_watches: MultiStore::new(&watches.pods),
        pods: Arc::default(),
        applied: AppliedCache::default(),
        pending_writes: PendingWrites::default(),
        functions: function_counts,
        lanes: Arc::new(LaneStates::new(settings.lane_limits())),
        directory,
        worker_defaults: WorkerDefaults::new(settings, worker_image),
        events: Events::new(client.clone(), settings.pod_name.0.clone()),
        metrics: metrics.clone(),
    }
}

/// Creates the publisher of the directory.
fn new_publisher(
    app: &App,
    context: &Context,
    sources: FunctionSources,
    failure: watch::Sender<Option<String>>,
    counts: watch::Sender<Option<FunctionCounts>>,
) -> anyhow::Result<DirectoryPublisher> {
    let App { settings, health, metrics, .. } = app;
    Ok(DirectoryPublisher {
        pool: context.nats_pool.clone(),
        queues: context.queues.clone(),
        sources,
        default_queue: settings.default_queue.0.clone(),
        namespaces: settings.function_namespaces()?,
        contents: context.directory.contents.clone(),
        failure,
        counts,
        lanes: context.lanes.clone(),
        events: context.events.clone(),
        health: health.clone(),
        metrics: metrics.clone(),
    })
}

/// Creates a controller for each watched namespace, or one for all, and registers its trigger.
/// `directory_changed` is notified when a queue or a Deployment changes.
fn controllers(
    app: &App,
    context: &Arc<Context>,
    watches: ControllerWatches,
    health: &Arc<WatchHealth>,
    directory_changed: &Arc<Notify>,
    triggers: &mut ReconcileTrigger,
    shutdown: &CancellationToken,
) -> Vec<impl Future<Output = ()> + use<>> {
    let ControllerWatches { queues, deployments, service_accounts, budgets, pods } = watches;
    let namespaces = app.settings.watch_namespaces.iter();
    let owned = deployments.into_iter().zip(service_accounts).zip(budgets).zip(pods);
    let watches = queues.into_iter().zip(owned).zip(namespaces);
    let controllers = watches.map(|((queues, owned), namespace)| {
        let (((deployments, service_accounts), budgets), pods) = owned;
        let notify = || {
            let changed = directory_changed.clone();
            move || changed.notify_one()
        };
        let (queue_changed, deployment_changed) = (notify(), notify());
        let store = queues.store();
        let queues = queues.into_events(health.clone()).inspect(move |_| queue_changed());
        let deployments = deployments.into_events(health.clone());
        let owned = Owned {
            deployments: deployments.inspect(move |_| deployment_changed()),
            accounts: service_accounts.into_events(health.clone()),
            budgets: budgets.into_events(health.clone()),
            pods: pods.into_events(health.clone()),
            pod_watch: PodWatch::new(namespace),
        };
        let trigger = triggers.add(namespace);
        controller::run(context.clone(), store, queues, owned, trigger, shutdown.clone())
    });
    controllers.collect()
}

/// Waits for `shutdown`, and then until the time limit for reconciliations in progress is over.
async fn wait_for_forced_shutdown(context: &Context, shutdown: &CancellationToken) {
    shutdown.cancelled().await;
    // A controller that still waits for complete caches has no reconciliation in progress, and does
    // not stop by itself.
    if context.complete().now_or_never().is_some() {
        sleep(SHUTDOWN_TIMEOUT).await;
        warn!("shutdown timeout exceeded: aborting reconciliations in progress");
    }
}

// === impl ControllerWatches ===

impl ControllerWatches {
    fn new(app: &App) -> Self {
        let worker_pods = format!("{QUEUE_LABEL},{MANAGED_BY_LABEL}={OPERATOR_NAME}");
        Self {
            queues: watch_all(app, "asyncqueues", Requirement::Required),
            deployments: watch_all(app, "deployments", Requirement::Required),
            service_accounts: watch_labelled(
                app,
                "serviceaccounts",
                Requirement::Required,
                QUEUE_LABEL,
            ),
            budgets: watch_labelled(
                app,
                "poddisruptionbudgets",
                Requirement::Required,
                QUEUE_LABEL,
            ),
            pods: watch_labelled(app, "pods", Requirement::BestEffort, &worker_pods),
        }
    }
}

/// Creates the watches of one kind.
fn watch_all<K: Cacheable>(
    app: &App,
    resource: &'static str,
    requirement: Requirement,
) -> Vec<Watch<K>> {
    Watch::for_namespaces(&app.client, resource, requirement, app.settings.watch_namespaces.iter())
}

/// Creates the watches of one kind, for objects with these labels.
fn watch_labelled<K: Cacheable>(
    app: &App,
    resource: &'static str,
    requirement: Requirement,
    labels: &str,
) -> Vec<Watch<K>> {
    let watches = watch_all(app, resource, requirement).into_iter();
    watches.map(|watch| watch.with_labels(labels)).collect()
}

// === impl Background ===

impl Background {
    /// Runs everything for as long as it is polled.
    async fn run(self, app: &App) {
        let Self { context, triggers, publisher, directory_changed, .. } = self;
        let Context { nats_pool, queues, events, .. } = &*context;
        let collector = StatsCollector {
            context: context.clone(),
            triggers: triggers.clone(),
            depth: app.depth.clone(),
            limit_changes: LimitChanges::default(),
        };
        tokio::join!(
            join_all(self.source_watches),
            publisher.run(directory_changed.clone()),
            unknown::run(nats_pool.own(), queues, events, self.contents),
            advisories::enqueue_affected(self.advisories, queues, &triggers),
            collector.run(),
            trigger::resync(queues, &triggers),
            reserve::run(nats_pool, queues),
            lanes::run(nats_pool, queues, &context.lanes, &directory_changed),
            default_queue::ensure(&app.client, queues, &app.settings),
        );
    }
}
