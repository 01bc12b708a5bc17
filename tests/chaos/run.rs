//! Runs scenarios, each to its verdict, and prints the tables.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use futures::{FutureExt, future::LocalBoxFuture};
use test_support::history::{
    checker::{Rule, Tally, check},
    story::{explain, whole},
};

use crate::{
    arguments::{Arguments, What},
    broken,
    replay::replay,
    rows, scenarios,
    servers::slow,
    soak,
    stage::{Setup, Stage, clocks},
    table::{self, Outcome, Verdict},
};

/// A fault, and the load that it comes over.
#[derive(Clone)]
pub(crate) struct Scenario {
    /// What happens, in words.
    pub(crate) name: &'static str,
    /// Whether it belongs to `make test`.
    pub(crate) is_short: bool,
    pub(crate) setup: Setup,
    /// Does it, while the load is on.
    pub(crate) act: for<'a> fn(&'a mut Stage) -> LocalBoxFuture<'a, ()>,
    /// The promise that is broken on purpose, for the proof that it would be found.
    pub(crate) breaks: Option<Rule>,
    /// What it needs of the machine.
    pub(crate) needs: &'static [Need],
}

/// What a scenario may need of the machine that not every machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Root,
    /// libfaketime.
    FakeTime,
    /// Version 1 of control groups, with that of block devices.
    BlockDevices,
}

impl Need {
    /// Why it can't be tried here, if it can't.
    fn missing(self) -> Option<&'static str> {
        let (is_there, missing) = match self {
            Self::Root => (is_root(), "it needs root"),
            Self::FakeTime => (
                clocks::are_there(),
                "it needs libfaketime, in Debian and Ubuntu the package faketime",
            ),
            Self::BlockDevices => (
                slow::is_there(),
                "it needs the control group blkio, of version 1: /sys/fs/cgroup/blkio",
            ),
        };
        (!is_there).then_some(missing)
    }
}

impl Scenario {
    /// A scenario in which all promises are kept, with the usual setup.
    pub(crate) fn new(
        name: &'static str,
        act: for<'a> fn(&'a mut Stage) -> LocalBoxFuture<'a, ()>,
    ) -> Self {
        let setup = Setup::default();
        Self { name, is_short: false, setup, act, breaks: None, needs: &[] }
    }

    /// Runs it to its verdict. What the programs logged is kept in `folder` if it fails.
    pub(crate) async fn run(&self, seed: u64, folder: &Path) -> Outcome {
        let name = self.name;
        if let Some(missing) = self.needs.iter().find_map(|need| need.missing()) {
            println!("{name}: NOT TRIED: {missing}");
            return Outcome { name, tally: Tally::default(), verdict: Verdict::NotTried(missing) };
        }
        let (begun, folder) = (Instant::now(), folder.join(name.replace(' ', "-")));
        // What everything random in it comes from: each scenario has the same with or without the
        // others.
        let mut hasher = DefaultHasher::new();
        (seed, name).hash(&mut hasher);
        let mut stage = Stage::set(self.setup.clone(), hasher.finish(), &folder).await;
        let played = AssertUnwindSafe(self.play(&mut stage)).catch_unwind().await;
        let history = stage.recorder.history();
        let report = check(&history, &stage.rules());
        let is_found = |rule: &Rule| report.broken.iter().any(|broken| broken.rule == *rule);
        let replayed = replay(&history, &stage.rules());
        let verdict = match (played, self.breaks) {
            (Err(_), _) => {
                Verdict::Failed("it could not be played to its end, see above".to_owned())
            }
            (Ok(()), None) if !report.broken.is_empty() => {
                Verdict::Failed(explain(&history, &report.broken))
            }
            (Ok(()), None) if !replayed.unexplained.is_empty() => {
                Verdict::Failed(format!("{}\n", replayed.unexplained.join("\n")))
            }
            (Ok(()), None) => Verdict::Kept,
            (Ok(()), Some(rule)) if is_found(&rule) => Verdict::Found(rule.to_string()),
            (Ok(()), Some(rule)) => Verdict::Failed(format!("not found, as it should be: {rule}")),
        };
        println!("{name}: {:.0} s, {replayed}", begun.elapsed().as_secs_f64());
        if let Verdict::Failed(why) = &verdict {
            let logs = stage.keep_logs();
            std::fs::write(logs.join("history.txt"), whole(&history)).unwrap();
            println!("seed {seed}\n{why}logs and history: {}", logs.display());
        } else {
            drop(stage);
            // It is only for who looks into a failure.
            let _ = std::fs::remove_dir_all(&folder);
        }
        Outcome { name, tally: report.tally, verdict }
    }

    async fn play(&self, stage: &mut Stage) {
        stage.begin_load();
        (self.act)(stage).await;
        stage.load_ends().await;
        stage.all_ends().await;
        stage.last_look().await;
        let workers = stage.workers.iter_mut().chain(&mut stage.bystanders);
        for program in workers.chain(stage.gateways.iter_mut().map(|gateway| &mut gateway.program))
        {
            assert!(program.is_running(), "a program ended by itself");
        }
    }
}

/// Runs what the arguments ask for.
pub(crate) async fn run(arguments: Arguments) -> ExitCode {
    let Arguments { seed, what } = arguments;
    let folder = folder();
    let all = || scenarios::all().into_iter().chain(broken::all());
    rows::check(&all().collect::<Vec<_>>());
    println!("seed {seed}");
    let chosen: Vec<Scenario> = match &what {
        What::List => return list(all()),
        What::Soak(time) => return soak::run(seed, *time, &folder).await,
        What::Short => all().filter(|scenario| scenario.is_short).collect(),
        What::All => all().collect(),
        What::Named(words) => {
            all().filter(|scenario| words.iter().any(|word| scenario.name.contains(word))).collect()
        }
    };
    let mut outcomes = Vec::new();
    for scenario in chosen {
        outcomes.push(scenario.run(seed, &folder).await);
    }
    println!("\n{}", table::of_outcomes(&outcomes));
    if matches!(what, What::All) {
        println!("{}", rows::table(&outcomes));
    }
    let failed =
        outcomes.iter().filter(|outcome| matches!(outcome.verdict, Verdict::Failed(_))).count();
    if failed > 0 {
        println!("{failed} of {} failed, with the seed {seed}", outcomes.len());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Prints the scenarios, and the tests that the table of faults names.
fn list(scenarios: impl Iterator<Item = Scenario>) -> ExitCode {
    scenarios.for_each(|scenario| println!("scenario\t{}", scenario.name));
    rows::tests().for_each(|(folder, name)| println!("test\t{folder}\t{name}"));
    ExitCode::SUCCESS
}

/// Where the programs log to: next to the programs.
fn folder() -> PathBuf {
    let program = std::env::current_exe().expect("this program has a path");
    program.ancestors().nth(2).expect("target/<profile>/deps/<program>").join("chaos")
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}
