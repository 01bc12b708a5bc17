//! Functions that fail in every way that a function can.

use asyncqueue_tests::load::plan::{Failure, Mix};
use futures::FutureExt;

use crate::{
    run::Scenario,
    stage::{Setup, Stage},
};

/// Each is tried again, after a time that is bounded whatever the function asks for.
const FAILURES: &[Failure] = &[
    Failure::Status(408),
    Failure::Status(500),
    Failure::Status(502),
    Failure::Status(504),
    Failure::TooMany("1"),
    Failure::TooMany("-5"),
    Failure::TooMany("315360000"),
    Failure::TooMany("Thu, 01 Jan 1970 00:00:00 GMT"),
    Failure::TooMany("soon"),
    Failure::HalfAnswer,
    Failure::Endless,
    Failure::Silent,
];

pub(super) fn all() -> Vec<Scenario> {
    let mix = Mix { failing: 60, failures: FAILURES, ..Mix::default() };
    vec![
        Scenario {
            setup: Setup { mix: mix.clone(), ..Setup::default() },
            ..Scenario::new("functions fail in every way", |stage| stage.load_ends().boxed_local())
        },
        Scenario {
            setup: Setup { mix, ..Setup::default() },
            ..Scenario::new("functions fail in every way, and a worker is killed", |stage| {
                killed(stage).boxed_local()
            })
        },
    ]
}

async fn killed(stage: &mut Stage) {
    stage.in_the_middle().await;
    crate::faults::kill_worker(stage);
}
