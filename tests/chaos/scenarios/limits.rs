//! Limits that the workers of a queue share, while workers and nats-server die.

use std::time::Duration;

use futures::FutureExt;
use test_support::load::plan::Mix;

use crate::{
    faults,
    run::Scenario,
    stage::{HIT, Setup, Stage},
};

/// At the beginning.
const TOTAL: u32 = 6;

/// So short that workers keep what they have.
const AWAY: Duration = Duration::from_millis(500);

pub(super) fn all() -> Vec<Scenario> {
    // More than the total can run, all the time.
    let mix = Mix {
        calls: 240,
        over: Duration::from_secs(6),
        queues: 1,
        slow: 50,
        slowest: Duration::from_millis(500),
        takes_at_least: Duration::from_millis(100),
        ..Mix::default()
    };
    let setup = Setup { concurrency: Some(TOTAL), mix, ..Setup::default() };
    let scenario = |name, act| Scenario { setup: setup.clone(), ..Scenario::new(name, act) };
    vec![
        Scenario {
            is_short: true,
            ..scenario("totals and rates change while nats-server is killed", |stage| {
                limits_change(stage).boxed_local()
            })
        },
        scenario("a worker is killed that has a share of the total", |stage| {
            killed(stage).boxed_local()
        }),
        scenario("a worker is asked to end that has a share of the total", |stage| {
            ended(stage).boxed_local()
        }),
    ]
}

/// A lower total with a rate, and then a higher one. Each time the server dies right after it has
/// stored that.
async fn limits_change(stage: &mut Stage) {
    let mut before = TOTAL;
    stage.are_open(TOTAL).await;
    for (total, per_second) in [(3, 20), (12, 1000)] {
        if total > before {
            stage.recorder.concurrency(HIT, Some(total));
        }
        faults::change_limits(stage, total, per_second).await;
        faults::kill_nats(stage, AWAY).await;
        faults::total_is_divided(stage, total).await;
        // Each worker keeps within its new share before it writes it.
        stage.recorder.concurrency(HIT, Some(total));
        stage.are_open(total).await;
        before = total;
    }
}

/// The share of the dead worker is divided again after its lease, and the new worker has its part.
async fn killed(stage: &mut Stage) {
    faults::total_is_divided(stage, TOTAL).await;
    stage.are_open(TOTAL).await;
    faults::kill_worker(stage);
    faults::total_is_divided(stage, TOTAL).await;
}

/// The share of a worker that ends is given up without a lease.
async fn ended(stage: &mut Stage) {
    faults::total_is_divided(stage, TOTAL).await;
    stage.are_open(TOTAL).await;
    faults::end_worker(stage, true).await;
    faults::total_is_divided(stage, TOTAL).await;
}
