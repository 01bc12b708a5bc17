//! Workers that die, stand still and end.

use futures::FutureExt;

use crate::{
    faults,
    run::Scenario,
    stage::{Setup, Stage},
};

pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario::new("no fault at all", |stage| stage.load_ends().boxed_local()),
        Scenario {
            is_short: true,
            ..Scenario::new("a worker is killed", |stage| killed(stage, 1).boxed_local())
        },
        Scenario::new("workers are killed one after the other", |stage| {
            killed(stage, 4).boxed_local()
        }),
        Scenario {
            setup: Setup { workers: 8, ..Setup::default() },
            ..Scenario::new("all workers are killed and started at once", |stage| {
                all_killed(stage).boxed_local()
            })
        },
        Scenario::new("a worker is asked to end", |stage| ended(stage, true).boxed_local()),
        Scenario {
            setup: Setup { worker_settings: &[("grace_period", "100ms")], ..Setup::default() },
            ..Scenario::new("a worker is asked to end and has no time", |stage| {
                ended(stage, false).boxed_local()
            })
        },
        Scenario::new("a worker is stopped beyond its lease", |stage| stopped(stage).boxed_local()),
        Scenario::new("the consumer is deleted and created again", |stage| {
            recreated(stage).boxed_local()
        }),
    ]
}

async fn killed(stage: &mut Stage, times: usize) {
    for turn in 1..=times {
        stage.has_started(40 * turn).await;
        faults::kill_worker(stage);
    }
}

async fn all_killed(stage: &mut Stage) {
    stage.in_the_middle().await;
    for _ in 0..stage.workers.len() {
        faults::kill_worker(stage);
    }
}

async fn ended(stage: &mut Stage, has_time: bool) {
    stage.in_the_middle().await;
    faults::end_worker(stage, has_time).await;
}

async fn stopped(stage: &mut Stage) {
    stage.in_the_middle().await;
    faults::stop_worker(stage).await;
}

async fn recreated(stage: &mut Stage) {
    stage.in_the_middle().await;
    faults::recreate_consumer(stage).await;
}
