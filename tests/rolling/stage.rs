//! What the versions play on: NATS, two gateways, two workers, the function, the receiver of
//! callbacks, and the load.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use async_nats::jetstream::{Context, stream::Info};
use asyncqueue::{
    GoDuration,
    directory::{Directory, QueueEntry, QueueSettings, StoredSettings, store::DirectoryStore},
    retry::QueueRetry,
    stream::{Owner, QueueSpec, ensure_buckets, ensure_queue},
};
use test_support::{
    history::{
        checker::Rules,
        event::{Step, What},
        recorder::Recorder,
        stalls,
    },
    load::{client::Client, function::Function, plan::PlannedCall, receiver::Receiver},
    loopback::free_port,
    nats::NatsServer,
    program::Program,
    raw, versions,
    wait::{until, until_in},
};
use tokio::task::{JoinHandle, JoinSet};

/// The streams.
pub(crate) const QUEUE: &str = "jobs";
pub(crate) const RESULTS: &str = "jobs-callbacks";
pub(crate) const DEAD: &str = "jobs-dead";

/// How many calls there are.
pub(crate) const CALLS: u64 = 320;

/// For something to happen that will.
pub(crate) const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) const LEASE: Duration = Duration::from_secs(3);
const TIME_LIMIT: Duration = Duration::from_secs(5);
const ATTEMPTS: u64 = 3;

/// What a gateway may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// Which programs run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Last,
    This,
}

/// Who creates the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Creator {
    /// The library of this version, as its operator does.
    This,
    /// A worker of the last version, where no operator runs.
    Last,
}

/// A gateway at an address that it keeps.
pub(crate) struct Gateway {
    program: Program,
    addr: SocketAddr,
    metrics: SocketAddr,
}

/// The stage.
pub(crate) struct Stage {
    pub(crate) recorder: Recorder,
    pub(crate) gateways: Vec<Gateway>,
    pub(crate) workers: Vec<Program>,
    nats: NatsServer,
    js: Context,
    function: Function,
    receiver: Arc<Receiver>,
    /// Whether workers ensure the streams.
    ensures: bool,
    last: PathBuf,
    folder: tempfile::TempDir,
    workers_started: usize,
    _stalls: JoinSet<()>,
}

/// The rules that the history is held against.
pub(crate) fn rules() -> Rules {
    Rules {
        lease: LEASE,
        time_limit: TIME_LIMIT,
        attempts: ATTEMPTS,
        retried: [408, 429, 500, 502, 503, 504].into(),
        slack: Duration::from_millis(500),
        // Of the last version, which answers a cancellation before it is certain.
        skew: Duration::from_millis(500),
        max_age: None,
        starts_within: None,
    }
}

impl Stage {
    /// Starts all but the programs.
    pub(crate) async fn set(creator: Creator) -> Self {
        let nats = NatsServer::start().await;
        let js = nats.jetstream().await;
        if creator == Creator::This {
            let owner = Owner { name: "rolling/jobs".to_owned(), uid: "1".to_owned() };
            let spec =
                QueueSpec { ack_wait: LEASE, ..QueueSpec::new(QUEUE.parse().unwrap(), owner) };
            ensure_queue(&js, &spec, false).await.unwrap();
            ensure_buckets(&js, 1).await.unwrap();
            write_directory(&js).await;
        }
        let folder = tempfile::TempDir::with_prefix("asyncqueue-rolling-").unwrap();
        std::fs::write(folder.path().join("directory.yaml"), format!("queues: {{{QUEUE}: }}"))
            .unwrap();
        let recorder = Recorder::default();
        Self {
            _stalls: stalls::watch(recorder.clone()),
            function: Function::start(recorder.clone()).await,
            receiver: Arc::new(Receiver::start(recorder.clone()).await),
            recorder,
            gateways: Vec::new(),
            workers: Vec::new(),
            nats,
            js,
            ensures: creator == Creator::Last,
            last: versions::folder(versions::LAST),
            folder,
            workers_started: 0,
        }
    }

    /// Starts gateways and workers, and waits until they are ready.
    pub(crate) async fn start(&mut self, version: Version) {
        self.start_workers(version);
        // Where workers create the streams, gateways wait for them.
        until("the streams are there", async || self.info(DEAD).await).await;
        for _ in 0..2 {
            let address = || ([127, 0, 0, 1], free_port()).into();
            let (addr, metrics) = (address(), address());
            let program = self.start_gateway(version, addr, metrics);
            self.gateways.push(Gateway { program, addr, metrics });
        }
        for gateway in &self.gateways {
            gateway.is_ready().await;
        }
    }

    /// Starts two workers.
    pub(crate) fn start_workers(&mut self, version: Version) {
        for _ in 0..2 {
            let worker = self.start_worker(version);
            self.workers.push(worker);
        }
    }

    /// Asks a gateway to end, and starts another at its address.
    pub(crate) async fn replace_gateway(&mut self, index: usize, version: Version) {
        let Gateway { addr, metrics, .. } = self.gateways[index];
        self.gateways[index].program.signal("TERM");
        assert!(self.gateways[index].program.ended().await.success());
        self.gateways[index].program = self.start_gateway(version, addr, metrics);
        self.gateways[index].is_ready().await;
    }

    /// What the first gateway answers to a GET.
    pub(crate) async fn ask(&self, path: &str) -> raw::RawResponse {
        raw::try_request(self.gateways[0].addr, "GET", path, &[], b"").await.expect("an answer")
    }

    /// Begins to submit calls.
    pub(crate) fn submit(&self, calls: Vec<PlannedCall>) -> JoinHandle<()> {
        self.function.expect(&calls);
        self.receiver.expect(&calls);
        let gateways = self.gateways.iter().map(|gateway| gateway.addr).collect();
        let client = Client::new(gateways, self.recorder.clone(), ANSWER_LIMIT);
        let receiver = self.receiver.clone();
        tokio::spawn(async move { client.submit_all(calls, &receiver).await })
    }

    /// Waits until so many calls were answered with 202.
    pub(crate) async fn accepted(&self, calls: u64) {
        let is_accepted =
            |what: &What| matches!(what, What::Step(_, Step::Answered { status: 202, .. }));
        until_in(WAIT_TIMEOUT, &format!("{calls} calls are accepted"), async || {
            (self.recorder.count(is_accepted) as u64 >= calls).then_some(())
        })
        .await;
    }

    /// Waits until a stream holds so many messages at least.
    pub(crate) async fn stored(&self, stream: &str, messages: u64) {
        until(&format!("{stream} holds {messages} messages"), async || {
            (self.messages(stream).await >= messages).then_some(())
        })
        .await;
    }

    pub(crate) async fn messages(&self, stream: &str) -> u64 {
        self.info(stream).await.map_or(0, |info| info.state.messages)
    }

    pub(crate) async fn info(&self, stream: &str) -> Option<Info> {
        Some(self.js.get_stream(stream).await.ok()?.cached_info().clone())
    }

    pub(crate) fn js(&self) -> &Context {
        &self.js
    }

    /// Keeps the logs of the programs, for who looks into a failure, and says where.
    pub(crate) fn keep_logs(&mut self) -> String {
        self.folder.disable_cleanup(true);
        self.folder.path().display().to_string()
    }

    fn start_worker(&mut self, version: Version) -> Program {
        self.workers_started += 1;
        let name = format!("worker-{}-{version:?}", self.workers_started);
        let (url, admin) = (self.nats.url(), format!("127.0.0.1:{}", free_port()));
        let function_url = format!("http://127.0.0.1:{}", self.function.port());
        let [lease, time_limit] = [LEASE, TIME_LIMIT].map(|time| format!("{}s", time.as_secs()));
        let attempts = ATTEMPTS.to_string();
        let of_queue = [
            // Hardly enough for the load, so that calls wait.
            ("max_inflight", "4"),
            ("upstream_timeout", &*time_limit),
            ("max_retry_attempts", &attempts),
            ("initial_retry_wait", "500ms"),
            ("max_retry_wait", "1s"),
        ];
        // As the operator of each version starts its workers.
        let from_directory = version == Version::This && !self.ensures;
        let of_queue =
            if from_directory { &[("wait_for_settings", "true")][..] } else { &of_queue[..] };
        let settings = [
            ("nats_url", &*url),
            ("queue_name", QUEUE),
            ("ensure_stream", if self.ensures { "true" } else { "false" }),
            ("ack_wait", &lease),
            ("function_url", &function_url),
            ("http_addr", &admin),
            ("HOSTNAME", &name),
            ("callback_allowed_hosts", "127.0.0.1"),
            ("callback_max_attempts", "5"),
            ("callback_timeout", "2s"),
            ("RUST_LOG", "info,asyncqueue_worker=debug"),
        ];
        let settings = [&settings[..], of_queue].concat();
        let log = self.folder.path().join(format!("{name}.log"));
        self.start_program(version, "asyncqueue-worker", &settings, &log)
    }

    fn start_gateway(&self, version: Version, addr: SocketAddr, metrics: SocketAddr) -> Program {
        let (url, directory) = (self.nats.url(), self.folder.path().join("directory.yaml"));
        let (addr_setting, metrics) = (addr.to_string(), metrics.to_string());
        let settings = [
            ("nats_url", &*url),
            ("http_addr", &addr_setting),
            ("metrics_addr", &metrics),
            ("default_queue", QUEUE),
            ("directory_file", directory.to_str().unwrap()),
            ("unknown_function", "accept"),
            ("RUST_LOG", "info,asyncqueue_gateway=debug"),
        ];
        let log = self.folder.path().join(format!("gateway-{}.log", addr.port()));
        self.start_program(version, "asyncqueue-gateway", &settings, &log)
    }

    fn start_program(
        &self,
        version: Version,
        name: &'static str,
        settings: &[(&str, &str)],
        log: &std::path::Path,
    ) -> Program {
        match version {
            Version::Last => Program::start_logging_from(&self.last, name, settings, log),
            Version::This => Program::start_logging(name, settings, log),
        }
    }
}

/// Writes the directory as the operator of this version does: with the settings of the queue.
pub(crate) async fn write_directory(js: &Context) {
    let settings = QueueSettings {
        max_inflight: Some(4),
        timeout: Some(GoDuration(TIME_LIMIT)),
        retry: Some(QueueRetry {
            max_attempts: ATTEMPTS,
            min_backoff: "500ms".parse().unwrap(),
            max_backoff: "1s".parse().unwrap(),
            ..QueueRetry::default()
        }),
        ..QueueSettings::default()
    };
    let settings = Some(StoredSettings::new(&settings).unwrap());
    let entry = QueueEntry { settings, ..QueueEntry::new(QUEUE, QUEUE) };
    let queues = [(QUEUE.parse().unwrap(), entry)].into();
    let directory = Directory { queues, ..Directory::default() };
    DirectoryStore::open(js, 1).await.unwrap().sync(&directory).await.unwrap();
}

impl Gateway {
    async fn is_ready(&self) {
        until("the gateway is ready", async || {
            let answer = raw::try_request(self.addr, "GET", "/readyz", &[], b"").await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
    }
}
