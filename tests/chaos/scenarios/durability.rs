//! What a 202 is worth, by where a stream keeps its messages.

use asyncqueue::stream::{Storage, ensure_queue};
use futures::FutureExt;
use test_support::{
    history::{checker::Rule, event::Excuse},
    load::plan::Mix,
    wait::until,
};

use crate::{
    run::{Need, Scenario},
    servers::Kind,
    stage::{Setup, Stage},
};

pub(super) fn all() -> Vec<Scenario> {
    vec![
        // No worker, so that all calls are still there to be lost.
        Scenario {
            setup: Setup { workers: 0, mix: burst(), ..Setup::default() },
            ..Scenario::new("file storage: nats-server is killed with every call queued", |stage| {
                killed_with_all_queued(stage).boxed_local()
            })
        },
        Scenario {
            setup: Setup {
                servers: Kind::OneSyncing,
                workers: 0,
                mix: burst(),
                ..Setup::default()
            },
            ..Scenario::new(
                "file storage, sync always: nats-server is killed with every call queued",
                |stage| killed_with_all_queued(stage).boxed_local(),
            )
        },
        Scenario {
            setup: Setup { storage: Storage::Memory, workers: 0, mix: burst(), ..Setup::default() },
            breaks: Some(Rule::Lost),
            ..Scenario::new(
                "memory storage: nats-server is killed with every call queued",
                |stage| killed_with_all_queued(stage).boxed_local(),
            )
        },
        Scenario {
            needs: &[Need::Root],
            setup: Setup {
                servers: Kind::OneOnDisk { syncs: false },
                workers: 0,
                mix: burst(),
                ..Setup::default()
            },
            breaks: Some(Rule::Lost),
            ..Scenario::new("power cut: file storage", |stage| power_cut(stage).boxed_local())
        },
        Scenario {
            needs: &[Need::Root],
            setup: Setup {
                servers: Kind::OneOnDisk { syncs: true },
                workers: 0,
                mix: burst(),
                ..Setup::default()
            },
            ..Scenario::new("power cut: file storage, sync always", |stage| {
                power_cut(stage).boxed_local()
            })
        },
    ]
}

fn burst() -> Mix {
    Mix { calls: 500, over: std::time::Duration::from_secs(1), cancelled: 0, ..Mix::default() }
}

async fn killed_with_all_queued(stage: &mut Stage) {
    stage.load_ends().await;
    stage.recorder.fault("nats-server is killed", Excuse::Begins);
    stage.servers.one().restart().await;
    back(stage).await;
}

async fn power_cut(stage: &mut Stage) {
    stage.load_ends().await;
    stage.recorder.fault("the power is cut", Excuse::Begins);
    stage.servers.cut_power().await;
    back(stage).await;
}

async fn back(stage: &mut Stage) {
    stage.recorder.fault("nats-server is back", Excuse::Ends);
    // The streams themselves may be gone too.
    for spec in &stage.specs {
        until("the queue is there", async || ensure_queue(&stage.js, spec, false).await.ok()).await;
    }
    stage.add_worker();
    stage.add_bystanders();
}
