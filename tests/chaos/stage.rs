//! What a scenario plays on: NATS, gateways, workers, the function, the receiver of callbacks, and the clients' load.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_nats::{
    HeaderMap,
    jetstream::{Context, consumer::pull, stream::Info},
};
use asyncqueue::{
    ensure::{ensure, ensure_buckets},
    message::{callback::Callback, dead_letter::H_SUBJECT, native},
    stream::{Owner, QueueSpec, Storage},
};
use asyncqueue_tests::{
    history::{
        checker::Rules,
        event::{CallNumber, Step, What},
        recorder::Recorder,
        stalls,
    },
    load::{
        client::Client,
        function::{self, Function},
        plan::{Mix, plan},
        receiver::{self, Receiver},
    },
    nats::free_port,
    program::Program,
    proxy::Proxy,
    raw,
    wait::until_in,
};
use rand::{SeedableRng, rngs::StdRng};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep},
};

use crate::servers::{Kind, Servers};

/// The lease: short, so that a scenario is, and long enough that a busy machine renews it.
pub(crate) const LEASE: Duration = Duration::from_secs(3);

/// Of one run. Longer than any call that is planned to end.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Runs of a call.
const ATTEMPTS: u64 = 3;

/// Attempts to tell a caller.
const CALLBACK_ATTEMPTS: u64 = 4;

/// Statuses after which a call is run again: the worker's default.
const RETRIED: [u16; 6] = [408, 429, 500, 502, 503, 504];

/// What a gateway has for NATS to store a call.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(2);

/// What a gateway may take to answer: a cancellation asks NATS several times, and each time waits for five seconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// What a worker sent before it heard of a cancellation may be seen so much later, on a machine that does much else.
const SLACK: Duration = Duration::from_millis(250);

/// For something to happen that will.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The name of the queue, and what follows from it.
const QUEUE: &str = "jobs";
const RESULTS: &str = "jobs-callbacks";
const DEAD: &str = "jobs-dead";

/// What a scenario begins with.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) servers: Kind,
    pub(crate) storage: Storage,
    pub(crate) gateways: usize,
    pub(crate) workers: usize,
    /// Beside a worker's usual settings.
    pub(crate) worker_settings: &'static [(&'static str, &'static str)],
    pub(crate) mix: Mix,
    /// Whether the workers reach the function by a cable that can be pulled.
    pub(crate) has_cable: bool,
    /// How long calls have to end once the load and the faults are over.
    pub(crate) patience: Duration,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            servers: Kind::One,
            storage: Storage::File,
            gateways: 1,
            workers: 2,
            worker_settings: &[],
            mix: Mix::default(),
            has_cable: false,
            patience: PATIENCE,
        }
    }
}

/// The stage.
pub(crate) struct Stage {
    pub(crate) recorder: Recorder,
    pub(crate) rng: StdRng,
    pub(crate) servers: Servers,
    pub(crate) js: Context,
    pub(crate) spec: QueueSpec,
    pub(crate) gateways: Vec<Gateway>,
    pub(crate) workers: Vec<Program>,
    pub(crate) function: Function,
    /// Between the workers and the function, if the scenario has one.
    pub(crate) cable: Option<Proxy>,
    receiver: Arc<Receiver>,
    setup: Setup,
    load: Option<JoinHandle<()>>,
    _stalls: JoinSet<()>,
    /// Where the programs log to.
    folder: PathBuf,
    workers_started: usize,
    calls_planned: u64,
}

/// A gateway at an address that it keeps.
pub(crate) struct Gateway {
    pub(crate) program: Program,
    addr: SocketAddr,
    metrics: SocketAddr,
}

impl Stage {
    /// Starts everything but the load.
    pub(crate) async fn set(setup: Setup, seed: u64, folder: &Path) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("directory.yaml"), format!("queues: {{{QUEUE}: }}")).unwrap();
        let servers = Servers::start(setup.servers).await;
        let js = servers.jetstream().await;
        let owner = Owner { name: "chaos/jobs".to_owned(), uid: "1".to_owned() };
        let spec = QueueSpec {
            ack_wait: LEASE,
            storage: setup.storage,
            replicas: servers.replicas(),
            ..QueueSpec::new(QUEUE.parse().unwrap(), owner)
        };
        until_in(PATIENCE, "the queue is made", async || ensure(&js, &spec, false).await.ok()).await;
        until_in(PATIENCE, "the buckets are made", async || ensure_buckets(&js, spec.replicas).await.ok())
            .await;
        let recorder = Recorder::default();
        let function = Function::start(recorder.clone()).await;
        let cable = if setup.has_cable { Some(Proxy::before(function.port()).await) } else { None };
        let receiver = Arc::new(Receiver::start(recorder.clone()).await);
        let mut stage = Self {
            _stalls: stalls::watch(recorder.clone()),
            recorder,
            rng: StdRng::seed_from_u64(seed),
            servers,
            js,
            spec,
            gateways: Vec::new(),
            workers: Vec::new(),
            function,
            cable,
            receiver,
            load: None,
            folder: folder.to_owned(),
            workers_started: 0,
            calls_planned: 0,
            setup,
        };
        for _ in 0..stage.setup.gateways {
            let address = || ([127, 0, 0, 1], free_port()).into();
            let (addr, metrics) = (address(), address());
            let program = stage.start_gateway(addr, metrics);
            stage.gateways.push(Gateway { program, addr, metrics });
        }
        for gateway in &stage.gateways {
            gateway.is_ready().await;
        }
        for _ in 0..stage.setup.workers {
            stage.add_worker();
        }
        stage
    }

    /// The rules that its history is held against.
    pub(crate) fn rules() -> Rules {
        Rules {
            lease: LEASE,
            time_limit: TIME_LIMIT,
            attempts: ATTEMPTS,
            retried: RETRIED.into_iter().collect(),
            slack: SLACK,
        }
    }

    /// Starts another worker.
    pub(crate) fn add_worker(&mut self) {
        self.workers_started += 1;
        let name = format!("worker-{}", self.workers_started);
        let (url, admin) = (self.servers.url(), format!("127.0.0.1:{}", free_port()));
        let (attempts, callback_attempts) = (ATTEMPTS.to_string(), CALLBACK_ATTEMPTS.to_string());
        let function_port = self.cable.as_ref().map_or(self.function.port(), Proxy::port);
        let function_url = format!("http://127.0.0.1:{function_port}");
        let time_limit = format!("{}s", TIME_LIMIT.as_secs());
        let mut settings = vec![
            ("nats_url", &*url),
            ("queue_name", QUEUE),
            ("function_url", &function_url),
            ("http_addr", &admin),
            ("HOSTNAME", &name),
            ("max_inflight", "20"),
            ("upstream_timeout", &time_limit),
            ("max_retry_attempts", &attempts),
            // Sooner than a user would want, for a scenario to be short.
            ("initial_retry_wait", "100ms"),
            ("max_retry_wait", "1s"),
            ("callback_allowed_hosts", "127.0.0.1"),
            ("callback_max_attempts", &callback_attempts),
            ("callback_timeout", "2s"),
            ("RUST_LOG", "info,asyncqueue_worker=debug"),
        ];
        settings.extend_from_slice(self.setup.worker_settings);
        let log = self.folder.join(format!("{name}.log"));
        self.workers.push(Program::start_logging("asyncqueue-worker", &settings, &log));
    }

    /// Takes a worker off the stage: it is not expected to run any more.
    pub(crate) fn remove_worker(&mut self, index: usize) -> Program {
        self.workers.remove(index)
    }

    /// Starts a gateway again, at its address.
    pub(crate) fn restart_gateway(&mut self, index: usize) {
        let Gateway { addr, metrics, .. } = self.gateways[index];
        self.gateways[index].program = self.start_gateway(addr, metrics);
    }

    fn start_gateway(&self, addr: SocketAddr, metrics: SocketAddr) -> Program {
        let (url, directory) = (self.servers.url(), self.folder.join("directory.yaml"));
        let settings = [
            ("nats_url", &*url),
            ("http_addr", &addr.to_string()),
            ("metrics_addr", &metrics.to_string()),
            ("default_queue", QUEUE),
            ("directory_file", directory.to_str().unwrap()),
            ("publish_timeout", &format!("{}s", PUBLISH_TIMEOUT.as_secs())),
            ("RUST_LOG", "info,asyncqueue_gateway=debug"),
        ];
        let log = self.folder.join(format!("gateway-{}.log", addr.port()));
        Program::start_logging("asyncqueue-gateway", &settings, &log)
    }

    /// Begins to submit the calls of the scenario's mix.
    pub(crate) fn begin_load(&mut self) {
        let mix = self.setup.mix.clone();
        self.load = Some(self.submit(&mix));
    }

    /// Begins to submit calls of a mix beside what is submitted already.
    pub(crate) fn submit(&mut self, mix: &Mix) -> JoinHandle<()> {
        let mut calls = plan(mix, &mut self.rng);
        for call in &mut calls {
            call.number += self.calls_planned;
        }
        self.calls_planned += mix.calls;
        self.function.expect(&calls);
        self.receiver.expect(&calls);
        let gateways = self.gateways.iter().map(|gateway| gateway.addr).collect();
        let client = Client::new(gateways, self.recorder.clone(), ANSWER_LIMIT);
        let receiver = self.receiver.clone();
        tokio::spawn(async move { client.submit_all(calls, &receiver).await })
    }

    /// Waits until the clients have said their last word.
    pub(crate) async fn load_ends(&mut self) {
        if let Some(load) = self.load.take() {
            load.await.expect("the load is submitted");
        }
    }

    /// Waits until a third of the calls have started, so that a fault meets calls in every state.
    pub(crate) async fn in_the_middle(&self) {
        let third = usize::try_from(self.setup.mix.calls / 3).unwrap();
        self.has_started(third).await;
    }

    /// Waits until so many runs have started.
    pub(crate) async fn has_started(&self, runs: usize) {
        until_in(PATIENCE, &format!("{runs} runs have started"), async || {
            (self.runs_started() >= runs).then_some(())
        })
        .await;
    }

    /// How many runs have started so far.
    pub(crate) fn runs_started(&self) -> usize {
        self.recorder.count(|what| matches!(what, What::Step(_, Step::Started { .. })))
    }

    /// Waits until every call has ended, or there is no more patience, and takes down what is left and what is dead.
    pub(crate) async fn last_look(&self) {
        let deadline = Instant::now() + self.setup.patience;
        while Instant::now() < deadline && !(self.is_empty(QUEUE).await && self.is_empty(RESULTS).await) {
            sleep(LOOK_EVERY).await;
        }
        self.keep_consumer().await;
        for headers in self.messages(QUEUE).await {
            self.take_down(of_call(&headers), Step::LeftQueued);
        }
        for headers in self.messages(RESULTS).await {
            self.take_down(of_result(&headers), Step::LeftResult);
        }
        for headers in self.messages(DEAD).await {
            let is_result = headers.get(H_SUBJECT).is_some_and(|was| was.as_str().starts_with(RESULTS));
            if is_result {
                self.take_down(of_result(&headers), Step::ResultBuried);
            } else {
                self.take_down(of_call(&headers), Step::Buried);
            }
        }
    }

    /// Deletes the dead letters, so that the next last look finds none that it has seen.
    pub(crate) async fn forget_the_dead(&self) {
        until_in(PATIENCE, "the dead letters are deleted", async || {
            self.js.get_stream_no_info(DEAD).await.ok()?.purge().await.ok()
        })
        .await;
    }

    /// What the server says of the consumer of calls, for who looks into a failure.
    async fn keep_consumer(&self) {
        let consumer =
            self.js.get_consumer_from_stream::<pull::Config, _, _>(&self.spec.durable, QUEUE).await;
        let told = consumer.map(|consumer| format!("{:#?}", consumer.cached_info()));
        std::fs::write(self.folder.join("consumer.txt"), told.unwrap_or_else(|error| error.to_string()))
            .unwrap();
    }

    fn take_down(&self, call: Option<CallNumber>, step: Step) {
        self.recorder.step(call.expect("each message has the number of its call"), step);
    }

    async fn is_empty(&self, stream: &str) -> bool {
        self.info(stream).await.is_some_and(|info| info.state.messages == 0)
    }

    pub(crate) async fn info(&self, stream: &str) -> Option<Info> {
        Some(self.js.get_stream(stream).await.ok()?.cached_info().clone())
    }

    async fn messages(&self, stream: &str) -> Vec<HeaderMap> {
        let info = until_in(PATIENCE, "the stream is there", async || self.info(stream).await).await;
        let stream = self.js.get_stream_no_info(stream).await.unwrap();
        let mut messages = Vec::new();
        if info.state.messages > 0 {
            for sequence in info.state.first_sequence..=info.state.last_sequence {
                // Some of them have ended out of turn.
                messages.extend(stream.get_raw_message(sequence).await.ok().map(|message| message.headers));
            }
        }
        messages
    }

    /// The logs of everything that ran, for who looks into a failure.
    pub(crate) fn keep_logs(&mut self) -> &Path {
        for (number, log) in self.servers.logs().into_iter().enumerate() {
            // What is missing here has not run.
            let _ = std::fs::copy(log, self.folder.join(format!("nats-{number}.log")));
        }
        &self.folder
    }
}

impl Gateway {
    /// Waits until it takes calls.
    pub(crate) async fn is_ready(&self) {
        until_in(PATIENCE, "the gateway is ready", async || {
            let answer = raw::try_request(self.addr, "GET", "/readyz", &[], b"").await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
    }
}

fn of_call(headers: &HeaderMap) -> Option<CallNumber> {
    let call = native::decode(headers, bytes::Bytes::new()).ok()?;
    function::number_in(call.query.as_deref())
}

fn of_result(headers: &HeaderMap) -> Option<CallNumber> {
    let result = Callback::decode(headers, bytes::Bytes::new()).ok()?;
    receiver::number_in(result.url.as_url().path())
}
