//! Searches the model within larger bounds than the tests.

use std::{fmt::Debug, process::ExitCode, time::Instant};

use asyncqueue_model::{
    batches::{self, Batches},
    bounds::{Bounds, broadcast, large},
    lanes::{self, Lanes},
    life::{
        Life,
        setup::{Faults, Setup},
    },
    search::{Found, search, search_stuck},
    shares::{self, Sharing},
    waits::{self, Waits},
};
use clap::Parser;

/// Searches the model of the protocol for a run that breaks a rule. Without options: each three
/// kinds of faults with one call, each two with two calls, each two with the shares of two
/// workers, lanes whose fairness changes twice, and waits and batches with all faults. Options are
/// for the life of calls.
#[derive(Debug, Parser)]
#[command(name = "asyncqueue-model")]
struct Options {
    /// Calls, all with one id: 1 or 2.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    calls: u8,
    /// Workers: 1 to 3.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=3))]
    workers: u8,
    /// Slots of each worker.
    #[arg(long, default_value_t = 1)]
    slots: u8,
    /// `maxAttempts`.
    #[arg(long, default_value_t = 2)]
    attempts: u8,
    /// Cancellations.
    #[arg(long, default_value_t = 1)]
    cancels: u8,
    /// Search calls without callbacks.
    #[arg(long)]
    no_callbacks: bool,
    /// Also search for states from which calls can't come to an end. Needs 1 KB for each state.
    #[arg(long)]
    stuck: bool,
    /// Faults, each as KIND or KIND=COUNT: crashes, pauses, outages, lost-acks, leader-changes,
    /// consumer-losses, recreations, hand-backs, platform-failures, expiries, windows, aborts.
    #[arg(value_parser = parse_fault)]
    faults: Vec<(String, u8)>,
}

fn parse_fault(text: &str) -> Result<(String, u8), String> {
    let (kind, count) = text.split_once('=').unwrap_or((text, "1"));
    let count = count.parse().map_err(|_| format!("`{count}` is not a number from 0 to 255"))?;
    let is_known = budget(&mut Faults::default(), kind).is_some();
    if is_known {
        Ok((kind.to_owned(), count))
    } else {
        Err(format!("`{kind}` is not a kind of fault"))
    }
}

fn budget<'a>(faults: &'a mut Faults, kind: &str) -> Option<&'a mut u8> {
    Some(match kind {
        "crashes" => &mut faults.crashes,
        "pauses" => &mut faults.pauses,
        "outages" => &mut faults.outages,
        "lost-acks" => &mut faults.lost_acks,
        "leader-changes" => &mut faults.leader_changes,
        "consumer-losses" => &mut faults.consumer_losses,
        "recreations" => &mut faults.recreations,
        "hand-backs" => &mut faults.hand_backs,
        "platform-failures" => &mut faults.platform_failures,
        "expiries" => &mut faults.expiries,
        "aborts" => &mut faults.aborts,
        "windows" => &mut faults.windows,
        _ => return None,
    })
}

fn main() -> ExitCode {
    let options = Options::parse();
    let is_asked = std::env::args().len() > 1;
    let mut is_whole = true;
    for Bounds { name, setup } in if is_asked { vec![options.bounds()] } else { large() } {
        is_whole &= run(name, setup.faults, || {
            let mut found = vec![search(Life::new(setup))];
            if options.stuck {
                found.push(search_stuck(&Life::new(setup)));
            }
            found
        });
    }
    for shares::bounds::Bounds { name, setup } in
        if is_asked { vec![] } else { shares::bounds::large() }
    {
        is_whole &= run(name, setup.faults, || vec![search(Sharing::new(setup))]);
    }
    if !is_asked {
        is_whole &= run_small_models();
    }
    if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the searches of lanes, waits and batches.
fn run_small_models() -> bool {
    let mut is_whole = true;
    for lanes::bounds::Bounds { name, setup } in lanes::bounds::large() {
        is_whole &= run(name, setup.faults, || {
            vec![search(Lanes::new(setup)), search_stuck(&Lanes::new(setup))]
        });
    }
    for waits::bounds::Bounds { name, setup } in waits::bounds::large() {
        is_whole &= run(name, setup.faults, || {
            vec![search(Waits::new(setup)), search_stuck(&Waits::new(setup))]
        });
    }
    for batches::bounds::Bounds { name, setup } in batches::bounds::large() {
        is_whole &= run(name, setup.faults, || {
            vec![search(Batches::new(setup)), search_stuck(&Batches::new(setup))]
        });
    }
    is_whole
}

/// Runs searches, and returns whether all rules are kept.
fn run(name: &str, faults: impl Debug, searches: impl FnOnce() -> Vec<Found>) -> bool {
    println!("{name}: {faults:?}");
    let begun = Instant::now();
    let mut is_whole = true;
    for found in searches() {
        is_whole &= report(&found);
    }
    println!("  {:.1} s", begun.elapsed().as_secs_f64());
    is_whole
}

/// Prints what a search found, and returns whether all rules are kept.
fn report(found: &Found) -> bool {
    println!("  {} states", found.states);
    for (rule, steps) in &found.broken {
        println!("  broken: {rule}\n    {}", steps.join("\n    "));
    }
    found.broken.is_empty()
}

impl Options {
    fn bounds(&self) -> Bounds {
        let mut faults = Faults::default();
        for (kind, count) in &self.faults {
            if let Some(budget) = budget(&mut faults, kind) {
                *budget = *count;
            }
        }
        let setup = Setup {
            calls: self.calls,
            workers: self.workers,
            slots: self.slots,
            max_attempts: self.attempts,
            callbacks: !self.no_callbacks,
            cancels: self.cancels,
            broadcast: broadcast(faults),
            faults,
            ..Setup::default()
        };
        Bounds { name: "as asked", setup }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_with_their_counts() {
        let options = Options::parse_from(["model", "crashes", "pauses=2"]);
        let faults = options.bounds().setup.faults;
        assert_eq!((faults.crashes, faults.pauses, faults.outages), (1, 2, 0));
        for bad in ["crash", "pauses=x", "pauses=256"] {
            assert!(parse_fault(bad).is_err(), "{bad}");
        }
    }
}
