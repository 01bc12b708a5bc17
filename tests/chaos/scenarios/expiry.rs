//! Calls that are too old when a worker comes.

use std::time::Duration;

use futures::FutureExt;
use test_support::load::plan::{Mix, Reception};
use tokio::time::sleep;

use crate::{
    run::Scenario,
    stage::{Setup, Stage},
};

const MAX_AGE: Duration = Duration::from_secs(4);

pub(super) fn all() -> Vec<Scenario> {
    let mix = Mix {
        calls: 60,
        over: MAX_AGE,
        receptions: &[Reception::Prompt],
        shared_ids: 0,
        cancelled: 0,
        failing: 0,
        asked: 100,
        ..Mix::default()
    };
    vec![Scenario {
        setup: Setup {
            workers: 0,
            mix,
            max_age: Some(MAX_AGE),
            // No longer than what it looks for is kept, which JetStream refuses.
            duplicate_window: MAX_AGE,
            ..Setup::default()
        },
        ..Scenario::new("calls are too old when a worker comes", |stage| aged(stage).boxed_local())
    }]
}

/// The first half is too old, and the other is not.
async fn aged(stage: &mut Stage) {
    sleep(MAX_AGE.mul_f64(1.5)).await;
    stage.add_worker();
    stage.add_bystanders();
    stage.load_ends().await;
}
