//! Runs all parts of the working operator: watches, the controller, the numbers, the directory.

use std::{sync::Arc, time::Duration};

use asyncqueue::directory::watch::watch_as_writer;
use futures::{FutureExt, Stream, StreamExt, future::join_all};
use k8s_openapi::api::core::v1::Service;
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    Settings,
    account::Account,
    advisories,
    broker::Brokers,
    budget::Budget,
    controller::{
        self, Context, Owned,
        build::{Installation, QUEUE_LABEL},
        verified::Verified,
        written::Written,
    },
    crd::AsyncQueue,
    default_queue,
    directory::Librarian,
    events::Events,
    figures::refresh::Refresher,
    image,
    openfaas::Function,
    pods::{Follower, WorkerPod},
    reserve, resync,
    run::Program,
    triggers::Triggers,
    unknown_functions,
    watch::{Need, Stores, Watch, Watched, Watches},
    workload::Workload,
};

/// The labels of the workers' pods.
const WORKERS: &str = "asyncqueue.io/queue,app.kubernetes.io/managed-by=asyncqueue-operator";

/// Time on shutdown for what has already begun: NATS answers within 5 seconds or not at all, and
/// Kubernetes waits for 30.
const DRAIN: Duration = Duration::from_secs(15);

/// Watches and acts until `shutdown`, and finishes what has begun.
#[expect(clippy::too_many_lines, reason = "it connects the parts of the program, in order")]
pub(crate) async fn operate(program: &Program, shutdown: CancellationToken) -> anyhow::Result<()> {
    let Program { settings, client, nats, health, metrics } = program;
    let (changed_streams, told) = advisories::channel();
    let brokers = Arc::new(Brokers::new(
        nats.clone(),
        &settings.nats,
        health,
        client.clone(),
        changed_streams,
    ));
    let watches = Watches::new(health.clone(), metrics.clone());
    let queues = watch_all::<AsyncQueue>(program, "asyncqueues", Need::Required);
    let deployments = watch_all::<Workload>(program, "deployments", Need::Required);
    let services = watch_all::<Service>(program, "services", Need::Required);
    let functions = watch_all::<Function>(program, "functions", Need::Optional);
    let accounts = watch_ours::<Account>(program, "serviceaccounts");
    let budgets = watch_ours::<Budget>(program, "poddisruptionbudgets");
    let pods = watch_pods(program);

    let worker_image = tokio::select! {
        image = image::worker_image(settings, client, health) => image?,
        () = shutdown.cancelled() => return Ok(()),
    };
    let (counts, counted) = watch::channel(None);
    let context = Arc::new(Context {
        client: client.clone(),
        brokers: brokers.clone(),
        queues: Stores::new(&queues),
        deployments: Stores::new(&deployments),
        accounts: Stores::new(&accounts),
        budgets: Stores::new(&budgets),
        pod_watches: Stores::new(&pods),
        pods: Arc::default(),
        verified: Verified::default(),
        written: Written::default(),
        functions: counted,
        installation: installation(settings, worker_image),
        events: Events::new(client.clone(), settings.pod_name.0.clone()),
        metrics: metrics.clone(),
    });
    let librarian = Librarian {
        written: watch_as_writer(brokers.own().js.clone()),
        brokers,
        queues: context.queues.clone(),
        deployments: context.deployments.clone(),
        services: Stores::new(&services),
        functions: Stores::new(&functions),
        default_queue: settings.default_queue.0.clone(),
        namespaces: settings.function_namespaces()?,
        counts,
        events: context.events.clone(),
        health: health.clone(),
        metrics: metrics.clone(),
    };

    let changed = Arc::new(Notify::new());
    let notify = || {
        let changed = changed.clone();
        move || changed.notify_one()
    };
    let mut triggers = Triggers::default();
    let places: Vec<_> =
        settings.watch_namespaces.places().map(|place| triggers.add(place)).collect();
    let followers = settings.watch_namespaces.places().map(Follower::new);
    let owned =
        deployments.into_iter().zip(accounts).zip(budgets).zip(pods.into_iter().zip(followers));
    let controllers =
        queues.into_iter().zip(owned).zip(places).map(|((queues, owned), triggers)| {
            let (((deployments, accounts), budgets), (pods, follower)) = owned;
            let (store, changed, changed_too) = (queues.store(), notify(), notify());
            let queues = queues.follow(watches.clone()).inspect(move |_| changed());
            let owned = Owned {
                deployments: deployments.follow(watches.clone()).inspect(move |_| changed_too()),
                accounts: accounts.follow(watches.clone()),
                budgets: budgets.follow(watches.clone()),
                pods: pods.follow(watches.clone()),
                follower,
            };
            controller::run(context.clone(), store, queues, owned, triggers, shutdown.clone())
        });
    let services =
        services.into_iter().map(|services| drain(services.follow(watches.clone()), notify()));
    let functions =
        functions.into_iter().map(|functions| drain(functions.follow(watches.clone()), notify()));
    let beside = async {
        let unknown_functions = unknown_functions::run(&context, librarian.written.clone());
        let directory = librarian.run(changed.clone());
        let notices = advisories::heed(told, &context.queues, &triggers);
        let figures = Refresher { context: context.clone(), triggers: triggers.clone() }.run();
        tokio::join!(
            join_all(services),
            join_all(functions),
            directory,
            notices,
            figures,
            resync::run(&context.queues, &triggers),
            reserve::run(&context.brokers, &context.queues),
            unknown_functions,
            default_queue::ensure(client, &context.queues, settings),
        );
    };
    tokio::select! {
        // The controllers stop on shutdown, and finish what they have begun.
        _ = join_all(controllers) => {}
        () = cut_off(&context, &shutdown) => {}
        () = beside => {}
    }
    Ok(())
}

/// Waits for `shutdown`, and then until the time for what has begun is over.
async fn cut_off(context: &Context, shutdown: &CancellationToken) {
    shutdown.cancelled().await;
    // A controller that still waits for complete caches has not begun, and does not stop by itself.
    if context.complete().now_or_never().is_some() {
        sleep(DRAIN).await;
        warn!("what was begun did not end in time and is cut off");
    }
}

/// Returns the settings that the workers of all queues have in common.
fn installation(settings: &Settings, worker_image: String) -> Installation {
    Installation {
        nats: settings.nats.clone(),
        nats_credentials: settings.worker_nats_creds_secret.0.clone(),
        nats_authority: settings.worker_nats_ca_secret.0.clone(),
        worker_image,
        image_pull_secrets: settings.worker_image_pull_secrets.references(),
        function_namespace: settings.function_namespace.clone(),
        function_namespaces: settings.function_namespaces.clone(),
        platform_namespace: settings.pod_namespace.0.clone(),
        gateway_url: settings.gateway_url.0.clone(),
        allowed_streams: settings.allowed_streams.clone(),
        log_encoding: settings.log.log_encoding,
    }
}

/// Creates a watch of one kind in each place.
fn watch_all<K: Watched>(program: &Program, resource: &'static str, need: Need) -> Vec<Watch<K>> {
    let places = program.settings.watch_namespaces.places();
    places.map(|namespace| Watch::new(&program.client, resource, need, namespace)).collect()
}

/// Creates a watch, in each place, of one kind of objects with a queue's label, whatever created
/// them.
fn watch_ours<K: Watched>(program: &Program, resource: &'static str) -> Vec<Watch<K>> {
    let watches = watch_all(program, resource, Need::Required).into_iter();
    watches.map(|watch| watch.labelled(QUEUE_LABEL)).collect()
}

/// Creates a watch, in each place, of the workers' pods, whatever set their labels.
fn watch_pods(program: &Program) -> Vec<Watch<WorkerPod>> {
    let watches = watch_all(program, "pods", Need::Helpful).into_iter();
    watches.map(|watch| watch.labelled(WORKERS)).collect()
}

/// Keeps a store up to date that no controller uses, and reports every change.
async fn drain<T>(events: impl Stream<Item = T>, changed: impl Fn()) {
    events
        .for_each(|_| {
            changed();
            std::future::ready(())
        })
        .await;
}
