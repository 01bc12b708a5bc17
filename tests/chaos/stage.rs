//! What a scenario plays on: NATS, gateways, workers, the function, the receiver of callbacks, and
//! the clients' load.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_nats::jetstream::Context;
use asyncqueue::{
    lanes::{Fairness, Sweeper},
    reserve::{self, FillOutcome},
    stream::{Owner, QueueSpec, Storage, ensure_buckets, ensure_queue},
};
use programs::Gateway;
use rand::{SeedableRng, rngs::StdRng};
use test_support::{
    history::{
        checker::Rules,
        event::{Excuse, QueueNumber, Step, What},
        recorder::Recorder,
        stalls,
    },
    load::{
        client::Client,
        function::{FUNCTIONS, Function, function_name},
        plan::{Mix, PlannedCall, plan, plan_batches},
        receiver::Receiver,
    },
    program::Program,
    proxy::Proxy,
    wait::until_in,
};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::sleep,
};

use crate::servers::{Kind, Servers};

pub(crate) mod clocks;
mod look;
mod programs;
mod replay;

/// The lease: short, so that a scenario is, and long enough that a busy machine renews it.
pub(crate) const LEASE: Duration = Duration::from_secs(3);

/// Of one invocation. Longer than any call that is planned to end.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Attempts of a call.
const ATTEMPTS: u64 = 3;

/// Attempts of a callback.
const CALLBACK_ATTEMPTS: u64 = 4;

/// Statuses after which a call is invoked again: the worker's default.
const RETRIED: [u16; 6] = [408, 429, 500, 502, 503, 504];

/// What a gateway has for NATS to store a call.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(2);

/// What a gateway may take to answer: a cancellation asks NATS several times, and each time waits
/// for five seconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// By so much a worker's time limit and our view of it may differ, on a machine that does much
/// else.
const SLACK: Duration = Duration::from_millis(500);

/// The gateway's answer and a worker's request come by two connections, and two tasks of this
/// process record them. A request that was sent before may be recorded that much later: the kernel
/// passes it on in microseconds, and three tasks (accept, read, handle) wait for a processor each,
/// for a few of its time slices. What the recorder loses beyond that is measured, and added.
const SKEW: Duration = Duration::from_millis(50);

/// Between two looks at the reserve.
const RESERVE_INTERVAL: Duration = Duration::from_secs(2);

/// Between two sweeps of lanes.
const SWEEP_INTERVAL: Duration = Duration::from_millis(200);

/// How long a lane stays after its last call: so short that lanes are removed all the time.
const KEEP_LANE: Duration = Duration::from_millis(300);

/// For something to happen that will.
pub(crate) const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The queue whose workers and consumer faults hit.
pub(crate) const HIT: QueueNumber = 0;

/// The names of the queues. What else is named on NATS follows from them.
pub(crate) const QUEUES: [&str; FUNCTIONS.len()] = ["jobs", "mails"];

/// What a scenario begins with.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) servers: Kind,
    pub(crate) storage: Storage,
    pub(crate) gateways: usize,
    /// Workers of the first queue, whom faults hit. Another queue has one, if this has any.
    pub(crate) workers: usize,
    /// In addition to a worker's usual settings.
    pub(crate) worker_settings: &'static [(&'static str, &'static str)],
    pub(crate) mix: Mix,
    /// Whether the workers reach the function by a cable that can be pulled.
    pub(crate) has_cable: bool,
    /// Whether they reach NATS by another.
    pub(crate) has_nats_cable: bool,
    /// Whether the clocks of gateways and workers can be set.
    pub(crate) has_clocks: bool,
    /// Of the queues' consumers.
    pub(crate) lease: Duration,
    /// Of one invocation.
    pub(crate) time_limit: Duration,
    /// How long a repeated message is recognised.
    pub(crate) duplicate_window: Duration,
    /// Results that a queue's stream of callbacks holds at most.
    pub(crate) max_results: Option<i64>,
    /// `limits.maxAge`.
    pub(crate) max_age: Option<Duration>,
    /// `concurrency` of the first queue.
    pub(crate) concurrency: Option<u32>,
    /// The fairness of the queues, as gateways know it.
    pub(crate) fairness: Fairness,
    /// How long a call may wait for its first invocation, where that is bounded.
    pub(crate) starts_within: Option<Duration>,
    /// How long calls have to end once the load and the faults are over.
    pub(crate) timeout: Duration,
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
            has_nats_cable: false,
            has_clocks: false,
            lease: LEASE,
            time_limit: TIME_LIMIT,
            duplicate_window: asyncqueue::stream::DEFAULT_DUPLICATE_WINDOW,
            max_results: None,
            max_age: None,
            concurrency: None,
            fairness: Fairness::Fifo,
            starts_within: None,
            timeout: WAIT_TIMEOUT,
        }
    }
}

/// The stage.
pub(crate) struct Stage {
    pub(crate) recorder: Recorder,
    pub(crate) rng: StdRng,
    pub(crate) servers: Servers,
    pub(crate) js: Context,
    /// The queues. Faults hit the first.
    pub(crate) specs: Vec<QueueSpec>,
    pub(crate) gateways: Vec<Gateway>,
    /// The workers of the first queue.
    pub(crate) workers: Vec<Program>,
    /// Those of the others.
    pub(crate) bystanders: Vec<Program>,
    pub(crate) function: Arc<Function>,
    /// Between the workers and the function, if the scenario has one.
    pub(crate) cable: Option<Proxy>,
    /// Between the workers and the only nats-server.
    pub(crate) nats_cable: Option<Proxy>,
    receiver: Arc<Receiver>,
    setup: Setup,
    load: Option<JoinHandle<()>>,
    clients: Vec<Client>,
    _stalls: JoinSet<()>,
    /// Does what the operator does all the time: keeps the reserve, where the store is small, and
    /// sweeps lanes.
    keeping: JoinSet<()>,
    /// Where the programs log to.
    folder: PathBuf,
    workers_started: usize,
    calls_planned: u64,
    batches_planned: u64,
}

impl Stage {
    /// Starts everything but the load.
    pub(crate) async fn set(setup: Setup, seed: u64, folder: &Path) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let queues = &QUEUES[..setup.mix.queues];
        std::fs::write(folder.join("directory.yaml"), directory(queues, &setup)).unwrap();
        let servers = Servers::start(setup.servers, folder).await;
        let js = servers.jetstream().await;
        let mut specs = Vec::new();
        for queue in queues {
            let owner = Owner { name: format!("chaos/{queue}"), uid: "1".to_owned() };
            let mut spec = QueueSpec {
                ack_wait: setup.lease,
                storage: setup.storage,
                replicas: servers.replicas(),
                duplicate_window: setup.duplicate_window,
                ..QueueSpec::new(queue.parse().unwrap(), owner)
            };
            spec.limits.max_age = setup.max_age;
            until_in(WAIT_TIMEOUT, "the queue is there", async || {
                ensure_queue(&js, &spec, false).await.ok()
            })
            .await;
            if let Some(max) = setup.max_results {
                let stream = async || js.get_stream(spec.queue.callback_stream()).await.ok();
                let mut config = until_in(WAIT_TIMEOUT, "the stream of results", stream)
                    .await
                    .cached_info()
                    .config
                    .clone();
                config.max_messages = max;
                // For the creation alone: an update with it purges the stream at the next start.
                config.first_sequence = None;
                js.update_stream(config).await.unwrap();
            }
            specs.push(spec);
        }
        until_in(WAIT_TIMEOUT, "the buckets are there", async || {
            ensure_buckets(&js, servers.replicas()).await.ok()
        })
        .await;
        let mut keeping = JoinSet::new();
        if setup.servers.is_small() {
            let (js, replicas) = (js.clone(), servers.replicas());
            until_in(WAIT_TIMEOUT, "the reserve is full", async || {
                (reserve::keep_full(&js, replicas).await.ok()? != FillOutcome::NoSpace)
                    .then_some(())
            })
            .await;
            // As the operator does.
            keeping.spawn(async move {
                loop {
                    sleep(RESERVE_INTERVAL).await;
                    let _ = reserve::keep_full(&js, replicas).await;
                }
            });
        }
        let recorder = Recorder::default();
        recorder.concurrency(HIT, setup.concurrency);
        let function = Arc::new(Function::start(recorder.clone()).await);
        let cable = if setup.has_cable { Some(Proxy::before(function.port()).await) } else { None };
        let mut nats_cable = None;
        if setup.has_nats_cable {
            let port = servers.url().rsplit(':').next().and_then(|port| port.parse().ok()).unwrap();
            nats_cable = Some(Proxy::before(port).await);
        }
        let receiver = Arc::new(Receiver::start(recorder.clone()).await);
        let mut stage = Self {
            _stalls: stalls::watch(recorder.clone()),
            keeping,
            recorder,
            rng: StdRng::seed_from_u64(seed),
            servers,
            js,
            specs,
            gateways: Vec::new(),
            workers: Vec::new(),
            bystanders: Vec::new(),
            function,
            cable,
            nats_cable,
            receiver,
            load: None,
            clients: Vec::new(),
            folder: folder.to_owned(),
            workers_started: 0,
            calls_planned: 0,
            batches_planned: 0,
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
        if stage.setup.workers > 0 {
            stage.add_bystanders();
        }
        stage
    }

    /// The rules that its history is held against.
    pub(crate) fn rules(&self) -> Rules {
        Rules {
            lease: self.setup.lease,
            time_limit: self.setup.time_limit,
            attempts: ATTEMPTS,
            retried: RETRIED.into_iter().collect(),
            slack: SLACK,
            skew: SKEW,
            max_age: self.setup.max_age,
            starts_within: self.setup.starts_within,
        }
    }

    /// Creates and removes the lanes of the first queue from now on, as the operator does, but more
    /// often.
    pub(crate) fn sweep_lanes(&mut self) {
        let sweeper = Sweeper::new(self.js.clone(), self.spec());
        let mut sweeper = sweeper.keeping_lanes_for(KEEP_LANE);
        let recorder = self.recorder.clone();
        self.keeping.spawn(async move {
            loop {
                // After an error the next one continues.
                for change in sweeper.sweep().await.unwrap_or_default() {
                    recorder.fault_of(HIT, change, Excuse::None);
                }
                sleep(SWEEP_INTERVAL).await;
            }
        });
    }

    /// Waits until the sweep has made a change whose words begin so.
    pub(crate) async fn lanes_are_swept(&self, change: &str) {
        until_in(WAIT_TIMEOUT, &format!("the sweep has {change}"), async || {
            let is_change =
                |what: &What| matches!(what, What::Fault { name, .. } if name.starts_with(change));
            (self.recorder.count(is_change) > 0).then_some(())
        })
        .await;
    }

    /// Begins to submit the calls of the scenario's mix.
    pub(crate) fn begin_load(&mut self) {
        let mix = self.setup.mix.clone();
        let calls = self.submit(&mix);
        let batches = self.submit_batches(&mix);
        self.load = Some(tokio::spawn(async move {
            calls.await.expect("the calls are submitted");
            batches.await.expect("the batches are submitted");
        }));
    }

    /// Begins to submit the batches of a mix, under numbers of their own.
    fn submit_batches(&mut self, mix: &Mix) -> JoinHandle<()> {
        let mut batches = plan_batches(mix, &mut self.rng);
        for batch in &mut batches {
            batch.number += self.batches_planned;
            for call in &mut batch.calls {
                call.number += self.calls_planned;
            }
            self.function.expect(&batch.calls);
        }
        self.batches_planned += batches.len() as u64;
        self.calls_planned += batches.iter().map(|batch| batch.calls.len() as u64).sum::<u64>();
        self.receiver.expect_batches(&batches);
        let (client, receiver) = (self.new_client(), self.receiver.clone());
        tokio::spawn(async move { client.submit_batches(batches, &receiver).await })
    }

    fn new_client(&mut self) -> Client {
        let gateways = self.gateways.iter().map(Gateway::addr).collect();
        let client = Client::new(gateways, self.recorder.clone(), ANSWER_LIMIT);
        self.clients.push(client.clone());
        client
    }

    /// Begins to submit calls of a mix in addition to those submitted already.
    pub(crate) fn submit(&mut self, mix: &Mix) -> JoinHandle<()> {
        let calls = plan(mix, &mut self.rng);
        self.submit_calls(calls)
    }

    /// Begins to submit these calls, under numbers of their own.
    pub(crate) fn submit_calls(&mut self, mut calls: Vec<PlannedCall>) -> JoinHandle<()> {
        for call in &mut calls {
            call.number += self.calls_planned;
        }
        self.calls_planned += calls.len() as u64;
        self.function.expect(&calls);
        self.receiver.expect(&calls);
        let (client, receiver) = (self.new_client(), self.receiver.clone());
        tokio::spawn(async move { client.submit_all(calls, &receiver).await })
    }

    /// Waits until the clients have said their last word.
    pub(crate) async fn load_ends(&mut self) {
        if let Some(load) = self.load.take() {
            load.await.expect("the load is submitted");
        }
    }

    /// Whether the clients have said their last word.
    pub(crate) fn has_load_ended(&self) -> bool {
        self.load.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until a third of the calls have started, so that a fault meets calls in every state.
    pub(crate) async fn in_the_middle(&self) {
        let third = usize::try_from(self.setup.mix.calls / 3).unwrap();
        self.has_started(third).await;
    }

    /// Waits until so many invocations have started.
    pub(crate) async fn has_started(&self, runs: usize) {
        until_in(WAIT_TIMEOUT, &format!("{runs} invocations have started"), async || {
            (self.runs_started() >= runs).then_some(())
        })
        .await;
    }

    /// How many calls were answered with 202 so far.
    pub(crate) fn accepted(&self) -> usize {
        self.recorder
            .count(|what| matches!(what, What::Step(_, Step::Answered { status: 202, .. })))
    }

    /// How many invocations have started so far.
    pub(crate) fn runs_started(&self) -> usize {
        self.recorder.count(|what| matches!(what, What::Step(_, Step::Started { .. })))
    }

    /// Waits until so many invocations are open at once.
    pub(crate) async fn are_open(&self, invocations: u32) {
        until_in(WAIT_TIMEOUT, &format!("{invocations} invocations are open"), async || {
            let ended = self.recorder.count(|what| {
                use Step::{BrokenOff, Failed, Returned};
                matches!(what, What::Step(_, Returned { .. } | Failed { .. } | BrokenOff { .. }))
            });
            // Counted later, so that none is missing.
            let open = self.runs_started().saturating_sub(ended);
            (open >= usize::try_from(invocations).unwrap()).then_some(())
        })
        .await;
    }

    /// How many calls were accepted so far, and how many of all have started.
    pub(crate) fn accepted_calls(&self) -> usize {
        self.calls_with(|step| matches!(step, Step::Answered { status: 202, .. }))
    }

    pub(crate) fn calls_started(&self) -> usize {
        self.calls_with(|step| matches!(step, Step::Started { .. }))
    }

    fn calls_with(&self, is_step: impl Fn(&Step) -> bool) -> usize {
        let history = self.recorder.history();
        let calls = history.iter().filter_map(|event| match &event.what {
            What::Step(call, step) if is_step(step) => Some(*call),
            _ => None,
        });
        calls.collect::<BTreeSet<_>>().len()
    }

    /// The queue that faults hit.
    pub(crate) fn spec(&self) -> &QueueSpec {
        &self.specs[0]
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

/// A directory file with these queues, each for its functions.
fn directory(queues: &[&str], setup: &Setup) -> String {
    let fairness = setup.fairness;
    let mut lines = vec!["queues:".to_owned()];
    lines.extend(queues.iter().map(|queue| format!("  {queue}: {{fairness: {fairness:?}}}")));
    lines.push("functions:".to_owned());
    for (number, queue) in queues.iter().enumerate() {
        let names = (0..setup.mix.functions).map(|function| function_name(number, function));
        lines.extend(names.map(|name| format!("  {name}: {{queue: {queue}}}")));
    }
    lines.join("\n")
}
