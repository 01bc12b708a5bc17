//! Lanes that come and go under load, and the change of fairness in both directions.

use std::time::Duration;

use asyncqueue::lanes::Fairness;
use futures::FutureExt;
use test_support::load::plan::Mix;
use tokio::time::sleep;

use crate::{
    faults,
    run::Scenario,
    stage::{Setup, Stage},
};

/// How long a queue has lanes, before its fairness changes back.
const HAS_LANES: Duration = Duration::from_secs(2);

pub(super) fn all() -> Vec<Scenario> {
    let mix = Mix {
        calls: 300,
        over: Duration::from_secs(8),
        queues: 1,
        functions: 8,
        slowest: Duration::from_secs(1),
        ..Mix::default()
    };
    let setup = Setup { fairness: Fairness::Function, mix, ..Setup::default() };
    let scenario = |name, act| Scenario { setup: setup.clone(), ..Scenario::new(name, act) };
    vec![
        Scenario {
            is_short: true,
            ..scenario("the fairness of a queue changes, and changes back", |stage| {
                fairness_changes(stage).boxed_local()
            })
        },
        scenario("a worker is killed while lanes come and go", |stage| {
            lanes_come_and_go(stage).boxed_local()
        }),
    ]
}

async fn fairness_changes(stage: &mut Stage) {
    stage.sweep_lanes();
    stage.has_started(30).await;
    faults::change_fairness(stage, Fairness::Function).await;
    stage.lanes_are_swept("removed unused lane").await;
    sleep(HAS_LANES).await;
    faults::change_fairness(stage, Fairness::Fifo).await;
}

async fn lanes_come_and_go(stage: &mut Stage) {
    stage.sweep_lanes();
    faults::change_fairness(stage, Fairness::Function).await;
    stage.lanes_are_swept("removed unused lane").await;
    faults::kill_worker(stage);
}
