//! Assembles the worker and runs it.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use async_nats::jetstream::{self, Context};
use asyncqueue::{
    GoDuration, consumer_progress,
    directory::{self, Directory},
    function_namespaces::FunctionNamespaces,
    shares::WorkerShare,
};
use asyncqueue_runtime::{
    admin,
    byte_size::ByteSize,
    client,
    health::Health,
    log_limit::LogLimits,
    memory::{self, Budget},
    nats,
    program::UsageError,
    shutdown::Shutdown,
};
use prometheus_client::registry::Registry;
use tokio::{sync::watch, time::timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::info;

use crate::{
    Settings,
    call::{
        CallHandler,
        attempt_offsets::AttemptOffsets,
        batch_ends::BatchEnds,
        cancellations::Cancellations,
        ended_calls::EndedCalls,
        finish::Finisher,
        log,
        policies::RetryPolicies,
        prepare::Preparer,
        result_keeper::ResultKeeper,
        results::ResultPublisher,
        run::Runner,
        stall::StallDetector,
        status::CallStatuses,
        waiting_records::{LastRecorded, WaitingRecorder},
    },
    callback::{
        self, client::CallbackClient, dispatcher::CallbackDispatcher, egress::EgressPolicy,
        handler::CallbackHandler, signature::Signer, store::ResultStore, tls::Trust,
    },
    consumer::{self, InFlightSet, Puller},
    dead_letter::DeadLetterWriter,
    function::{client::FunctionClient, request::Target, response_buffer::ResponseMemory},
    live_settings::{LiveSettings, SettingsFollower},
    metrics::Metrics,
    provisioner::StreamProvisioner,
    queue_metrics,
    record_store::RecordStore,
    server_clock::ServerClock,
    shared_limits::{FunctionGate, Gate, ShareKeeper},
    stats::WorkerStatistics,
};

/// Maximum time that calls wait at the start until the directory is read, which takes some
/// milliseconds.
const DIRECTORY_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum time that calls wait at the start for a share in the limits of the queue. Without one,
/// none starts.
const SHARE_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum time for sending the last acks.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The readiness condition which says that the consumer of the queue's calls exists.
const CONSUMER_CONDITION: &str = "consumer";

/// The readiness condition which says that the settings of the queue are known.
const SETTINGS_CONDITION: &str = "settings";

/// Why a worker without the settings of its queue takes no calls.
const WAITING_FOR_SETTINGS: &str =
    "waiting for the settings of the queue in the directory, which the operator writes";

/// The parts from which the worker is assembled.
struct Worker {
    settings: Settings,
    namespaces: FunctionNamespaces,
    callback_client: CallbackClient,
    js: Context,
    metrics: Metrics,
    memory: Budget,
    health: Health,
}

/// The parts that several tasks share.
struct Shared {
    store: RecordStore,
    dispatcher: CallbackDispatcher,
    dead_letters: DeadLetterWriter,
    statuses: CallStatuses,
    cancellations: Cancellations,
    ended: EndedCalls,
    clock: ServerClock,
    directory: watch::Receiver<Option<Arc<Directory>>>,
    settings: SettingsFollower,
    gate: Gate,
    functions: FunctionGate,
    /// The settings, with as many slots as this worker has a share of.
    limited: watch::Sender<LiveSettings>,
    last_recorded: LastRecorded,
}

/// Runs the worker until `shutdown`, then drains it.
///
/// # Errors
///
/// A setting can't be used, an address can't be listened on, or a stream belongs to another owner.
/// It is not an error if NATS or the stream is unavailable: the worker waits for them.
pub async fn run(settings: Settings, shutdown: Shutdown) -> anyhow::Result<()> {
    let callback_client = callback_client(&settings)?;
    let namespaces = function_namespaces(&settings)?;
    client::warn_of_proxy_variables("functions and receivers of callbacks are reached directly");
    let (health, mut registry) = (Health::new(), Registry::default());
    admin::register_build_info(&mut registry);
    let prefixed = registry.sub_registry_with_prefix("queue_worker");
    let metrics = Metrics::new(prefixed, &settings.queue_name);
    let memory = memory_budget(&settings, prefixed);
    let set_aside = memory.account("set_aside");
    let _set_aside = set_aside.try_take(set_aside_bytes(&settings, set_aside.budget().0));
    let client = nats::connect(&settings.nats, &settings.worker_name, &health, prefixed).await?;
    let js = jetstream::new(client.clone());
    let servers = nats::jetstream_check::urls(&settings.nats)?;
    let _jetstream = report_jetstream(servers.clone(), client.clone(), health.clone());
    health.register(CONSUMER_CONDITION, "the consumer has not been looked up yet");
    let provisioner = if settings.ensure_stream {
        Some(StreamProvisioner::new(&settings, js.clone(), health.clone())?)
    } else {
        None
    };
    let listener = admin::bind(settings.http_addr)?;
    let done = CancellationToken::new();
    let admin =
        tokio::spawn(admin::serve(listener, health.clone(), Arc::new(registry), done.clone()));
    let worker = Worker { settings, namespaces, callback_client, js, metrics, memory, health };
    let result = tokio::select! {
        result = Box::pin(worker.provision_and_work(provisioner, &shutdown)) => result,
        error = nats::failure(&client, &servers) => Err(error),
    };
    done.cancel();
    admin.await.context("the HTTP server for /metrics failed")?;
    result
}

/// Reports it if JetStream is not enabled, until the handle is dropped.
fn report_jetstream(
    servers: String,
    client: async_nats::Client,
    health: Health,
) -> AbortOnDropHandle<()> {
    let report = async move { nats::jetstream_check::report(&client, &servers, &health).await };
    AbortOnDropHandle::new(tokio::spawn(report))
}

// === impl Worker ===

impl Worker {
    /// Creates the streams if this worker has to, then works until `shutdown`.
    async fn provision_and_work(
        self,
        provisioner: Option<StreamProvisioner>,
        shutdown: &Shutdown,
    ) -> anyhow::Result<()> {
        if let Some(provisioner) = &provisioner {
            tokio::select! {
                created = provisioner.create() => created?,
                () = shutdown.graceful.cancelled() => {}
            }
        }
        let _provisioner = provisioner.map(|provisioner| {
            AbortOnDropHandle::new(tokio::spawn(async move {
                tokio::join!(
                    provisioner.run(),
                    provisioner.sweep_lanes(),
                    provisioner.sweep_batches(),
                )
            }))
        });
        let client = self.js.client();
        let result = Box::pin(self.work(shutdown)).await;
        // The last acks may not be sent yet.
        let _ = timeout(FLUSH_TIMEOUT, client.flush()).await;
        result
    }

    /// Handles calls and delivers results until `shutdown`.
    async fn work(self, shutdown: &Shutdown) -> anyhow::Result<()> {
        let Self { settings, js, .. } = &self;
        let (client, queue) = (js.client(), &settings.queue_name);
        let (stream, durable) = (settings.stream(), settings.durable());
        let shared = self.shared();
        let (in_flight_tx, in_flight_rx) = watch::channel(0);
        let in_flight = InFlightSet::default();
        let calls = self.call_puller(&shared, in_flight_tx, in_flight.clone());
        let callbacks = self.callback_puller(&shared);
        let grace = {
            let (settings, live) = (settings.clone(), shared.settings.subscribe());
            move || settings.grace(live.borrow().timeout())
        };
        // Tasks of their own: each message wakes them, and it costs the runtime less to wake its
        // own threads than the one that waits here.
        let start = self.prepare_to_take_calls(&shared);
        let (end, callback_grace) = (shutdown.clone(), grace.clone());
        let calls = async move {
            tokio::select! {
                () = start => {}
                () = end.graceful.cancelled() => {}
            }
            calls.run(end, grace).await;
        };
        let calls = AbortOnDropHandle::new(tokio::spawn(calls));
        let callbacks =
            AbortOnDropHandle::new(tokio::spawn(callbacks.run(shutdown.clone(), callback_grace)));
        let instance = format!("{:08x}", rand::random::<u32>());
        let statistics = WorkerStatistics::new(
            (settings.worker_name.clone(), instance.clone()),
            shared.settings.subscribe(),
            in_flight_rx,
            shared.store.clone(),
            shared.statuses.scheduled(),
            shared.functions.clone(),
            self.metrics.durations(),
        );
        let published = statistics.clone().publish(js.client(), queue);
        let result = async {
            let (calls, callbacks, ()) = tokio::join!(calls, callbacks, published);
            calls.and(callbacks)
        };
        let mut keeper = self.share_keeper(&shared, &instance, shutdown);
        let recorder = WaitingRecorder {
            js: js.clone(),
            queue: queue.clone(),
            statuses: shared.statuses.clone(),
            instance,
            in_flight,
            last: shared.last_recorded.clone(),
            clock: shared.clock.clone(),
            busy: Arc::default(),
        };
        let record_waiting = |inbox| recorder.start(inbox);
        let scheduled = shared.statuses.scheduled();
        let Shared { statuses, cancellations, ended, clock, directory, functions, .. } = shared;
        let consumer = (stream.as_str(), durable.as_str());
        let functions = (directory, &functions);
        let metrics =
            queue_metrics::run(js, queue, consumer, functions, &self.metrics, &clock, &scheduled);
        let result = tokio::select! {
            result = result => result.context("the task that pulls messages failed"),
            () = keeper.run() => Ok(()),
            () = cancellations.run(js, queue) => Ok(()),
            () = statuses.answer_requests(&client, queue, &statistics, record_waiting) => Ok(()),
            () = ended.answer_requests(&client) => Ok(()),
            () = metrics => Ok(()),
        };
        keeper.leave_if_limited().await;
        result
    }

    /// Creates the keeper of this worker's share in the limits of the queue.
    fn share_keeper(&self, shared: &Shared, instance: &str, shutdown: &Shutdown) -> ShareKeeper {
        ShareKeeper {
            js: self.js.clone(),
            key: self.settings.queue_name.to_string(),
            worker: format!("{}-{instance}", self.settings.worker_name),
            settings: shared.settings.subscribe(),
            directory: shared.directory.clone(),
            gate: shared.gate.clone(),
            functions: shared.functions.clone(),
            limited: shared.limited.clone(),
            metrics: self.metrics.clone(),
            leaving: shutdown.graceful.clone(),
            last: WorkerShare::default(),
        }
    }

    /// Waits until calls can be taken, and says with which settings. The future has all that it
    /// needs.
    fn prepare_to_take_calls(&self, shared: &Shared) -> impl Future<Output = ()> + use<> {
        let settings = self.settings.clone();
        let (js, health) = (self.js.clone(), self.health.clone());
        let (directory, clock) = (shared.directory.clone(), shared.clock.clone());
        let (live, mut limited) = (shared.settings.clone(), shared.limited.subscribe());
        if settings.wait_for_settings {
            health.register(SETTINGS_CONDITION, WAITING_FOR_SETTINGS);
        }
        async move {
            let (stream, durable) = (settings.stream(), settings.durable());
            wait_until_prepared(js, directory, (&stream, &durable), clock).await;
            live.refresh();
            if settings.wait_for_settings {
                live.wait_for_directory().await;
                health.ready(SETTINGS_CONDITION);
            }
            let current = live.subscribe().borrow().clone();
            // Calls that come before that would be handed back.
            let is_limited = |limited: &LiveSettings| limited.has_same_shared_limits(&current);
            let _ = timeout(SHARE_TIMEOUT, limited.wait_for(is_limited)).await;
            info!(
                queue = %settings.queue_name, stream, durable,
                max_inflight = current.max_inflight, timeout = %GoDuration(current.timeout()),
                "taking calls"
            );
        }
    }

    fn shared(&self) -> Shared {
        let Self { settings, js, metrics, .. } = self;
        let store = RecordStore::new(js.clone(), metrics.clone());
        let directory = directory::watch::watch(js.clone());
        let own = settings.live_settings();
        let live = SettingsFollower::start(settings.queue_name.clone(), own, directory.clone());
        let dispatcher = CallbackDispatcher::new(
            self.callback_client.clone(),
            settings.callback_max_attempts,
            live.subscribe(),
            metrics.clone(),
        );
        let dead_letters = DeadLetterWriter {
            js: js.clone(),
            stream: settings.queue_name.dead_letter_stream(),
            worker: settings.worker_name.clone(),
            enabled: settings.dead_letters,
            store: store.clone(),
            metrics: metrics.clone(),
        };
        let statuses = CallStatuses::new(settings.worker_name.clone());
        let cancellations = Cancellations::new(js.client(), statuses.clone());
        let clock = ServerClock::default();
        let gate = Gate::new(live.subscribe(), metrics.clone());
        let functions = FunctionGate::new(live.subscribe(), directory.clone(), metrics.clone());
        // The keeper adds the limits when it has a share in them.
        let settings = live.subscribe().borrow().clone();
        let limited = watch::Sender::new(settings.with_shared_limits(None, None));
        Shared {
            store,
            dispatcher,
            dead_letters,
            statuses,
            cancellations,
            ended: EndedCalls::new(self.settings.queue_name.clone()),
            clock,
            directory,
            settings: live,
            gate,
            functions,
            limited,
            last_recorded: LastRecorded::default(),
        }
    }

    /// Creates the puller of calls.
    fn call_puller(
        &self,
        shared: &Shared,
        in_flight_tx: watch::Sender<usize>,
        in_flight: InFlightSet,
    ) -> Puller<CallHandler> {
        let settings = &self.settings;
        Puller {
            js: self.js.clone(),
            stream: settings.stream(),
            durable: settings.durable(),
            settings: shared.limited.subscribe(),
            slots: |settings| settings.max_inflight.into(),
            gate: Some(shared.gate.clone()),
            functions: Some(shared.functions.clone()),
            handler: Arc::new(self.call_handler(shared)),
            running: in_flight_tx,
            in_flight,
            readiness: Some((self.health.clone(), CONSUMER_CONDITION)),
            memory: self.memory.account("calls"),
        }
    }

    fn call_handler(&self, shared: &Shared) -> CallHandler {
        let Self { settings, js, metrics, .. } = self;
        let queue = &settings.queue_name;
        let offsets =
            AttemptOffsets { js: js.clone(), queue: queue.clone(), store: shared.store.clone() };
        let keeper = ResultKeeper::new(
            js.clone(),
            queue.clone(),
            settings.stream(),
            shared.directory.clone(),
            shared.store.clone(),
            metrics.clone(),
        );
        let policies = RetryPolicies {
            settings: shared.settings.subscribe(),
            directory: shared.directory.clone(),
        };
        CallHandler {
            js: js.clone(),
            queue: queue.clone(),
            stream: settings.stream(),
            preparer: Preparer {
                policies: policies.clone(),
                function_namespace: settings.function_namespace.clone(),
                offsets: offsets.clone(),
                cancellations: shared.cancellations.clone(),
                clock: shared.clock.clone(),
                last_recorded: shared.last_recorded.clone(),
            },
            runner: Runner {
                js: js.clone(),
                queue: queue.clone(),
                function_client: self.function_client(),
                gate: shared.gate.clone(),
                functions: shared.functions.clone(),
                offsets: offsets.clone(),
                settings: shared.settings.subscribe(),
                directory: shared.directory.clone(),
                max_age: settings.max_age.as_ref().map(|age| age.0),
                clock: shared.clock.clone(),
                statuses: shared.statuses.clone(),
                keeper: keeper.clone(),
                stall_detector: StallDetector::start(),
                verbose: settings.write_debug,
                metrics: metrics.clone(),
            },
            finisher: Finisher {
                js: js.clone(),
                queue: queue.clone(),
                stream: settings.stream(),
                policies,
                store: shared.store.clone(),
                offsets: offsets.clone(),
                results: self.result_publisher(shared, keeper),
                dead_letters: shared.dead_letters.clone(),
                statuses: shared.statuses.clone(),
                put_off_log: LogLimits::new(log::PUT_OFF_INTERVAL),
                metrics: metrics.clone(),
            },
            offsets,
        }
    }

    fn result_publisher(&self, shared: &Shared, keeper: ResultKeeper) -> ResultPublisher {
        let (js, queue) = (&self.js, &self.settings.queue_name);
        ResultPublisher {
            js: js.clone(),
            queue: queue.clone(),
            store: shared.store.clone(),
            results: ResultStore::new(js.clone(), queue),
            dispatcher: shared.dispatcher.clone(),
            dead_letters: shared.dead_letters.clone(),
            batches: BatchEnds { js: js.clone(), store: shared.store.clone() },
            keeper,
            ended: shared.ended.clone(),
        }
    }

    /// Creates the puller of results.
    fn callback_puller(&self, shared: &Shared) -> Puller<CallbackHandler> {
        let queue = &self.settings.queue_name;
        let handler = CallbackHandler {
            js: self.js.clone(),
            queue: queue.clone(),
            dispatcher: shared.dispatcher.clone(),
            dead_letters: shared.dead_letters.clone(),
        };
        Puller {
            js: self.js.clone(),
            stream: queue.callback_stream(),
            durable: queue.callback_durable(),
            settings: shared.settings.subscribe(),
            slots: |_| callback::CONCURRENCY,
            gate: None,
            functions: None,
            handler: Arc::new(handler),
            running: watch::Sender::new(0),
            in_flight: InFlightSet::default(),
            // Without this stream, results are posted directly.
            readiness: None,
            memory: self.memory.account("callbacks"),
        }
    }

    fn function_client(&self) -> FunctionClient {
        let settings = &self.settings;
        let target = match settings.gateway_url.as_ref() {
            Some(url) => Target::Gateway(url.clone()),
            None => Target::Direct(settings.function_url.clone()),
        };
        FunctionClient::new(
            target,
            self.namespaces.clone(),
            settings.max_response_bytes.0,
            ResponseMemory::new(self.memory.account("answers")),
            settings.connection_limits(),
        )
    }
}

/// Reads the settings that say which namespaces of functions may be called.
fn function_namespaces(settings: &Settings) -> Result<FunctionNamespaces, UsageError> {
    FunctionNamespaces::new(
        settings.function_namespace.clone(),
        settings.function_namespaces.clone(),
        settings.platform_namespace.0.clone(),
    )
    .map_err(|error| UsageError(format!("function_namespace or function_namespaces: {error}")))
}

/// Creates the memory budget from the settings, and its metrics.
fn memory_budget(settings: &Settings, registry: &mut Registry) -> Budget {
    let bytes =
        settings.memory_budget.as_ref().map_or_else(memory::default_budget, |budget| budget.0);
    info!(memory_budget = %ByteSize(bytes), "memory for calls, responses and results");
    Budget::new(bytes, registry)
}

/// Returns how many bytes of the memory budget are set aside: for messages that have arrived and
/// wait for their memory, and for the one response at a time that exceeds the budget.
fn set_aside_bytes(settings: &Settings, budget: usize) -> usize {
    let requested = budget / consumer::REQUESTED_BUDGET_DIVISOR * 2;
    requested + settings.max_response_bytes.0.min(budget / 2)
}

/// Creates the callback client from the settings.
fn callback_client(settings: &Settings) -> anyhow::Result<CallbackClient> {
    let egress = EgressPolicy::new(settings.callback_allowed_hosts.clone());
    let signer =
        settings.callback_signing_secret_file.as_ref().cloned().map(Signer::open).transpose()?;
    let trust = Trust::new(settings.tls_insecure, settings.callback_ca_file.as_ref().cloned())?;
    let (time_limit, limits) = (settings.callback_timeout.0, settings.connection_limits());
    Ok(CallbackClient::new(egress, signer, trust, time_limit, limits))
}

/// Waits until NATS is connected, its time is known, and the directory has been read, if it exists.
/// Without the directory, the first calls might go where their functions are not.
async fn wait_until_prepared(
    js: Context,
    directory: watch::Receiver<Option<Arc<Directory>>>,
    (stream, durable): (&str, &str),
    clock: ServerClock,
) {
    nats::wait_connected(&js.client()).await;
    // Without a consumer, nothing is delivered before the time is known in another way.
    if let Ok(Some(progress)) = consumer_progress::read_consumer(&js, stream, durable).await {
        clock.set(progress.now);
    }
    directory::watch::wait_until_read(&js, directory, DIRECTORY_TIMEOUT).await;
}
