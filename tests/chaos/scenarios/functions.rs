//! Functions that fail in every way that a function can.

use std::time::Duration;

use futures::FutureExt;
use test_support::{
    history::event::Excuse,
    load::plan::{Failure, Mix},
};
use tokio::time::sleep;

use crate::{
    faults,
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
        Scenario {
            // A call that is cancelled in the meantime was sent before that and would arrive after
            // it.
            setup: Setup {
                has_cable: true,
                mix: Mix { cancelled: 0, ..Mix::default() },
                ..Setup::default()
            },
            ..Scenario::new("functions can't be reached for a while", |stage| {
                cut_off(stage).boxed_local()
            })
        },
    ]
}

async fn killed(stage: &mut Stage) {
    stage.in_the_middle().await;
    faults::kill_worker(stage);
}

/// No packet arrives: longer than a run may take, and shorter than all attempts of a call.
async fn cut_off(stage: &mut Stage) {
    stage.in_the_middle().await;
    let set_passing = |stage: &Stage, passes| stage.cable.as_ref().unwrap().set_passing(passes);
    // What a worker sends in the meantime arrives when it has given that up.
    stage.recorder.fault("functions can't be reached", Excuse::Begins);
    set_passing(stage, false);
    sleep(Duration::from_secs(8)).await;
    set_passing(stage, true);
    stage.recorder.fault("functions can be reached again", Excuse::Ends);
}
