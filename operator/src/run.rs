//! Starts the program, and waits until this operator is the leader.

use std::sync::Arc;

use anyhow::Context as _;
use asyncqueue_runtime::{admin, health::Health, nats};
use kube::Client;
use prometheus_client::registry::Registry;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{info, warn};

use crate::{
    Settings, broker::CONNECTION_NAME, leader::Candidate, metrics::Metrics, operate::operate,
};

/// What the parts of the program have in common.
pub(crate) struct Program {
    pub(crate) settings: Settings,
    /// Client of the Kubernetes API.
    pub(crate) client: Client,
    /// The operator's own NATS.
    pub(crate) nats: async_nats::Client,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
}

/// Runs the operator until `shutdown`.
///
/// # Errors
///
/// A setting that can't be used, no configuration for the Kubernetes API, an address that can't be
/// listened on, or a lost lease. It never fails because the API server, the CRD or NATS is
/// unavailable: it waits for them.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    let lease = settings.lease_namespace()?.map(str::to_owned);
    settings.function_namespaces()?;
    let (health, mut registry) = (Health::new(), Registry::default());
    admin::register_build_info(&mut registry);
    let prefixed = registry.sub_registry_with_prefix("asyncqueue_operator");
    let metrics = Metrics::new(prefixed);
    let nats = nats::connect(&settings.nats, CONNECTION_NAME, &health, prefixed).await?;
    let servers = nats::jetstream_check::urls(&settings.nats)?;
    let _jetstream = AbortOnDropHandle::new(tokio::spawn({
        let (nats, health) = (nats.clone(), health.clone());
        async move { nats::jetstream_check::report(&nats, &servers, &health).await }
    }));
    let client = Client::try_default().await.context("there is no way to the Kubernetes API")?;
    let listener = admin::bind(settings.http_addr)?;
    info!(namespaces = %settings.watch_namespaces, "watching");
    let servers = settings.nats.nats_url.as_ref().unwrap_or(&settings.nats.nats_host);
    let has_credentials =
        settings.nats.nats_creds_file.0.is_some() || nats::has_credentials(servers);
    if has_credentials && settings.worker_nats_creds_secret.0.is_none() {
        warn!(
            "NATS asks for credentials, and workers have those alone that their AsyncQueues name: see nats.credentialsSecretRef \
             and the setting worker_nats_creds_secret"
        );
    }

    let done = CancellationToken::new();
    let admin =
        tokio::spawn(admin::serve(listener, health.clone(), Arc::new(registry), done.clone()));
    let program = Program { settings, client, nats, health, metrics };
    let led = tokio::select! {
        led = Box::pin(lead(&program, lease.as_deref(), shutdown)) => led,
        error = nats::client_terminated(&program.nats) => Err(error),
    };
    done.cancel();
    admin.await.context("the server of /metrics failed")?;
    led
}

/// Operates while this operator is the leader, by a Lease in this namespace; without one, always.
async fn lead(
    program: &Program,
    lease: Option<&str>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let Some(namespace) = lease else {
        program.metrics.leads(true);
        return Box::pin(operate(program, shutdown)).await;
    };
    let leader = tokio::select! {
        leader = Candidate::new(program, namespace).elected() => leader,
        () = shutdown.cancelled() => return Ok(()),
    };
    let done = CancellationToken::new();
    // A separate task renews the lease, whatever the rest waits for. It holds the lease until what
    // was begun has ended.
    let mut leading = tokio::spawn(leader.lead(done.clone()));
    tokio::select! {
        operated = Box::pin(operate(program, shutdown)) => {
            done.cancel();
            leading.await.context("the leader election failed")??;
            operated
        }
        deposed = &mut leading => Ok(deposed.context("the leader election failed")??),
    }
}
