//! What a scenario plays on: NATS, gateways, workers, the function, the receiver of callbacks, and the clients' load.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_nats::jetstream::Context;
use asyncqueue::{
    ensure::{ensure, ensure_buckets},
    stream::{Owner, QueueSpec, Storage},
};
use asyncqueue_tests::{
    history::{
        checker::Rules,
        event::{Step, What},
        recorder::Recorder,
        stalls,
    },
    load::{
        client::Client,
        function::Function,
        plan::{Mix, plan},
        receiver::Receiver,
    },
    program::Program,
    proxy::Proxy,
    wait::until_in,
};
use programs::Gateway;
use rand::{SeedableRng, rngs::StdRng};
use tokio::task::{JoinHandle, JoinSet};

use crate::servers::{Kind, Servers};

pub(crate) mod clocks;
mod look;
mod programs;

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

/// What a worker sends may be seen so much later, on a machine that does much else.
const SLACK: Duration = Duration::from_millis(500);

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
    /// Whether the clocks of gateways and workers can be set.
    pub(crate) has_clocks: bool,
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
            has_clocks: false,
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
            stage.add_gateway();
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
        let gateways = self.gateways.iter().map(Gateway::addr).collect();
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

    /// How many calls were answered with 202 so far.
    pub(crate) fn accepted(&self) -> usize {
        self.recorder.count(|what| matches!(what, What::Step(_, Step::Answered { status: 202, .. })))
    }

    /// How many runs have started so far.
    pub(crate) fn runs_started(&self) -> usize {
        self.recorder.count(|what| matches!(what, What::Step(_, Step::Started { .. })))
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
