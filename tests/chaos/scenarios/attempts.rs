//! Calls whose worker loses its lease again and again, and has them all the time.

use std::time::Duration;

use futures::FutureExt;
use test_support::load::plan::{Failure, Mix};
use tokio::time::sleep;

use crate::{
    faults,
    run::Scenario,
    stage::{LEASE, Setup, Stage},
};

/// Two outages of two leases, and one lease after each for the rest of what is delivered again.
const LONG: Duration = LEASE.saturating_mul(8);
const TIME_LIMIT: Duration = LEASE.saturating_mul(12);
const BETWEEN: Duration = LEASE;

const CALLS: u64 = 10;

pub(super) fn all() -> Vec<Scenario> {
    let mix = Mix {
        calls: CALLS,
        over: Duration::from_millis(100),
        queues: 1,
        shared_ids: 0,
        cancelled: 0,
        failing: 100,
        fails: &[1],
        failures: &[Failure::Status(500)],
        slow: 100,
        slowest: Duration::ZERO,
        takes_at_least: LONG,
        ..Mix::default()
    };
    vec![Scenario {
        setup: Setup {
            workers: 1,
            has_nats_cable: true,
            mix,
            time_limit: TIME_LIMIT,
            ..Setup::default()
        },
        ..Scenario::new("NATS can't be reached, twice under one invocation", |stage| {
            cut_off_twice(stage).boxed_local()
        })
    }]
}

async fn cut_off_twice(stage: &mut Stage) {
    stage.has_started(usize::try_from(CALLS).unwrap()).await;
    faults::cut_workers_off(stage).await;
    sleep(BETWEEN).await;
    faults::cut_workers_off(stage).await;
}
