//! Starts the parts of the gateway, and serves requests until the shutdown.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use async_nats::jetstream;
use asyncqueue::function_namespaces::FunctionNamespaces;
use asyncqueue_runtime::{admin, client, health::Health, nats, program::UsageError, server};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    background::BackgroundTasks,
    directory_source::DirectorySource,
    memory_budget::GatewayMemory,
    metrics::Metrics,
    service::{Dependencies, Service},
    settings::Settings,
    unknown_functions::UnknownFunctions,
};

/// Maximum time that running requests have after the shutdown began. It is less than the 30 s that
/// Kubernetes gives a pod, so that the program ends by itself.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(25);

/// The name of the connection in NATS.
const CONNECTION_NAME: &str = "asyncqueue-gateway";

/// A gateway that listens and does not answer yet.
#[derive(Debug)]
pub struct Gateway {
    settings: Settings,
    directory_source: DirectorySource,
    namespaces: FunctionNamespaces,
    http: TcpListener,
    admin: TcpListener,
    http_addr: SocketAddr,
    metrics_addr: SocketAddr,
}

/// Runs a gateway until `shutdown`.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    Gateway::bind(settings)?.run(shutdown).await
}

// === impl Gateway ===

impl Gateway {
    /// Reads the directory file, if there is one, and listens on both addresses.
    pub fn bind(settings: Settings) -> anyhow::Result<Self> {
        let namespaces = FunctionNamespaces::new(
            settings.function_namespace.clone(),
            settings.function_namespaces.clone(),
            settings.pod_namespace.0.clone(),
        )
        .map_err(|error| {
            UsageError(format!("function_namespace or function_namespaces: {error}"))
        })?;
        let directory_source = DirectorySource::open(&settings)?;
        let http = server::bind(settings.http_addr).context("http_addr")?;
        let admin = admin::bind(settings.metrics_addr).context("metrics_addr")?;
        Ok(Self {
            http_addr: http.local_addr()?,
            metrics_addr: admin.local_addr()?,
            settings,
            directory_source,
            namespaces,
            http,
            admin,
        })
    }

    /// Returns the address on which the gateway listens for calls.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// Returns the address on which the gateway listens for scrapes.
    #[must_use]
    pub fn metrics_addr(&self) -> SocketAddr {
        self.metrics_addr
    }

    /// Answers requests until `shutdown`, and then finishes those that had begun.
    pub async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let Self { settings, directory_source, namespaces, http, admin, http_addr, metrics_addr } =
            self;
        client::warn_of_proxy_variables("functions and upstream_url are reached directly");
        let health = Health::new();
        let mut registry = Registry::default();
        admin::register_build_info(&mut registry);
        let metrics = Metrics::register(&mut registry);
        let gateway_registry = registry.sub_registry_with_prefix("gateway");
        let memory = GatewayMemory::new(
            settings.memory_budget.0,
            settings.max_connections.0,
            gateway_registry,
        )?;
        let client =
            nats::connect(&settings.nats, CONNECTION_NAME, &health, gateway_registry).await?;
        let unknown_functions = UnknownFunctions::from_settings(&settings);

        let mut background = BackgroundTasks::new(jetstream::new(client.clone()), health.clone());
        let servers = nats::jetstream_check::urls(&settings.nats)?;
        background.report_jetstream(servers.clone());
        let writes_directory = matches!(directory_source, DirectorySource::File(..));
        let directory = background.watch_directory(directory_source, &metrics);
        let is_store_full = background.watch_reserve();
        background.report_unknown_functions(&unknown_functions, settings.default_queue.clone());
        if settings.ensure_stream {
            let default_queue = settings.default_queue.clone();
            background.provision(directory.clone(), writes_directory, default_queue);
        }

        let server_config = memory.server_config(settings.max_header_bytes.0);
        let dependencies = Dependencies {
            health: health.clone(),
            metrics,
            nats: client.clone(),
            directory,
            is_store_full,
            namespaces,
            unknown_functions,
            memory: memory.budget(),
            max_waits: memory.max_waits(),
            shutdown: shutdown.clone(),
        };
        let service = Arc::new(Service::new(settings, dependencies)?);
        let handler = move |client, request| service.clone().handle(client, request);

        let stop_admin = CancellationToken::new();
        let admin = tokio::spawn(admin::serve(
            admin,
            health.clone(),
            Arc::new(registry),
            stop_admin.clone(),
        ));
        background.end_readiness(shutdown.clone());
        info!(
            "accepting calls at http://{http_addr}/async-function/, \
             metrics at http://{metrics_addr}/metrics"
        );
        let result = tokio::select! {
            () = server::serve(http, server_config, handler, shutdown, DRAIN_TIMEOUT) => Ok(()),
            error = nats::failure(&client, &servers) => Err(error),
        };
        stop_admin.cancel();
        admin.await.context("the metrics server failed")?;
        result
    }
}
