//! Results that clients keep and wait for, delayed calls, and batches, while each part dies.

use std::time::Duration;

use futures::FutureExt;
use test_support::load::plan::{CancelAt, Mix};

use crate::{
    faults,
    run::Scenario,
    servers::Kind,
    stage::{Setup, Stage},
};

/// So short that many clients still wait when nats-server is back.
const AWAY: Duration = Duration::from_secs(1);

/// Results of every end: most calls are done, some are dead, some are cancelled.
fn results() -> Mix {
    Mix { kept: 60, waiting: 40, asked: 50, ..Mix::default() }
}

/// Without callbacks: a nats-server that was killed does not know which callbacks were posted, and
/// a cancellation that comes before the end of such a call is acknowledged is its second end. See
/// the known gaps in `model/README.md`.
fn without_callbacks() -> Mix {
    Mix { callbacks: 0, ..results() }
}

/// A third of the calls is due in the middle of the load or after it.
fn delays() -> Mix {
    Mix { delayed: 40, cancelled: 20, ..Mix::default() }
}

/// Without cancellations, for the same reason.
fn all_kinds() -> Mix {
    let over = Duration::from_secs(3);
    Mix { calls: 120, over, delayed: 30, batches: 8, cancelled: 0, ..results() }
}

/// A third of the batches is cancelled when a call fails for good.
fn batches() -> Mix {
    Mix { calls: 20, batches: 25, cancelled: 30, callbacks: 80, ..Mix::default() }
}

/// Each batch is cancelled by its client, some before they have begun and some as they end.
fn cancelled_batches() -> Mix {
    Mix { batches_cancelled: 100, cancelled: 0, slow: 60, ..batches() }
}

/// Most calls take longer than it takes their waiting clients to cancel them. Without callbacks,
/// for the same reason.
fn cancelled_waits() -> Mix {
    Mix {
        waiting: 80,
        kept: 30,
        cancelled: 60,
        cancelled_at: CancelAt::Wait(Duration::from_secs(1)),
        slow: 70,
        callbacks: 0,
        shared_ids: 0,
        ..Mix::default()
    }
}

pub(super) fn all() -> Vec<Scenario> {
    let setup = |mix| Setup { gateways: 2, mix, ..Setup::default() };
    let three = |mix: Mix| Setup {
        servers: Kind::Three,
        mix: Mix { over: Duration::from_secs(12), ..mix },
        ..setup(mix.clone())
    };
    let scenario = |name, setup, act| Scenario { setup, ..Scenario::new(name, act) };
    vec![
        Scenario {
            is_short: true,
            ..scenario(
                "results, delays and batches: each part is killed",
                setup(all_kinds()),
                |stage| each_killed(stage).boxed_local(),
            )
        },
        scenario("results: workers are killed again and again", setup(results()), |stage| {
            workers_killed(stage).boxed_local()
        }),
        scenario("results: a worker is stopped beyond its lease", setup(results()), |stage| {
            worker_stopped(stage).boxed_local()
        }),
        scenario("results: gateways are killed while clients wait", setup(results()), |stage| {
            gateways_killed(stage).boxed_local()
        }),
        scenario("results: nats-server is killed", setup(without_callbacks()), |stage| {
            nats_killed(stage, 2).boxed_local()
        }),
        scenario("results: the leader of three servers is killed", three(results()), |stage| {
            leader_killed(stage).boxed_local()
        }),
        scenario("delays: workers are killed again and again", setup(delays()), |stage| {
            workers_killed(stage).boxed_local()
        }),
        scenario("delays: all workers are killed before calls are due", setup(delays()), |stage| {
            all_workers_killed(stage).boxed_local()
        }),
        scenario("delays: a worker is stopped beyond its lease", setup(delays()), |stage| {
            worker_stopped(stage).boxed_local()
        }),
        scenario("delays: nats-server is killed", setup(delays()), |stage| {
            nats_killed(stage, 3).boxed_local()
        }),
        scenario("delays: the leader of three servers is killed", three(delays()), |stage| {
            leader_killed(stage).boxed_local()
        }),
        scenario("batches: workers are killed again and again", setup(batches()), |stage| {
            workers_killed(stage).boxed_local()
        }),
        scenario("batches: a worker is stopped beyond its lease", setup(batches()), |stage| {
            worker_stopped(stage).boxed_local()
        }),
        scenario("batches: gateways are killed", setup(batches()), |stage| {
            gateways_killed(stage).boxed_local()
        }),
        scenario("batches: nats-server is killed", setup(batches()), |stage| {
            nats_killed(stage, 2).boxed_local()
        }),
        scenario(
            "batches: each is cancelled, and workers and nats-server are killed",
            setup(cancelled_batches()),
            |stage| worker_and_nats_killed(stage).boxed_local(),
        ),
        scenario(
            "results: waits are cancelled, and workers and nats-server are killed",
            setup(cancelled_waits()),
            |stage| worker_and_nats_killed(stage).boxed_local(),
        ),
        scenario("batches: the leader of three servers is killed", three(batches()), |stage| {
            leader_killed(stage).boxed_local()
        }),
        scenario("delays: the consumer is deleted and created again", setup(delays()), |stage| {
            consumer_recreated(stage).boxed_local()
        }),
    ]
}

async fn each_killed(stage: &mut Stage) {
    stage.has_started(20).await;
    faults::kill_worker(stage);
    stage.has_started(40).await;
    faults::kill_gateway(stage).await;
    stage.has_started(60).await;
    faults::kill_nats(stage, AWAY).await;
}

async fn workers_killed(stage: &mut Stage) {
    for turn in 1..=3 {
        stage.has_started(40 * turn).await;
        faults::kill_worker(stage);
    }
}

async fn all_workers_killed(stage: &mut Stage) {
    stage.in_the_middle().await;
    for _ in 0..stage.workers.len() {
        faults::kill_worker(stage);
    }
}

async fn worker_stopped(stage: &mut Stage) {
    stage.in_the_middle().await;
    faults::stop_worker(stage).await;
}

/// The clients of each of the two gateways wait in turn.
async fn gateways_killed(stage: &mut Stage) {
    for turn in 1..=3 {
        stage.has_started(40 * turn).await;
        faults::kill_gateway(stage).await;
        stage.gateways.rotate_left(1);
    }
}

async fn nats_killed(stage: &mut Stage, times: usize) {
    for turn in 1..=times {
        stage.has_started(40 * turn).await;
        faults::kill_nats(stage, AWAY).await;
    }
}

async fn worker_and_nats_killed(stage: &mut Stage) {
    stage.has_started(20).await;
    faults::kill_worker(stage);
    stage.has_started(40).await;
    faults::kill_nats(stage, AWAY).await;
    stage.has_started(60).await;
    faults::kill_worker(stage);
}

async fn leader_killed(stage: &mut Stage) {
    stage.in_the_middle().await;
    faults::kill_leader(stage).await;
}

async fn consumer_recreated(stage: &mut Stage) {
    stage.in_the_middle().await;
    faults::recreate_consumer(stage).await;
}
