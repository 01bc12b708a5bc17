//! The only nats-server dies and stands still.

use std::{collections::HashSet, time::Duration};

use asyncqueue::stats::{WorkerStats, stats_subject};
use futures::{FutureExt, StreamExt};
use tokio::time::timeout;

use crate::{
    faults,
    run::Scenario,
    stage::{Stage, WAIT_TIMEOUT},
};

/// For clients to be refused for a while.
const AWAY: Duration = Duration::from_secs(2);

pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            is_short: true,
            ..Scenario::new("nats-server is killed", |stage| killed(stage, 1).boxed_local())
        },
        Scenario::new("nats-server is killed again and again", |stage| {
            killed(stage, 4).boxed_local()
        }),
        Scenario::new("limits change while nats-server is killed", |stage| {
            limits_change(stage).boxed_local()
        }),
        Scenario::new("nats-server is stopped beyond the lease", |stage| {
            stopped(stage).boxed_local()
        }),
    ]
}

async fn killed(stage: &mut Stage, times: usize) {
    for turn in 1..=times {
        stage.has_started(40 * turn).await;
        faults::kill_nats(stage, AWAY / u32::try_from(times).unwrap()).await;
    }
}

/// Fewer calls at once, then more, and each time the server dies right after it has stored that.
async fn limits_change(stage: &mut Stage) {
    for (turn, max_inflight) in (1..).zip([1, 30, 2, 20]) {
        stage.has_started(30 * turn).await;
        faults::change_max_inflight(stage, max_inflight).await;
        faults::kill_nats(stage, AWAY / 4).await;
        workers_report(stage, max_inflight).await;
    }
}

/// Waits until all workers of the queue report this limit.
async fn workers_report(stage: &Stage, max_inflight: u16) {
    let subject = stats_subject(&stage.spec().queue);
    let mut statistics = stage.js.client().subscribe(subject).await.expect("a subscription");
    let mut workers = HashSet::new();
    let reported = async {
        while workers.len() < stage.workers.len() {
            let message = statistics.next().await.expect("the subscription lasts");
            let stats: WorkerStats = serde_json::from_slice(&message.payload).expect("statistics");
            if stats.max_inflight == u32::from(max_inflight) {
                workers.insert(stats.worker);
            }
        }
    };
    timeout(WAIT_TIMEOUT, reported).await.expect("all workers have the limit");
}

async fn stopped(stage: &mut Stage) {
    stage.in_the_middle().await;
    faults::stop_nats(stage).await;
}
