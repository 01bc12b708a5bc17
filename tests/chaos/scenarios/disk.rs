//! The disk of a nats-server fills up; it has room again, and the server is started again.

use std::{fs::File, io::Write, path::PathBuf, time::Duration};

use asyncqueue_tests::{
    history::event::{Excuse, Step, What},
    load::plan::Mix,
    wait::until,
};
use futures::FutureExt;
use tokio::time::sleep;

use crate::{
    run::Scenario,
    servers::Kind,
    stage::{Setup, Stage},
};

/// How long there is no room.
const FULL: Duration = Duration::from_secs(3);

pub(super) fn all() -> Vec<Scenario> {
    vec![Scenario {
        needs_root: true,
        setup: Setup {
            servers: Kind::OneOnDisk { syncs: false },
            mix: Mix { calls: 400, over: Duration::from_secs(8), ..Mix::default() },
            ..Setup::default()
        },
        ..Scenario::new("the disk of nats-server is full for a while", |stage| full(stage).boxed_local())
    }]
}

async fn full(stage: &mut Stage) {
    stage.in_the_middle().await;
    let ballast = ballast(stage);
    // What was being written then may be lost with its acknowledgement, and be delivered again.
    stage.recorder.fault("the disk is full", Excuse::Begins);
    fill(&ballast);
    let refused = || {
        stage
            .recorder
            .count(|what| matches!(what, What::Step(_, Step::Answered { status: 429 | 503 | 507, .. })))
    };
    until("a call is refused", async || (refused() > 0).then_some(())).await;
    sleep(FULL).await;
    std::fs::remove_file(&ballast).unwrap();
    stage.recorder.fault("the disk has room again", Excuse::None);
    // A stream that could not be written is not written any more until the server starts again.
    stage.servers.restart_on_disk().await;
    stage.recorder.fault("nats-server is started again", Excuse::Ends);
}

/// A file that takes the room on the server's disk.
fn ballast(stage: &mut Stage) -> PathBuf {
    let server = stage.servers.one();
    server.seen_from_here(&server.store()).join("ballast")
}

/// Writes until nothing more fits.
fn fill(ballast: &PathBuf) {
    let mut file = File::create(ballast).unwrap();
    for size in [1 << 20, 4096, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}
