//! Random faults for a long time, at moderate load.

use std::{
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use test_support::{
    history::{
        checker::{Tally, check},
        story::explain,
    },
    load::plan::{Answer, Mix},
};

use crate::{
    faults,
    servers::Kind,
    stage::{Setup, Stage},
};

/// Rounds on one stage, before the next begins with other servers.
const ROUNDS: u64 = 10;

/// The calls of a round: some twenty a second.
const CALLS: u64 = 400;
const OVER: Duration = Duration::from_secs(20);

/// One of eight is more than NATS takes as it is.
const ANSWERS: &[Answer] = &{
    let mut answers = [Answer::Short; 16];
    answers[0] = Answer::ManyHeaders;
    answers[1] = Answer::WideHeader;
    answers
};

/// Plays rounds until the time is over, and stops at the first whose promises were not kept.
pub(crate) async fn run(seed: u64, time: Duration, folder: &Path) -> ExitCode {
    let (begun, mut rng) = (Instant::now(), StdRng::seed_from_u64(seed));
    let (mut total, mut round) = (Tally::default(), 0);
    while begun.elapsed() < time {
        let servers = if rng.random() { Kind::One } else { Kind::Three };
        let setup = Setup {
            servers,
            gateways: 2,
            mix: Mix { calls: CALLS, over: OVER, answers: ANSWERS, ..Mix::default() },
            ..Setup::default()
        };
        let folder = folder.join(format!("soak-{round}"));
        let mut stage = Stage::set(setup, rng.random(), &folder).await;
        for _ in 0..ROUNDS {
            stage.begin_load();
            for _ in 0..stage.rng.random_range(1..=3) {
                let random = stage.rng.random_range(0.0..OVER.as_secs_f64() / 3.0);
                tokio::time::sleep(Duration::from_secs_f64(random)).await;
                any_fault(&mut stage, servers).await;
            }
            stage.load_ends().await;
            stage.all_ends().await;
            stage.last_look().await;
            let history = stage.recorder.take();
            let report = check(&history, &stage.rules());
            total.add(&report.tally);
            round += 1;
            println!("{:>6.0} s, round {round}: {:?}", begun.elapsed().as_secs_f64(), report.tally);
            if !report.broken.is_empty() {
                let story = explain(&history, &report.broken);
                println!(
                    "FAILED with the seed {seed}\n{story}logs: {}",
                    stage.keep_logs().display()
                );
                return ExitCode::FAILURE;
            }
            if begun.elapsed() >= time {
                break;
            }
            stage.forget_the_dead().await;
        }
        drop(stage);
        // It is only for who looks into a failure.
        let _ = std::fs::remove_dir_all(&folder);
    }
    println!("kept in {round} rounds, with the seed {seed}: {total:?}");
    ExitCode::SUCCESS
}

async fn any_fault(stage: &mut Stage, servers: Kind) {
    match (stage.rng.random_range(0..11), servers) {
        (10, _) => {
            let moment = stage.rng.random_range(0.1..3.0);
            faults::stop_worker_for(stage, Duration::from_secs_f64(moment)).await;
        }
        (0, _) => faults::kill_worker(stage),
        (1, _) => faults::end_worker(stage, true).await,
        (2, _) => faults::stop_worker(stage).await,
        (3, _) => faults::kill_gateway(stage).await,
        (4, _) => faults::end_gateway(stage).await,
        (5, _) => faults::recreate_consumer(stage).await,
        (6, Kind::Three) => faults::kill_leader(stage).await,
        (7, Kind::Three) => faults::step_down(stage).await,
        (8, Kind::Three) => faults::stop_leader(stage).await,
        (_, Kind::Three) => faults::cut_any_off(stage).await,
        (6 | 7, _) => faults::stop_nats(stage).await,
        (..) => faults::kill_nats(stage, Duration::from_secs(1)).await,
    }
}
