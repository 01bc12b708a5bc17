//! What to run, and with which seed.

use std::time::Duration;

use asyncqueue::GoDuration;

/// How long random faults are tried by default.
const SOAK: Duration = Duration::from_secs(3600);

/// The arguments: `[--seed=N] [--for=1h] [--list] [short|all|soak|WORD…]`. Without one, `short`.
#[derive(Debug)]
pub(crate) struct Arguments {
    /// What everything random comes from; chosen at random by default.
    pub(crate) seed: u64,
    /// What to run.
    pub(crate) what: What,
}

#[derive(Debug)]
pub(crate) enum What {
    /// The part that belongs to `make test`.
    Short,
    /// Every scenario.
    All,
    /// Nothing: list the scenarios, and the tests that the table of faults names.
    List,
    /// The scenarios with one of these words in their names.
    Named(Vec<String>),
    /// Random faults for so long.
    Soak(Duration),
}

impl Arguments {
    pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Self {
        let (mut seed, mut time, mut words) = (None, SOAK, Vec::new());
        for argument in arguments {
            match argument.split_once('=') {
                Some(("--seed", "")) => {}
                Some(("--seed", value)) => seed = Some(value.parse().expect("--seed is a number")),
                Some(("--for", value)) => {
                    time =
                        value.parse::<GoDuration>().expect("--for is a duration, as 90s or 1h").0;
                }
                _ => words.push(argument),
            }
        }
        let what = match words.first().map(String::as_str) {
            None | Some("short") => What::Short,
            Some("--list") => What::List,
            Some("all") => What::All,
            Some("soak") => What::Soak(time),
            Some(_) => What::Named(words),
        };
        Self { seed: seed.unwrap_or_else(|| u64::from(rand::random::<u32>())), what }
    }
}
