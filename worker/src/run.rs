//! Assembles the worker and runs it.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use async_nats::jetstream::{self, Context};
use asyncqueue::{
    consumer_progress,
    directory::{self, Directory},
    function_namespaces::FunctionNamespaces,
};
use asyncqueue_runtime::{
    admin,
    byte_size::ByteSize,
    client,
    health::Health,
    memory::{self, Budget},
    nats,
    program::UsageError,
    shutdown::Shutdown,
};
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::info;

use crate::{
    Settings,
    answer_buffer::AnswerMemory,
    callback::{
        self, Messenger, Poster, deliver::Deliver, guard::Guard, signature::Signer,
        store::ResultStore, tls::Trust,
    },
    cancellations::Cancellations,
    dead_letter::DeadLetterWriter,
    depth,
    finish::Finish,
    function::{Caller, request::Target},
    invoke::Invoke,
    metrics::Metrics,
    pull::{self, Puller},
    reports::Reports,
    server_clock::ServerClock,
    stall::Stalls,
    stats::Statistics,
    store::Store,
    streams::Streams,
};

/// Maximum time that calls wait at the start until the directory is read, which takes some
/// milliseconds.
const DIRECTORY_PATIENCE: Duration = Duration::from_secs(2);

/// Maximum time for sending the last acks.
const FLUSH: Duration = Duration::from_secs(2);

/// The readiness condition which says that the consumer of the queue's calls exists.
const CONSUMER: &str = "consumer";

/// Runs the worker until `shutdown`, then drains it.
///
/// # Errors
///
/// A setting can't be used, an address can't be listened on, or a stream belongs to another owner.
/// It is not an error if NATS or the stream is unavailable: the worker waits for them.
pub async fn run(settings: Settings, shutdown: Shutdown) -> anyhow::Result<()> {
    let poster = poster(&settings)?;
    let namespaces = FunctionNamespaces::new(
        settings.function_namespace.clone(),
        settings.function_namespaces.clone(),
        settings.platform_namespace.0.clone(),
    )
    .map_err(|error| UsageError(format!("function_namespace or function_namespaces: {error}")))?;
    client::warn_of_proxy_variables("functions and receivers of callbacks are reached directly");
    let (health, mut registry) = (Health::new(), Registry::default());
    admin::register_build_info(&mut registry);
    let prefixed = registry.sub_registry_with_prefix("queue_worker");
    let metrics = Metrics::new(prefixed, &settings.queue_name);
    let budget =
        settings.memory_budget.as_ref().map_or_else(memory::default_budget, |budget| budget.0);
    let memory = Budget::new(budget, prefixed);
    info!(memory_budget = %ByteSize(budget), "memory for calls, answers and results");
    // For messages that have arrived and wait for their memory, and for the one response at a time
    // that exceeds the budget.
    let fetched = budget / pull::ASKED_PART * 2;
    let over_budget = settings.max_response_bytes.0.min(budget / 2);
    let _set_aside = memory.account("set_aside").try_take(fetched + over_budget);
    let client = nats::connect(&settings.nats, &settings.worker_name, &health, prefixed).await?;
    let js = jetstream::new(client.clone());
    let _jetstream = report_jetstream(&settings, client.clone(), health.clone())?;
    health.register(CONSUMER, "not looked for yet");
    let streams = if settings.ensure_stream {
        Some(Streams::new(&settings, js.clone(), health.clone())?)
    } else {
        None
    };
    let listener = admin::bind(settings.http_addr)?;
    info!(
        queue = %settings.queue_name, stream = settings.stream(), durable = settings.durable(),
        max_inflight = settings.max_inflight, timeout = %settings.upstream_timeout, "taking calls"
    );

    let done = CancellationToken::new();
    let admin =
        tokio::spawn(admin::serve(listener, health.clone(), Arc::new(registry), done.clone()));
    let mut worked = match &streams {
        Some(streams) => tokio::select! {
            created = streams.create() => created,
            () = shutdown.graceful.cancelled() => Ok(()),
        },
        None => Ok(()),
    };
    if worked.is_ok() {
        let _streams = streams.map(|streams| {
            AbortOnDropHandle::new(tokio::spawn(async move { streams.keep().await }))
        });
        worked = Box::pin(work(
            &settings,
            namespaces,
            poster,
            &js,
            (metrics, memory),
            &health,
            &shutdown,
        ))
        .await;
        // The last acks may not be sent yet.
        let _ = tokio::time::timeout(FLUSH, client.flush()).await;
    }
    done.cancel();
    admin.await.context("the server of /metrics failed")?;
    worked
}

/// Reports it if JetStream is not enabled, until the handle is dropped.
fn report_jetstream(
    settings: &Settings,
    client: async_nats::Client,
    health: Health,
) -> anyhow::Result<AbortOnDropHandle<()>> {
    let servers = nats::jetstream_check::urls(&settings.nats)?;
    let report = async move { nats::jetstream_check::report(&client, &servers, &health).await };
    Ok(AbortOnDropHandle::new(tokio::spawn(report)))
}

/// Takes calls and delivers results until `shutdown`.
async fn work(
    settings: &Settings,
    namespaces: FunctionNamespaces,
    poster: Poster,
    js: &Context,
    (metrics, memory): (Metrics, Budget),
    health: &Health,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let queue = &settings.queue_name;
    let store = Store::new(js.clone(), metrics.clone());
    let dead_letters = DeadLetterWriter {
        js: js.clone(),
        stream: queue.dead_letter_stream(),
        worker: settings.worker_name.clone(),
        enabled: settings.dead_letters,
        store: store.clone(),
        metrics: metrics.clone(),
    };
    let policy = settings.retry_policy();
    let messenger =
        Messenger::new(poster, settings.callback_max_attempts, policy.waits, metrics.clone());
    let deliver = Deliver {
        js: js.clone(),
        queue: queue.clone(),
        messenger: messenger.clone(),
        dead_letters: dead_letters.clone(),
    };
    let reports = Reports::new(settings.worker_name.clone());
    let client = js.client();
    let cancellations = Cancellations::new(client.clone(), reports.clone());
    let clock = ServerClock::default();
    let finish = Finish {
        js: js.clone(),
        queue: queue.clone(),
        store: store.clone(),
        results: ResultStore::new(js.clone(), queue),
        messenger,
        dead_letters,
        metrics: metrics.clone(),
    };
    let directory = directory::watch::watch(js.clone());
    let (stream, durable, queue_metrics) = (settings.stream(), settings.durable(), metrics.clone());
    let invoke = Invoke {
        js: js.clone(),
        queue: queue.clone(),
        stream: settings.stream(),
        cancellations: cancellations.clone(),
        reports: reports.clone(),
        caller: caller(settings, namespaces, &memory),
        policy,
        max_age: settings.max_age.as_ref().map(|age| age.0),
        directory: directory.clone(),
        function_namespace: settings.function_namespace.clone(),
        stalls: Stalls::watch(),
        clock: clock.clone(),
        finish,
        verbose: settings.write_debug,
        metrics,
    };
    let (running, is_running) = watch::channel(0);
    let calls = Puller {
        js: js.clone(),
        stream: settings.stream(),
        durable: settings.durable(),
        max: settings.max_inflight.into(),
        handler: Arc::new(invoke),
        running,
        readiness: Some((health.clone(), CONSUMER)),
        memory: memory.account("calls"),
    };
    let callbacks = Puller {
        js: js.clone(),
        stream: queue.callback_stream(),
        durable: queue.callback_durable(),
        max: callback::CONCURRENCY,
        handler: Arc::new(deliver),
        running: watch::Sender::new(0),
        // Without this stream, results are posted directly.
        readiness: None,
        memory: memory.account("callbacks"),
    };
    let (grace, functions) = (settings.grace(), directory.clone());
    // Tasks of their own: each message wakes them, and it costs the runtime less to wake its own
    // threads than the one that waits here.
    let start =
        is_prepared(js.clone(), directory, (stream.clone(), durable.clone()), clock.clone());
    let end = shutdown.clone();
    let calls = async move {
        tokio::select! {
            () = start => {}
            () = end.graceful.cancelled() => {}
        }
        calls.run(end, grace).await;
    };
    let calls = AbortOnDropHandle::new(tokio::spawn(calls));
    let callbacks = AbortOnDropHandle::new(tokio::spawn(callbacks.run(shutdown.clone(), grace)));
    let statistics = Statistics::new(settings, is_running, store);
    let published = statistics.clone().publish(js.client(), queue);
    let worked = async {
        let (calls, callbacks, ()) = tokio::join!(calls, callbacks, published);
        calls.and(callbacks)
    };
    tokio::select! {
        worked = worked => worked.context("the task that takes messages failed"),
        error = nats::client_terminated(&client) => Err(error),
        () = cancellations.follow(js, queue) => Ok(()),
        () = reports.follow(&client, queue, &statistics) => Ok(()),
        () = depth::follow(js, (&stream, &durable), functions, &queue_metrics, &clock) => Ok(()),
    }
}

/// Creates what posts callbacks, from the settings.
fn poster(settings: &Settings) -> anyhow::Result<Poster> {
    let guard = Guard::new(settings.callback_allowed_hosts.clone());
    let signer =
        settings.callback_signing_secret_file.as_ref().cloned().map(Signer::open).transpose()?;
    let trust = Trust::new(settings.tls_insecure, settings.callback_ca_file.as_ref().cloned())?;
    let (time_limit, limits) = (settings.callback_timeout.0, settings.connection_limits());
    Ok(Poster::new(guard, signer, trust, time_limit, limits))
}

/// Creates what invokes functions, from the settings.
fn caller(settings: &Settings, namespaces: FunctionNamespaces, memory: &Budget) -> Caller {
    let target = match settings.gateway_url.as_ref() {
        Some(url) => Target::Gateway(url.clone()),
        None => Target::Direct(settings.function_url.clone()),
    };
    let (time_limit, max_response) = (settings.upstream_timeout.0, settings.max_response_bytes.0);
    let answers = AnswerMemory::new(memory.account("answers"));
    Caller::new(target, namespaces, time_limit, max_response, answers, settings.connection_limits())
}

/// Waits until NATS is connected, its time is known, and the directory has been read, if it exists.
/// Without the directory, the first calls might go where their functions are not.
async fn is_prepared(
    js: Context,
    directory: watch::Receiver<Option<Arc<Directory>>>,
    (stream, durable): (String, String),
    clock: ServerClock,
) {
    nats::wait_connected(&js.client()).await;
    // Without a consumer, nothing is delivered before the time is known in another way.
    if let Ok(Some(progress)) = consumer_progress::read_consumer(&js, &stream, &durable).await {
        clock.set(progress.now);
    }
    directory::watch::wait_until_read(&js, directory, DIRECTORY_PATIENCE).await;
}
