//! Puts the operator together and runs it.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use asyncqueue_runtime::{admin, health::Health, nats};
use futures::{FutureExt, StreamExt, future::join_all};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Service, ServiceAccount},
    policy::v1::PodDisruptionBudget,
};
use kube::{Client, ResourceExt};
use prometheus_client::registry::Registry;
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    Settings,
    broker::{Brokers, CONNECTION_NAME},
    controller::{
        self, Context,
        build::{Installation, QUEUE_LABEL},
    },
    crd::AsyncQueue,
    default_queue,
    directory::Librarian,
    events::Events,
    image,
    metrics::Metrics,
    watch::{Stores, Watch, Watches},
};

/// What has begun when the operator is told to end has this long: NATS answers within 5 seconds or not at all, and
/// Kubernetes waits 30.
const DRAIN: Duration = Duration::from_secs(15);

/// Runs the operator until `shutdown`.
///
/// # Errors
///
/// A setting that can't be used, no configuration for the Kubernetes API, or an address that can't be listened on. Never
/// because the API server, the CRD or NATS is away: that is waited for.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    let (health, mut registry) = (Health::new(), Registry::default());
    admin::register_build_info(&mut registry);
    let prefixed = registry.sub_registry_with_prefix("asyncqueue_operator");
    let metrics = Metrics::new(prefixed);
    let nats = nats::connect(&settings.nats, CONNECTION_NAME, &health, prefixed).await?;
    let client = Client::try_default().await.context("there is no way to the Kubernetes API")?;
    let listener = admin::bind(settings.http_addr).await?;
    info!(namespaces = ?settings.watch_namespaces.places().collect::<Vec<_>>(), "watching");

    let done = CancellationToken::new();
    let admin = tokio::spawn(admin::serve(listener, health.clone(), Arc::new(registry), done.clone()));
    let brokers = Arc::new(Brokers::new(nats, client.clone()));
    let operated = Box::pin(operate(&settings, &client, brokers, &health, &metrics, shutdown)).await;
    done.cancel();
    admin.await.context("the server of /metrics failed")?;
    operated
}

/// Watches and acts until `shutdown`, and finishes what has begun.
async fn operate(
    settings: &Settings,
    client: &Client,
    brokers: Arc<Brokers>,
    health: &Health,
    metrics: &Metrics,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let watches = Watches::new(health.clone(), metrics.clone());
    let places: Vec<_> = settings.watch_namespaces.places().collect();
    let queues: Vec<Watch<AsyncQueue>> =
        places.iter().map(|place| Watch::new(client, "asyncqueues", *place)).collect();
    let deployments: Vec<Watch<Deployment>> =
        places.iter().map(|place| Watch::new(client, "deployments", *place)).collect();
    let services: Vec<Watch<Service>> =
        places.iter().map(|place| Watch::new(client, "services", *place)).collect();
    let accounts: Vec<Watch<ServiceAccount>> = places
        .iter()
        .map(|place| Watch::new(client, "serviceaccounts", *place).labelled(QUEUE_LABEL))
        .collect();
    let budgets: Vec<Watch<PodDisruptionBudget>> = places
        .iter()
        .map(|place| Watch::new(client, "poddisruptionbudgets", *place).labelled(QUEUE_LABEL))
        .collect();

    let worker_image = tokio::select! {
        image = image::worker_image(settings, client, health) => image?,
        () = shutdown.cancelled() => return Ok(()),
    };
    let (counts, functions) = watch::channel(None);
    let context = Arc::new(Context {
        client: client.clone(),
        brokers: brokers.clone(),
        queues: Stores::new(&queues),
        deployments: Stores::new(&deployments),
        accounts: Stores::new(&accounts),
        budgets: Stores::new(&budgets),
        functions,
        installation: Installation {
            nats: settings.nats.clone(),
            worker_image,
            function_namespace: settings.function_namespace.clone(),
            gateway_url: settings.gateway_url.0.clone(),
            log_encoding: settings.log.log_encoding,
        },
        events: Events::new(client.clone(), settings.pod_name.0.clone()),
        metrics: metrics.clone(),
    });
    let librarian = Librarian {
        brokers,
        queues: context.queues.clone(),
        deployments: context.deployments.clone(),
        services: Stores::new(&services),
        default_queue: settings.default_queue.0.clone(),
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
    let beside_workers = accounts.into_iter().zip(budgets);
    let each_place = queues.into_iter().zip(deployments).zip(beside_workers);
    let controllers = each_place.map(|((queues, deployments), (accounts, budgets))| {
        let (store, changed, changed_too) = (queues.store(), notify(), notify());
        let queues = queues.follow(watches.clone(), |_| {}).inspect(move |_| changed());
        let deployments = deployments.follow(watches.clone(), trim_function).inspect(move |_| changed_too());
        let accounts = accounts.follow(watches.clone(), |_| {});
        let budgets = budgets.follow(watches.clone(), |_| {});
        controller::run(context.clone(), store, queues, deployments, accounts, budgets, shutdown.clone())
    });
    let services = services.into_iter().map(|services| {
        let changed = notify();
        services.follow(watches.clone(), |_| {}).for_each(move |_| {
            changed();
            std::future::ready(())
        })
    });
    let default_queue = async {
        if let Some(name) = settings.default_queue.as_ref() {
            let namespace = settings.default_queue_namespace();
            default_queue::ensure(client, &context.queues, name, namespace).await;
        }
    };
    let beside = async {
        tokio::join!(join_all(services), librarian.run(changed.clone()), default_queue);
    };
    let cut_off = async {
        shutdown.cancelled().await;
        // A controller does not end before it has begun, which is when all is known.
        if context.complete().now_or_never().is_some() {
            sleep(DRAIN).await;
            warn!("what was begun did not end in time and is cut off");
        }
    };
    tokio::select! {
        // They end when told to, and finish what they have begun.
        _ = join_all(controllers) => {}
        () = cut_off => {}
        () = beside => {}
    }
    Ok(())
}

/// Of a Deployment that is not ours, what makes it a function is all that is read; there may be thousands of them.
fn trim_function(deployment: &mut Deployment) {
    if deployment.labels().contains_key(QUEUE_LABEL) {
        return;
    }
    deployment.status = None;
    deployment.metadata.annotations = None;
    if let Some(spec) = &mut deployment.spec {
        spec.template.spec = None;
    }
}
