//! The gateway: accepts HTTP calls of functions and stores them on their queues.
//!
//! The way of a request: [`resource`] interprets its path, [`submission`] checks its head, [`body`]
//! reads the rest, `asyncqueue::submit` stores it, and [`answer`] or [`refusal`] builds the
//! response. A request about a stored call goes to [`lookup`]. I/O is at the ends: [`service`] runs
//! these steps in order, and [`proxy`] passes on requests that are not for this gateway.
//!
//! Concurrent work is limited, in number by [`slots`] and in memory by one budget ([`memory`]). A
//! request over a limit is refused and its client is asked to try again later. A request that was
//! accepted does not wait for a slot or memory.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use async_nats::jetstream;
use asyncqueue::{
    QueueName,
    directory::{self, Directory},
    function_namespaces::FunctionNamespaces,
    reserve, reserved_names,
    submit::Submitter,
};
use asyncqueue_runtime::{
    admin,
    byte_size::ByteSize,
    client::{self, ConnectionLimits},
    health::Health,
    memory::{self, Budget, MemoryPermit},
    nats,
    program::UsageError,
    server,
};
use prometheus_client::registry::Registry;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    directory_file::DirectoryFile, hops::Hops, lookup::Lookups, metrics::Metrics, proxy::Proxy,
    service::Service, settings::Settings, slots::Slots, unknown_functions::UnknownFunctions,
};

pub mod answer;
pub mod body;
pub mod directory_file;
pub mod forwarded;
pub mod hops;
pub mod lookup;
pub mod metrics;
pub mod passed_on;
pub mod plain_path;
pub mod proxy;
pub mod refusal;
pub mod resource;
pub mod service;
pub mod settings;
pub mod slots;
pub mod streams;
pub mod submission;
pub mod target;
pub mod unknown_functions;
pub mod unknown_reports;

/// Maximum time that running requests have when the program is asked to end. It is less than the 30
/// s that Kubernetes gives a pod, so that the program ends by itself.
const DRAIN: Duration = Duration::from_secs(25);

/// Name of the readiness condition of the directory.
const DIRECTORY: &str = "directory";

/// Reason for which the condition does not hold at the start.
const NO_DIRECTORY: &str = "waiting for the KV bucket asyncqueue-directory, which the operator writes; without \
                            an operator, set directory_file or ensure_stream=true";

/// Name of the readiness condition of the program itself, which fails while the program ends.
const SERVING: &str = "serving";

/// A gateway that listens and does not answer yet.
#[derive(Debug)]
pub struct Gateway {
    settings: Settings,
    /// The source of the directory and its content, if it does not come from the operator.
    own_directory: Option<(Option<DirectoryFile>, Directory)>,
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
        let own_directory = match settings.directory_file.as_ref() {
            Some(path) => {
                let file = DirectoryFile {
                    path: path.as_path().into(),
                    namespace: settings.function_namespace.clone(),
                    default_queue: settings.default_queue.clone(),
                };
                let directory = file.read()?;
                Some((Some(file), directory))
            }
            None if settings.ensure_stream => Some((None, Directory::default())),
            None => None,
        };
        if let Some((_, directory)) = &own_directory
            && !directory.queues.contains_key(&settings.default_queue)
        {
            reserved_names::check_queue(&settings.default_queue, false)
                .map_err(|error| UsageError(format!("default_queue: {error}")))?;
        }
        let http = server::bind(settings.http_addr).context("http_addr")?;
        let admin = admin::bind(settings.metrics_addr).context("metrics_addr")?;
        Ok(Self {
            http_addr: http.local_addr()?,
            metrics_addr: admin.local_addr()?,
            settings,
            own_directory,
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
    #[expect(clippy::too_many_lines, reason = "it connects the parts of the program, in order")]
    pub async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let Self { settings, own_directory, namespaces, http, admin, http_addr, metrics_addr } =
            self;
        let unknown_functions = UnknownFunctions::of(&settings);
        // Every field is listed, so that a setting that is not used does not compile.
        let Settings {
            log: _,
            nats: nats_settings,
            http_addr: _,
            metrics_addr: _,
            default_queue,
            function_namespace: _,
            function_namespaces: _,
            pod_namespace,
            upstream_url,
            function_url,
            unknown_function: _,
            directory_file: _,
            max_payload,
            max_header_bytes,
            publish_timeout,
            cancel_timeout,
            read_timeout,
            max_publishing,
            max_chain_depth,
            max_hops,
            memory_budget,
            max_connection_age,
            max_connection_requests,
            access_log,
            ensure_stream,
        } = settings;

        client::warn_of_proxy_variables("functions and upstream_url are reached directly");
        let health = Health::new();
        let mut registry = Registry::default();
        admin::register_build_info(&mut registry);
        let metrics = Metrics::register(&mut registry);
        let gateway_metrics = registry.sub_registry_with_prefix("gateway");
        let (memory, max_connections, _connections) = memory_of(memory_budget.0, gateway_metrics);
        let client =
            nats::connect(&nats_settings, "asyncqueue-gateway", &health, gateway_metrics).await?;
        let js = jetstream::new(client.clone());
        let servers = nats::jetstream_check::urls(&nats_settings)?;

        // Dropped on return, which stops the tasks in the background.
        let mut background = JoinSet::new();
        report_jetstream(&mut background, client.clone(), servers, health.clone());
        let has_file = matches!(own_directory, Some((Some(_), _)));
        let directory = follow_directory(&mut background, own_directory, &js, &health, &metrics);
        let is_store_full = follow_reserve(&mut background, js.clone());
        report_unknown_functions(
            &mut background,
            &unknown_functions,
            client.clone(),
            default_queue.clone(),
        );
        if ensure_stream {
            health.register(streams::CONDITION, "waiting for NATS to create the streams");
            let (directory, default_queue) = (directory.clone(), default_queue.clone());
            background.spawn(streams::keep(js, directory, has_file, default_queue, health.clone()));
        }
        let max_publishing = usize::try_from(max_publishing).unwrap_or(usize::MAX);
        let publish = publish_context(&client, publish_timeout.0, max_publishing);
        let look_up = jetstream::context::ContextBuilder::new().timeout(publish_timeout.0);
        let service = Arc::new(Service {
            health: health.clone(),
            calls: memory.account("calls"),
            passed_on: memory.account("passed_on"),
            passed_on_bytes: passed_on::most_memory(max_header_bytes.0),
            metrics,
            directory,
            lookups: Lookups::new(look_up.build(client.clone()), cancel_timeout.0),
            submitter: Submitter::new(publish, publish_timeout.0),
            nats: client.clone(),
            proxy: Proxy::new(
                ConnectionLimits {
                    max_age: max_connection_age.0,
                    max_requests: max_connection_requests,
                },
                max_header_bytes.0,
            )?,
            default_queue,
            namespaces,
            function_url,
            upstream_url: upstream_url.0,
            unknown_functions,
            max_payload: max_payload.0,
            read_timeout: read_timeout.0,
            publishing: Slots::new(max_publishing, "calls on their way to NATS"),
            is_store_full,
            max_chain_depth,
            hops: Hops::new(pod_namespace.as_ref().map(String::as_str), max_hops.into()),
            access_log,
        });

        let done = CancellationToken::new();
        let admin =
            tokio::spawn(admin::serve(admin, health.clone(), Arc::new(registry), done.clone()));
        background.spawn(end_readiness(shutdown.clone(), health));
        info!(
            "taking calls at http://{http_addr}/async-function/, metrics at http://{metrics_addr}/metrics"
        );
        let config = server::Config {
            max_connections,
            max_header_bytes: max_header_bytes.0,
            memory: Some(memory.account("heads")),
            ..server::Config::default()
        };
        let handler = move |client, request| service.clone().answer(client, request);
        let served = tokio::select! {
            () = server::serve(http, config, handler, shutdown, DRAIN) => Ok(()),
            error = nats::client_terminated(&client) => Err(error),
        };
        done.cancel();
        admin.await.context("the server of metrics failed")?;
        served
    }
}

/// Reports in the background if JetStream is not enabled.
fn report_jetstream(
    background: &mut JoinSet<()>,
    client: async_nats::Client,
    servers: String,
    health: Health,
) {
    background
        .spawn(async move { nats::jetstream_check::report(&client, &servers, &health).await });
}

/// Reports calls of unknown functions to the operator, in the background, if there is an operator.
fn report_unknown_functions(
    background: &mut JoinSet<()>,
    unknown_functions: &UnknownFunctions,
    client: async_nats::Client,
    default_queue: QueueName,
) {
    if let Some(reports) = unknown_functions.reports() {
        background.spawn(async move { reports.publish(&client, &default_queue).await });
    }
}

/// Makes the gateway not ready from the shutdown on.
async fn end_readiness(shutdown: CancellationToken, health: Health) {
    shutdown.cancelled().await;
    health.not_ready(SERVING, "shutting down");
}

/// Creates the JetStream context that publishes calls.
fn publish_context(
    client: &async_nats::Client,
    timeout: Duration,
    max_publishing: usize,
) -> jetstream::Context {
    jetstream::context::ContextBuilder::new()
        // Longer than the submitter's own timeout, whose error says more.
        .timeout(timeout * 2)
        .ack_timeout(timeout)
        // More than can be published at once, so that a call never waits in the client. Acks whose
        // request has ended count as well.
        .max_ack_inflight(max_publishing.saturating_mul(2))
        .build(client.clone())
}

/// Creates the memory budget. Returns it with the number of connections that it has room for, and
/// their memory. That memory is set aside, so that each accepted connection can be answered.
fn memory_of(
    setting: Option<ByteSize>,
    registry: &mut Registry,
) -> (Budget, usize, Option<MemoryPermit>) {
    if std::env::var_os("max_buffered").is_some() {
        warn!(
            "max_buffered is not a setting any more: memory_budget bounds bodies and all else that is held"
        );
    }
    let bytes = setting.map_or_else(memory::default_budget, |budget| budget.0);
    let (budget, max_connections) = (Budget::new(bytes, registry), max_connections(bytes));
    info!(memory_budget = %ByteSize(bytes), max_connections, "memory for what clients and functions send");
    let connections =
        budget.account("connections").try_take(max_connections * server::CONNECTION_BYTES);
    (budget, max_connections, connections)
}

/// Returns how many connections fit into half of a budget. The other half is for what is sent over
/// them.
fn max_connections(budget: usize) -> usize {
    (budget / 2 / server::CONNECTION_BYTES).clamp(1, server::MAX_CONNECTIONS)
}

/// Follows the directory in the background: from the file, or from the operator if there is no
/// file.
fn follow_directory(
    background: &mut JoinSet<()>,
    own: Option<(Option<DirectoryFile>, Directory)>,
    js: &jetstream::Context,
    health: &Health,
    metrics: &Metrics,
) -> watch::Receiver<Option<Arc<Directory>>> {
    if let Some((file, directory)) = own {
        let (sender, directory) = watch::channel(Some(Arc::new(directory)));
        if let Some(file) = file {
            background.spawn(file.follow(sender, metrics.clone(), health.clone()));
        }
        return directory;
    }
    health.register(DIRECTORY, NO_DIRECTORY);
    let directory = directory::watch::watch(js.clone());
    background.spawn(report_directory(directory.clone(), health.clone()));
    directory
}

/// Follows in the background whether the NATS store is full.
fn follow_reserve(background: &mut JoinSet<()>, js: jetstream::Context) -> watch::Receiver<bool> {
    let (store_full, is_store_full) = watch::channel(false);
    background.spawn(async move {
        reserve::watch(&js, |is_short| tell_if_changed(&store_full, is_short)).await;
    });
    is_store_full
}

/// Logs when calls are refused because the store is full, and when they are accepted again.
fn tell_if_changed(store_full: &watch::Sender<bool>, is_short: bool) {
    if store_full.send_if_modified(|before| std::mem::replace(before, is_short) != is_short) {
        if is_short {
            warn!(
                "the store of NATS is full: new calls are answered with 429 until the reserve is full again"
            );
        } else {
            info!("the store of NATS has room again: new calls are accepted");
        }
    }
}

/// Keeps the directory's readiness condition. Once the directory was read, the condition holds
/// permanently.
async fn report_directory(mut directory: watch::Receiver<Option<Arc<Directory>>>, health: Health) {
    if directory.wait_for(Option::is_some).await.is_ok() {
        info!("the directory was read");
        health.ready(DIRECTORY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_budget_is_for_connections() {
        assert_eq!(max_connections(384 << 20), 8192);
        assert_eq!(max_connections(16 << 20), 341);
        assert_eq!(max_connections(8 << 30), 8192);
    }
}
