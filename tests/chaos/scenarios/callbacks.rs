//! Receivers of callbacks that refuse, are slow, or are not there.

use std::time::Duration;

use futures::FutureExt;
use test_support::load::plan::{Mix, Reception};

use crate::{
    faults,
    run::Scenario,
    stage::{Setup, Stage},
};

const RECEPTIONS: &[Reception] = &[
    Reception::Prompt,
    Reception::Slow(Duration::from_millis(500)),
    // Longer than a worker waits.
    Reception::Slow(Duration::from_secs(4)),
    Reception::Refuses(1, 500),
    Reception::Refuses(2, 404),
    // More often than a worker tries.
    Reception::Refuses(100, 503),
    // Never to be asked again.
    Reception::Refuses(100, 410),
    Reception::Dead,
];

pub(super) fn all() -> Vec<Scenario> {
    let mix = Mix { callbacks: 100, receptions: RECEPTIONS, ..Mix::default() };
    let setup = Setup { mix, ..Setup::default() };
    vec![
        Scenario {
            setup: setup.clone(),
            ..Scenario::new("callbacks fail in every way", |stage| stage.load_ends().boxed_local())
        },
        Scenario {
            setup,
            ..Scenario::new("callbacks fail in every way, and a worker is killed", |stage| {
                killed(stage).boxed_local()
            })
        },
    ]
}

async fn killed(stage: &mut Stage) {
    stage.in_the_middle().await;
    faults::kill_worker(stage);
}
