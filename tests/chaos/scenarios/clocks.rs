//! Clocks that differ and jump: of the workers, and of the gateways, each against those of all
//! others.
//!
//! libfaketime stands between a program and the kernel and changes what the time of day is; the
//! clock that only ever goes forward is left as it is, as when somebody sets a clock. It does not
//! reach nats-server, which asks the kernel itself: its clock differs from those of the others by
//! as much, and is never seen to jump.

use std::time::Duration;

use futures::FutureExt;
use test_support::{
    history::event::Excuse,
    load::plan::{Failure, Mix},
};
use tokio::time::sleep;

use crate::{
    run::{Need, Scenario},
    stage::{Setup, Stage, clocks::Whose},
};

/// Between two jumps: some runs end, some begin, and some last over it.
const PAUSE: Duration = Duration::from_secs(1);

/// By so many hours they are wrong: more than any wait and lease there is.
const AHEAD: i32 = 3;
const BEHIND: i32 = -3;

pub(super) fn all() -> Vec<Scenario> {
    // Dates too: they are read by the worker's clock and written by another.
    let failures = &[
        Failure::Status(500),
        Failure::TooMany("1"),
        Failure::TooMany("Thu, 01 Jan 1970 00:00:00 GMT"),
    ];
    let mix = Mix { failing: 40, failures, over: Duration::from_secs(10), ..Mix::default() };
    let setup = Setup { has_clocks: true, gateways: 2, mix, ..Setup::default() };
    let scenario = |name, act| Scenario {
        needs: &[Need::FakeTime],
        setup: setup.clone(),
        ..Scenario::new(name, act)
    };
    vec![
        scenario("clocks: workers are three hours ahead, gateways three behind", |stage| {
            differ(stage, AHEAD, BEHIND).boxed_local()
        }),
        scenario("clocks: workers are three hours behind, gateways three ahead", |stage| {
            differ(stage, BEHIND, AHEAD).boxed_local()
        }),
        scenario("clocks: those of the workers jump to and fro", |stage| {
            jump(stage, Whose::Workers).boxed_local()
        }),
        scenario("clocks: those of the gateways jump to and fro", |stage| {
            jump(stage, Whose::Gateways).boxed_local()
        }),
    ]
}

async fn differ(stage: &mut Stage, workers: i32, gateways: i32) {
    set(stage, Whose::Workers, workers).await;
    set(stage, Whose::Gateways, gateways).await;
    stage.load_ends().await;
}

async fn jump(stage: &mut Stage, whose: Whose) {
    for hours in [AHEAD, BEHIND, 0, BEHIND, AHEAD] {
        sleep(PAUSE).await;
        set(stage, whose, hours).await;
    }
}

async fn set(stage: &mut Stage, whose: Whose, hours: i32) {
    stage.recorder.fault(format!("the clocks of {whose} are wrong by {hours} h"), Excuse::None);
    stage.set_clocks(whose, hours);
    stage.clocks_are_seen(whose, hours).await;
}
