//! An upgrade from the last version to this one and back, under load, with calls, results and dead
//! letters on the way.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod look;
mod new_calls;
mod stage;

use std::time::Duration;

use asyncqueue::stream::has_unique_sequences;
use rand::{SeedableRng, rngs::StdRng};
use test_support::{
    history::{checker::check, event::Excuse, story::explain},
    load::plan::{Mix, PlannedCall, Reception, plan},
};

use tokio::time::sleep;

use crate::stage::{CALLS, Creator, DEAD, QUEUE, RESULTS, Stage, Version, rules};

/// How many calls use what only this version knows.
const CALLS_OF_THIS_VERSION: u64 = 60;

/// Their longest delay.
const LONGEST_DELAY: Duration = Duration::from_secs(2);

/// Calls of each kind, over the time that it takes to upgrade and to roll back.
fn mix() -> Mix {
    Mix {
        calls: CALLS,
        over: Duration::from_secs(16),
        queues: 1,
        // The last version refuses a second call with an id, and mixes up what it knows of the two.
        shared_ids: 0,
        cancelled: 8,
        failing: 25,
        receptions: &[
            Reception::Prompt,
            Reception::Refuses(1, 500),
            Reception::Refuses(3, 500),
            Reception::Dead,
        ],
        ..Mix::default()
    }
}

/// The calls. One that is cancelled runs for long: what a cancellation does to a call that ends in
/// the same moment is another test's.
fn calls(seed: u64) -> Vec<PlannedCall> {
    let mut calls = plan(&mix(), &mut StdRng::seed_from_u64(seed));
    for call in &mut calls {
        if let Some(after) = &mut call.cancel_after {
            *after = (*after).min(Duration::from_secs(1));
            call.behaviour.fails = 0;
            call.behaviour.takes = Duration::from_secs(4);
        }
    }
    calls
}

/// Calls whose results are kept or waited for, and delayed ones: the gateways of the last version
/// know none of that.
fn calls_of_this_version(seed: u64) -> Vec<PlannedCall> {
    let mix = Mix {
        calls: CALLS_OF_THIS_VERSION,
        over: Duration::from_secs(3),
        queues: 1,
        shared_ids: 0,
        kept: 40,
        waiting: 30,
        waits: Duration::from_secs(2),
        delayed: 40,
        longest_delay: LONGEST_DELAY,
        ..Mix::default()
    };
    let mut calls = plan(&mix, &mut StdRng::seed_from_u64(seed));
    for call in &mut calls {
        call.number += CALLS;
    }
    calls
}

/// From one version to the other, as a rollout does it: a worker dies, the others end as they are
/// asked to. For a moment no worker runs, and what the one version has stored is all that the other
/// finds.
async fn roll(stage: &mut Stage, to: Version) {
    stage.stored(QUEUE, 1).await;
    stage.stored(RESULTS, 3).await;
    stage.stored(DEAD, 5).await;
    stage.recorder.fault(format!("a worker is killed, {to:?} comes next"), Excuse::Once);
    stage.workers.remove(0).kill();
    for gateway in 0..stage.gateways.len() {
        stage.replace_gateway(gateway, to).await;
    }
    stage.dead_calls_are_found().await;
    for mut worker in std::mem::take(&mut stage.workers) {
        worker.signal("TERM");
        assert!(
            worker.ended().await.success(),
            "a worker that is asked to end says that all is well"
        );
    }
    stage.stored(QUEUE, 10).await;
    assert!(stage.messages(RESULTS).await > 0, "results wait");
    stage.start_workers(to);
    stage.recorder.fault(format!("{to:?} runs"), Excuse::None);
}

/// Everything random comes from `SEED`, if it is set.
async fn roll_forward_and_back(creator: Creator, seed: u64) {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(seed);
    let mut stage = Stage::set(creator).await;
    stage.start(Version::Last).await;
    let load = stage.submit(calls(seed));
    stage.accepted(CALLS / 5).await;
    roll(&mut stage, Version::This).await;
    let of_this = stage.submit(calls_of_this_version(seed));
    stage.accepted(CALLS * 3 / 5).await;
    of_this.await.unwrap();
    // What is not due, and was not delivered, would run at once after the rollback.
    sleep(LONGEST_DELAY).await;
    roll(&mut stage, Version::Last).await;
    load.await.unwrap();
    stage.last_look().await;
    stage.dead_calls_are_found().await;

    let history = stage.recorder.history();
    let report = check(&history, &rules());
    let tally = report.tally;
    println!("{tally:?}");
    assert!(
        report.broken.is_empty(),
        "seed {seed}\n{}logs: {}",
        explain(&history, &report.broken),
        stage.keep_logs()
    );
    assert!(tally.done > 0 && tally.dead > 0 && tally.cancelled > 0, "{tally:?}");
    for stream in [QUEUE, RESULTS, DEAD] {
        let info = stage.info(stream).await.unwrap();
        let is_new = creator == Creator::This;
        assert_eq!(has_unique_sequences(&info.state), is_new, "{stream}: {:?}", info.state);
        assert_eq!(info.config.first_sequence.is_some(), is_new, "{stream}");
    }
}

#[tokio::test]
async fn a_rollout_and_its_rollback_lose_nothing() {
    roll_forward_and_back(Creator::This, 1).await;
}

#[tokio::test]
async fn streams_of_the_last_version_lose_nothing() {
    roll_forward_and_back(Creator::Last, 2).await;
}
