//! What is submitted, and how it shall go: a pure function of a seed.
//!
//! The same seed gives the same calls; when the programs come to them is theirs.

use std::time::Duration;

use rand::{Rng, rngs::StdRng, seq::IndexedRandom};

use crate::history::event::CallNumber;

/// A call that will be submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedCall {
    /// Its number.
    pub number: CallNumber,
    /// When the client sends it, since the beginning of the load.
    pub at: Duration,
    /// Whether the client gives it an id of its own.
    pub own_id: bool,
    /// What the function does with it.
    pub behaviour: Behaviour,
    /// What the receiver of its callback does; `None`: nobody wants to be told.
    pub callback: Option<Reception>,
    /// How often the client sends it again after its 202.
    pub repeats: u32,
    /// How long after its 202 the client cancels it.
    pub cancel_after: Option<Duration>,
    /// Bytes of its body.
    pub bytes: usize,
}

/// What the function does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behaviour {
    /// How long each run takes.
    pub takes: Duration,
    /// How many runs fail before one does not.
    pub fails: u64,
    /// How they fail.
    pub failure: Failure,
}

/// How a run fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It answers this status.
    Status(u16),
    /// It answers 429, with this `Retry-After`.
    TooMany(&'static str),
    /// It breaks off in the middle of its answer.
    HalfAnswer,
    /// It never ends its answer.
    Endless,
    /// It says nothing.
    Silent,
}

/// What a receiver of callbacks does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reception {
    /// It takes the result at once.
    Prompt,
    /// It takes it after a while.
    Slow(Duration),
    /// It refuses so many times, with this status, and then takes it.
    Refuses(u64, u16),
    /// Nobody is there.
    Dead,
}

/// The kinds of calls in a load. Shares are in percent of the calls, and independent of each other.
#[derive(Clone, Debug)]
pub struct Mix {
    /// How many calls.
    pub calls: u64,
    /// The time over which they are spread evenly.
    pub over: Duration,
    /// Share with an id of the client's own.
    pub own_ids: u32,
    /// Share that is sent again.
    pub repeated: u32,
    /// Share that is cancelled.
    pub cancelled: u32,
    /// Share of which at least one run fails.
    pub failing: u32,
    /// Share that takes its time: up to `slowest`.
    pub slow: u32,
    /// The longest that a call takes, below the time limit.
    pub slowest: Duration,
    /// How runs fail.
    pub failures: &'static [Failure],
    /// Share with a callback.
    pub callbacks: u32,
    /// What their receivers do.
    pub receptions: &'static [Reception],
}

/// A call that takes no time of its own still takes this at most.
const QUICK: Duration = Duration::from_millis(50);

/// More runs than any worker makes: the call fails to its end.
const ALWAYS: u64 = u64::MAX;

/// The largest body.
const MAX_BYTES: usize = 4096;

impl Default for Mix {
    /// A little of everything.
    fn default() -> Self {
        Self {
            calls: 200,
            over: Duration::from_secs(4),
            own_ids: 50,
            repeated: 10,
            cancelled: 10,
            failing: 20,
            slow: 20,
            slowest: Duration::from_secs(2),
            failures: &[Failure::Status(500), Failure::Status(503)],
            callbacks: 60,
            receptions: &[Reception::Prompt, Reception::Prompt, Reception::Refuses(1, 500)],
        }
    }
}

/// The calls of a load, in the order of their times.
pub fn plan(mix: &Mix, rng: &mut StdRng) -> Vec<PlannedCall> {
    let step = mix.over / u32::try_from(mix.calls.max(1)).unwrap_or(u32::MAX);
    (0..mix.calls)
        .map(|number| PlannedCall {
            number,
            at: step * u32::try_from(number).unwrap_or(u32::MAX),
            own_id: happens(mix.own_ids, rng),
            behaviour: behaviour(mix, rng),
            callback: happens(mix.callbacks, rng)
                .then(|| mix.receptions.choose(rng).copied().unwrap_or(Reception::Prompt)),
            repeats: if happens(mix.repeated, rng) { rng.random_range(1..=3) } else { 0 },
            cancel_after: happens(mix.cancelled, rng).then(|| up_to(mix.slowest, rng)),
            bytes: rng.random_range(0..=MAX_BYTES),
        })
        .collect()
}

fn behaviour(mix: &Mix, rng: &mut StdRng) -> Behaviour {
    let takes = if happens(mix.slow, rng) { up_to(mix.slowest, rng) } else { up_to(QUICK, rng) };
    // Some once, some twice, some for ever.
    let times = *[1, 2, ALWAYS].choose(rng).unwrap_or(&1);
    let fails = if happens(mix.failing, rng) { times } else { 0 };
    let failure = mix.failures.choose(rng).copied().unwrap_or(Failure::Status(500));
    Behaviour { takes, fails, failure }
}

fn happens(percent: u32, rng: &mut StdRng) -> bool {
    rng.random_range(0..100) < percent
}

fn up_to(most: Duration, rng: &mut StdRng) -> Duration {
    most.mul_f64(rng.random())
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_seed_gives_the_same_calls_each_time_and_another_gives_others() {
        let calls = |seed| plan(&Mix::default(), &mut StdRng::seed_from_u64(seed));
        assert_eq!(calls(1), calls(1));
        assert_ne!(calls(1), calls(2));
    }

    #[test]
    fn a_mix_has_some_of_each_kind_and_of_what_it_excludes_none() {
        let calls = plan(&Mix::default(), &mut StdRng::seed_from_u64(1));
        assert_eq!(calls.len(), 200);
        assert!(calls.iter().any(|call| call.own_id) && calls.iter().any(|call| !call.own_id));
        assert!(
            calls.iter().any(|call| call.repeats > 0) && calls.iter().any(|call| call.cancel_after.is_some())
        );
        assert!(calls.iter().any(|call| call.behaviour.fails == ALWAYS));
        assert!(calls.iter().any(|call| call.callback == Some(Reception::Refuses(1, 500))));
        let none = Mix { cancelled: 0, callbacks: 0, failing: 0, ..Mix::default() };
        let calls = plan(&none, &mut StdRng::seed_from_u64(1));
        assert!(calls.iter().all(|call| {
            call.cancel_after.is_none() && call.callback.is_none() && call.behaviour.fails == 0
        }));
    }
}
