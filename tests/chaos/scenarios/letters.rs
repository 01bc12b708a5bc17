//! Workers that die when a dead letter is stored and its call is not acknowledged yet, with no
//! worker to take over until the stream of dead letters has forgotten its message id.

use std::time::Duration;

use futures::{FutureExt, StreamExt};
use test_support::load::plan::{ALWAYS, Mix};
use tokio::time::{Instant, timeout_at};

use crate::{
    faults,
    run::Scenario,
    stage::{Setup, Stage, WAIT_TIMEOUT},
};

/// Shorter than the lease, after which the next worker has the call.
const WINDOW: Duration = Duration::from_secs(1);

/// Workers that are killed, each when so many letters have been seen: others are being stored then.
const KILLS: usize = 5;
const LETTERS: usize = 3;

pub(super) fn all() -> Vec<Scenario> {
    // They fail together.
    let mix = Mix {
        calls: 100,
        over: Duration::from_millis(200),
        queues: 1,
        shared_ids: 0,
        repeated: 0,
        cancelled: 0,
        callbacks: 0,
        failing: 100,
        fails: &[ALWAYS],
        slow: 0,
        ..Mix::default()
    };
    vec![Scenario {
        is_short: true,
        setup: Setup { workers: 1, mix, duplicate_window: WINDOW, ..Setup::default() },
        ..Scenario::new("workers are killed as dead letters are stored", |stage| {
            killed(stage).boxed_local()
        })
    }]
}

async fn killed(stage: &mut Stage) {
    let [_, _, dead] = stage.spec().streams();
    // Published is stored, but for a moment.
    let mut letters = stage.js.client().subscribe(format!("{dead}.>")).await.unwrap();
    let deadline = Instant::now() + WAIT_TIMEOUT;
    for _ in 0..KILLS {
        for _ in 0..LETTERS {
            timeout_at(deadline, letters.next()).await.expect("a dead letter in time").unwrap();
        }
        faults::kill_worker(stage);
        // What was published before that.
        while let Some(Some(_)) = letters.next().now_or_never() {}
    }
}
