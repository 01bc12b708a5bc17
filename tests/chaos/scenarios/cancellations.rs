//! Cancellations of calls in every state.

use asyncqueue_tests::load::plan::Mix;
use futures::FutureExt;

use crate::{
    faults,
    run::Scenario,
    stage::{Setup, Stage},
};

pub(super) fn all() -> Vec<Scenario> {
    let mix = Mix { cancelled: 50, failing: 40, slow: 50, ..Mix::default() };
    let setup = Setup { mix, ..Setup::default() };
    let scenario = |name, act| Scenario { setup: setup.clone(), ..Scenario::new(name, act) };
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
    ]
}

async fn killed(stage: &mut Stage) {
    stage.in_the_middle().await;
    faults::kill_worker(stage);
}

async fn nats_killed(stage: &mut Stage) {
    stage.in_the_middle().await;
    faults::kill_nats(stage, std::time::Duration::from_secs(1)).await;
}
