//! Cancellations of calls in every state.

use std::time::Duration;

use futures::FutureExt;
use rand::Rng;
use test_support::load::plan::{CancelAt, Mix, Reception};
use tokio::time::sleep;

use crate::{
    faults,
    run::Scenario,
    stage::{Setup, Stage},
};

/// How long a worker stands still, and how long it goes on between.
const STILL: (f64, f64) = (0.1, 3.0);
const GOES_ON: (f64, f64) = (0.0, 0.3);

/// Most calls that come while it stands still are cancelled before it goes on.
const SOON: Duration = Duration::from_millis(500);

pub(super) fn all() -> Vec<Scenario> {
    let mix = Mix { cancelled: 50, failing: 40, slow: 50, ..Mix::default() };
    let setup = Setup { mix, ..Setup::default() };
    let scenario = |name, act| Scenario { setup: setup.clone(), ..Scenario::new(name, act) };
    let still = |calls, over| Setup {
        workers: 1,
        mix: Mix {
            calls,
            over: Duration::from_secs(over),
            queues: 1,
            cancelled: 100,
            cancelled_at: CancelAt::Within(SOON),
            failing: 10,
            slow: 10,
            callbacks: 30,
            ..Mix::default()
        },
        // So that all calls of a moment are delivered at once.
        worker_settings: &[("max_inflight", "100")],
        ..Setup::default()
    };
    let at_the_end = Mix {
        calls: 400,
        over: Duration::from_secs(8),
        callbacks: 100,
        receptions: &[Reception::Prompt],
        cancelled: 100,
        cancelled_at: CancelAt::TheirEnd,
        failing: 0,
        slow: 0,
        ..Mix::default()
    };
    vec![
        Scenario {
            is_short: true,
            ..scenario("every other call is cancelled", |stage| stage.load_ends().boxed_local())
        },
        scenario("every other call is cancelled, and a worker is killed", |stage| {
            killed(stage).boxed_local()
        }),
        scenario("every other call is cancelled, and nats-server is killed", |stage| {
            nats_killed(stage).boxed_local()
        }),
        Scenario {
            is_short: true,
            setup: still(250, 15),
            ..Scenario::new(
                "calls are cancelled while their worker stands still for moments",
                |stage| stands_still(stage).boxed_local(),
            )
        },
        Scenario {
            setup: still(1000, 60),
            ..Scenario::new(
                "a thousand calls are cancelled while their worker stands still",
                |stage| stands_still(stage).boxed_local(),
            )
        },
        Scenario {
            is_short: true,
            setup: Setup { mix: at_the_end, ..Setup::default() },
            ..Scenario::new("calls are cancelled as they end", |stage| {
                stage.load_ends().boxed_local()
            })
        },
    ]
}

async fn killed(stage: &mut Stage) {
    stage.in_the_middle().await;
    faults::kill_worker(stage);
}

async fn nats_killed(stage: &mut Stage) {
    stage.in_the_middle().await;
    faults::kill_nats(stage, Duration::from_secs(1)).await;
}

async fn stands_still(stage: &mut Stage) {
    while !stage.has_load_ended() {
        let time = stage.rng.random_range(STILL.0..STILL.1);
        faults::stop_worker_for(stage, Duration::from_secs_f64(time)).await;
        let time = stage.rng.random_range(GOES_ON.0..GOES_ON.1);
        sleep(Duration::from_secs_f64(time)).await;
    }
}
