//! The only nats-server dies and stands still.

use std::time::Duration;

use futures::FutureExt;

use crate::{faults, run::Scenario, stage::Stage};

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

async fn stopped(stage: &mut Stage) {
    stage.in_the_middle().await;
    faults::stop_nats(stage).await;
}
