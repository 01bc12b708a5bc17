//! The disk of a nats-server fills up, has room again, and the server is started again; and one
//! that is slow for a while.

use std::{fs::File, io::Write, path::PathBuf, time::Duration};

use asyncqueue::buckets;
use futures::FutureExt;
use test_support::{
    history::event::{Excuse, Step, What},
    load::plan::Mix,
    wait::until,
};
use tokio::time::{Instant, sleep};

use crate::{
    run::{Need, Scenario},
    servers::Kind,
    stage::{Setup, Stage},
};

/// How long there is no room.
const FULL: Duration = Duration::from_secs(3);

/// Writes a second that a slow disk does, and for how long it is so slow: a call takes several.
const WRITES: u32 = 8;
const SLOW: Duration = Duration::from_secs(8);

/// A write that takes longer waits for others.
const AT_ONCE: Duration = Duration::from_millis(300);

pub(super) fn all() -> Vec<Scenario> {
    let setup = |syncs| Setup {
        servers: Kind::OneOnDisk { syncs },
        mix: Mix { calls: 400, over: Duration::from_secs(8), ..Mix::default() },
        ..Setup::default()
    };
    vec![
        Scenario {
            needs: &[Need::Root],
            setup: setup(false),
            ..Scenario::new("the disk of nats-server is full for a while", |stage| {
                full(stage).boxed_local()
            })
        },
        Scenario {
            needs: &[Need::Root, Need::BlockDevices],
            setup: Setup { gateways: 2, ..setup(true) },
            ..Scenario::new("the disk of nats-server is slow for a while", |stage| {
                slow(stage).boxed_local()
            })
        },
    ]
}

async fn slow(stage: &mut Stage) {
    stage.in_the_middle().await;
    // A word of a worker that waits for the disk may come after its lease.
    stage.recorder.fault("the disk is slow", Excuse::Begins);
    let disk = stage.servers.slow_down(WRITES);
    let before = stage.accepted();
    sleep(SLOW).await;
    let accepted = stage.accepted() - before;
    drop(disk);
    stage.recorder.fault("the disk is as fast as before", Excuse::None);
    until("nats-server writes at once", async || (writes_at_once(stage).await).then_some(())).await;
    stage.recorder.fault("nats-server has caught up", Excuse::Ends);
    assert!(
        accepted < usize::try_from(WRITES).unwrap() * usize::try_from(SLOW.as_secs()).unwrap(),
        "{accepted} calls were accepted: the disk was not slow"
    );
}

/// Whether a write is answered well within a lease: what waited before it is written.
async fn writes_at_once(stage: &Stage) -> bool {
    let begun = Instant::now();
    let subject = buckets::ATTEMPT_OFFSETS.subject("chaos.probe.1");
    let written = async { stage.js.publish(subject, "0".into()).await?.await };
    written.await.is_ok() && begun.elapsed() < AT_ONCE
}

async fn full(stage: &mut Stage) {
    stage.in_the_middle().await;
    let ballast = ballast(stage);
    // What was being written then may be lost with its acknowledgement, and be delivered again.
    stage.recorder.fault("the disk is full", Excuse::BeginsUnwritten);
    fill(&ballast);
    let refused = || {
        stage.recorder.count(|what| {
            matches!(what, What::Step(_, Step::Answered { status: 429 | 503 | 507, .. }))
        })
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
