//! Starts the program, and waits until this operator is the leader.

use std::sync::Arc;

use anyhow::Context as _;
use asyncqueue_runtime::{admin, health::Health, nats};
use kube::Client;
use prometheus_client::registry::Registry;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{info, warn};

use crate::{
    Settings,
    app::App,
    controller::error::Error,
    depth::{DEPTH_PATH, DepthEndpoint},
    leader_election::LeaderElector,
    manager::run_controllers,
    metrics::Metrics,
    nats::connections::CONNECTION_NAME,
};

/// Context of the error if the task that holds the lease panics.
const ELECTION_PANICKED: &str = "the task of the leader election failed";

/// Runs the operator until `shutdown`.
///
/// # Errors
///
/// A setting that can't be used, no configuration for the Kubernetes API, an address that can't be
/// listened on, or a lost lease. It never fails because the API server, the CRD or NATS is
/// unavailable: it waits for them.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    let lease_namespace = settings.lease_namespace()?.map(str::to_owned);
    settings.function_namespaces()?;
    let (health, mut registry) = (Health::new(), Registry::default());
    admin::register_build_info(&mut registry);
    let prefixed = registry.sub_registry_with_prefix("asyncqueue_operator");
    let metrics = Metrics::new(prefixed, Error::CATEGORIES);
    let nats = nats::connect(&settings.nats, CONNECTION_NAME, &health, prefixed).await?;
    let servers = nats::jetstream_check::urls(&settings.nats)?;
    let _jetstream = AbortOnDropHandle::new(tokio::spawn({
        let (nats, health, servers) = (nats.clone(), health.clone(), servers.clone());
        async move { nats::jetstream_check::report(&nats, &servers, &health).await }
    }));
    let client =
        Client::try_default().await.context("failed to configure the Kubernetes client")?;
    let listener = admin::bind(settings.http_addr)?;
    info!(namespaces = %settings.watch_namespaces, "watching namespaces");
    let nats_url = settings.nats.nats_url.as_ref().unwrap_or(&settings.nats.nats_host);
    let has_credentials =
        settings.nats.nats_creds_file.0.is_some() || nats::has_credentials(nats_url);
    if has_credentials && settings.worker_nats_creds_secret.0.is_none() {
        warn!(
            "NATS requires credentials, but workers have only those of their AsyncQueue \
             (spec.nats.credentialsSecretRef). To give all workers credentials, set \
             worker_nats_creds_secret"
        );
    }

    let done = CancellationToken::new();
    let depth = DepthEndpoint::new();
    let endpoint = admin::Endpoint {
        path: DEPTH_PATH,
        answer: {
            let depth = depth.clone();
            move |method: &_, path: &_| depth.answer(method, path)
        },
    };
    let (registry, served) = (Arc::new(registry), done.clone());
    let admin =
        tokio::spawn(admin::serve_with(listener, health.clone(), registry, endpoint, served));
    let app = App { settings, client, nats, health, metrics, depth };
    let finished = tokio::select! {
        finished = Box::pin(lead(&app, lease_namespace.as_deref(), shutdown)) => finished,
        error = nats::failure(&app.nats, &servers) => Err(error),
    };
    done.cancel();
    admin.await.context("the server of /metrics failed")?;
    finished
}

/// Runs the controllers while this operator holds the Lease in this namespace; without a namespace,
/// always.
async fn lead(
    app: &App,
    lease_namespace: Option<&str>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let Some(namespace) = lease_namespace else {
        app.metrics.set_leader(true);
        return Box::pin(run_controllers(app, shutdown)).await;
    };
    let elector = LeaderElector::new(app, namespace);
    let lease = tokio::select! {
        lease = elector.acquire() => lease,
        () = shutdown.cancelled() => return Ok(()),
    };
    let done = CancellationToken::new();
    // A separate task renews the lease, whatever the controllers wait for. It holds the lease until
    // they have finished what they have started.
    let mut held = tokio::spawn(lease.hold(done.clone()));
    tokio::select! {
        finished = Box::pin(run_controllers(app, shutdown)) => {
            done.cancel();
            held.await.context(ELECTION_PANICKED)??;
            finished
        }
        lost = &mut held => Ok(lost.context(ELECTION_PANICKED)??),
    }
}
