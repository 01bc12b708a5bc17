//! What is submitted, and what its function and receiver do: a pure function of a seed.
//!
//! The same seed gives the same calls; when the programs come to them is theirs.

use std::time::Duration;

use rand::{Rng, rngs::StdRng, seq::IndexedRandom};

use crate::history::event::{BatchNumber, CallNumber, QueueNumber};

/// A call that will be submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedCall {
    /// Its number.
    pub number: CallNumber,
    /// When the client sends it, since the beginning of the load.
    pub at: Duration,
    /// Its queue.
    pub queue: QueueNumber,
    /// Which function of the queue it invokes.
    pub function: u64,
    /// Who gives it its id.
    pub id: Id,
    /// What the function does with it.
    pub behaviour: Behaviour,
    /// What the receiver of its callback does; `None`: the client wants none.
    pub callback: Option<Reception>,
    /// How often the client sends it again after its 202.
    pub repeats: u32,
    /// How long after its 202 the client cancels it.
    pub cancel_after: Option<Duration>,
    /// Whether the client cancels it while it waits for the result: so long after it has sent it.
    pub cancels_wait: bool,
    /// How long after its 202 the client asks where it is, and once more when all is over.
    pub ask_after: Option<Duration>,
    /// Whether the client asks for its result to be kept, and reads it when all is over.
    pub keeps_result: bool,
    /// How long the client waits for its result when it submits the call, in whole seconds.
    pub waits: Option<Duration>,
    /// Since when it may run; `None`: at once.
    pub delay: Option<Delay>,
    /// Bytes of its body.
    pub bytes: usize,
    /// Bytes of a header that its client sends; 0: none.
    pub header_bytes: usize,
}

/// A batch that will be submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedBatch {
    /// Its number.
    pub number: BatchNumber,
    /// When the client sends it, since the beginning of the load.
    pub at: Duration,
    /// Its calls, all of one queue. When they are sent, repeated, cancelled or asked for is that of
    /// the batch.
    pub calls: Vec<PlannedCall>,
    /// What the receiver of its callback does; `None`: the client wants none.
    pub callback: Option<Reception>,
    /// Whether the first failure cancels the rest.
    pub cancels_rest: bool,
    /// How long after its 202 the client cancels it; `None` where the first failure does.
    pub cancel_after: Option<Duration>,
    /// How often the client sends it again after its 202.
    pub repeats: u32,
}

/// How a client delays a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delay {
    /// By this time, in whole milliseconds, after the gateway has accepted it.
    By(Duration),
    /// Until the date that is so long after the client sends it.
    Until(Duration),
}

/// Who gives a call its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Id {
    /// The gateway.
    Generated,
    /// The client, and no other call has it.
    Own,
    /// The client, for all calls with this number, each with a content of its own.
    Shared(u64),
}

/// What the function does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behaviour {
    /// How long each invocation takes.
    pub takes: Duration,
    /// How many invocations fail before one does not.
    pub fails: u64,
    /// How they fail.
    pub failure: Failure,
    /// What its whole answers are like.
    pub answer: Answer,
}

/// How an invocation fails.
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

/// What a whole answer of the function is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A line.
    Short,
    /// 70 KB of headers, more than NATS takes in one message.
    ManyHeaders,
    /// One header with 23 KB of text that is not ASCII: escaped, it is three times as long.
    WideHeader,
    /// A body of so many bytes.
    Long(usize),
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
    /// No receiver listens.
    Dead,
}

/// The kinds of calls in a load. Shares are in percent of the calls, and independent of each other.
#[derive(Clone, Debug)]
pub struct Mix {
    /// How many calls.
    pub calls: u64,
    /// The time over which they are spread evenly.
    pub over: Duration,
    /// Over how many queues they are spread.
    pub queues: usize,
    /// Over how many functions of each queue they are spread.
    pub functions: u64,
    /// Share with an id of the client's own.
    pub own_ids: u32,
    /// Share whose id is shared by several calls, some at once and some after others have ended.
    pub shared_ids: u32,
    /// Share that is sent again.
    pub repeated: u32,
    /// Share that is cancelled.
    pub cancelled: u32,
    /// When those are cancelled.
    pub cancelled_at: CancelAt,
    /// Share of which the client asks where they are.
    pub asked: u32,
    /// Share whose results are kept.
    pub kept: u32,
    /// Share whose clients wait for the result.
    pub waiting: u32,
    /// How long those wait.
    pub waits: Duration,
    /// Share that is delayed.
    pub delayed: u32,
    /// The longest delay.
    pub longest_delay: Duration,
    /// Share of which at least one invocation fails.
    pub failing: u32,
    /// How many invocations of those fail.
    pub fails: &'static [u64],
    /// Share that takes its time: up to `slowest`.
    pub slow: u32,
    /// The longest that a call takes, below the time limit.
    pub slowest: Duration,
    /// What every call takes at least.
    pub takes_at_least: Duration,
    /// How invocations fail.
    pub failures: &'static [Failure],
    /// What whole answers are like.
    pub answers: &'static [Answer],
    /// Share with a callback.
    pub callbacks: u32,
    /// What their receivers do.
    pub receptions: &'static [Reception],
    /// How many batches there are besides the calls.
    pub batches: u64,
    /// Share of the batches that their clients cancel, of those that no failure cancels.
    pub batches_cancelled: u32,
    /// The number of calls in a batch, from and to.
    pub batch_calls: (u64, u64),
    /// The size of bodies, from and to.
    pub bytes: (usize, usize),
    /// The size of a header of the client's, from and to.
    pub header_bytes: (usize, usize),
}

/// When calls are cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelAt {
    /// Up to so long after their 202.
    Within(Duration),
    /// At about the moment at which they end, if they start at once.
    TheirEnd,
    /// Up to so long after they are sent, while their clients wait for the result. Those without a
    /// waiting client: after their 202.
    Wait(Duration),
}

/// A call that takes no time of its own still takes this at most.
const QUICK: Duration = Duration::from_millis(50);

/// More invocations than any worker makes: the call fails to its end.
pub const ALWAYS: u64 = u64::MAX;

/// From the 202 of a call to its invocation where a worker waits for it, and from there to the
/// acknowledgement of its end: cancellations at its end come about then.
const ON_THE_WAY: Duration = Duration::from_millis(12);

/// Calls for each id that is shared, about.
const SHARERS: u64 = 4;

impl Default for Mix {
    /// A little of everything.
    fn default() -> Self {
        Self {
            calls: 200,
            over: Duration::from_secs(4),
            queues: 2,
            functions: 1,
            own_ids: 50,
            shared_ids: 8,
            repeated: 10,
            cancelled: 10,
            cancelled_at: CancelAt::Within(Duration::from_secs(2)),
            asked: 30,
            kept: 0,
            waiting: 0,
            waits: Duration::from_secs(5),
            delayed: 0,
            longest_delay: Duration::from_secs(5),
            failing: 20,
            // Some once, some twice, some to their end.
            fails: &[1, 2, ALWAYS],
            slow: 20,
            slowest: Duration::from_secs(2),
            takes_at_least: Duration::ZERO,
            failures: &[Failure::Status(500), Failure::Status(503)],
            answers: &[Answer::Short],
            callbacks: 60,
            receptions: &[Reception::Prompt, Reception::Prompt, Reception::Refuses(1, 500)],
            batches: 0,
            batches_cancelled: 0,
            batch_calls: (1, 12),
            bytes: (0, 4096),
            header_bytes: (0, 0),
        }
    }
}

// === impl Delay ===

impl Delay {
    /// How long after the client sends it the call may not run.
    #[must_use]
    pub fn time(self) -> Duration {
        match self {
            Self::By(time) | Self::Until(time) => time,
        }
    }
}

// === impl PlannedCall ===

impl PlannedCall {
    /// Whether its result is kept for its client.
    #[must_use]
    pub fn has_result(&self) -> bool {
        self.keeps_result || self.waits.is_some()
    }
}

/// The calls of a load, in the order of their times.
pub fn plan(mix: &Mix, rng: &mut StdRng) -> Vec<PlannedCall> {
    let step = mix.over / u32::try_from(mix.calls.max(1)).unwrap_or(u32::MAX);
    (0..mix.calls)
        .map(|number| {
            let behaviour = behaviour(mix, rng);
            let mut call = PlannedCall {
                number,
                at: step * u32::try_from(number).unwrap_or(u32::MAX),
                queue: rng.random_range(0..mix.queues),
                function: number % mix.functions,
                id: id(mix, rng),
                behaviour,
                callback: happens(mix.callbacks, rng)
                    .then(|| mix.receptions.choose(rng).copied().unwrap_or(Reception::Prompt)),
                repeats: if happens(mix.repeated, rng) { rng.random_range(1..=3) } else { 0 },
                cancel_after: happens(mix.cancelled, rng)
                    .then(|| cancel_after(mix, behaviour, rng)),
                cancels_wait: false,
                ask_after: happens(mix.asked, rng).then(|| up_to(mix.slowest, rng)),
                keeps_result: happens(mix.kept, rng),
                waits: happens(mix.waiting, rng).then_some(mix.waits),
                delay: happens(mix.delayed, rng).then(|| delay(mix, rng)),
                bytes: rng.random_range(mix.bytes.0..=mix.bytes.1),
                header_bytes: rng.random_range(mix.header_bytes.0..=mix.header_bytes.1),
            };
            if call.waits.is_some() && matches!(mix.cancelled_at, CancelAt::Wait(_)) {
                call.cancels_wait = call.cancel_after.is_some();
                // Without an id of its own it can't be cancelled before it has ended.
                call.id = if call.cancels_wait { Id::Own } else { call.id };
            }
            call
        })
        .collect()
}

/// The batches of a load, in the order of their times.
pub fn plan_batches(mix: &Mix, rng: &mut StdRng) -> Vec<PlannedBatch> {
    let step = mix.over / u32::try_from(mix.batches.max(1)).unwrap_or(u32::MAX);
    let mut planned = 0;
    (0..mix.batches)
        .map(|number| {
            let size = rng.random_range(mix.batch_calls.0..=mix.batch_calls.1);
            let queue = rng.random_range(0..mix.queues);
            let one = Mix { calls: size, ..mix.clone() };
            let mut calls = plan(&one, rng);
            for call in &mut calls {
                *call = PlannedCall {
                    number: call.number + planned,
                    queue,
                    id: Id::Own,
                    callback: None,
                    cancel_after: None,
                    cancels_wait: false,
                    ask_after: None,
                    keeps_result: false,
                    waits: None,
                    delay: None,
                    ..*call
                };
            }
            planned += size;
            let cancels_rest = happens(mix.cancelled, rng);
            let is_cancelled = happens(mix.batches_cancelled, rng) && !cancels_rest;
            PlannedBatch {
                number,
                at: step * u32::try_from(number).unwrap_or(u32::MAX),
                calls,
                callback: happens(mix.callbacks, rng)
                    .then(|| mix.receptions.choose(rng).copied().unwrap_or(Reception::Prompt)),
                cancels_rest,
                cancel_after: is_cancelled.then(|| up_to(mix.slowest, rng)),
                repeats: u32::from(happens(mix.repeated, rng)),
            }
        })
        .collect()
}

fn id(mix: &Mix, rng: &mut StdRng) -> Id {
    let percent = rng.random_range(0..100);
    if percent < mix.shared_ids {
        let shared = mix.calls * u64::from(mix.shared_ids) / 100;
        Id::Shared(rng.random_range(0..=shared / SHARERS))
    } else if happens(mix.own_ids, rng) {
        Id::Own
    } else {
        Id::Generated
    }
}

fn behaviour(mix: &Mix, rng: &mut StdRng) -> Behaviour {
    let longer = if happens(mix.slow, rng) { mix.slowest } else { QUICK };
    let takes = mix.takes_at_least + up_to(longer, rng);
    let times = mix.fails.choose(rng).copied().unwrap_or(1);
    let fails = if happens(mix.failing, rng) { times } else { 0 };
    let failure = mix.failures.choose(rng).copied().unwrap_or(Failure::Status(500));
    let answer = mix.answers.choose(rng).copied().unwrap_or(Answer::Short);
    Behaviour { takes, fails, failure, answer }
}

fn cancel_after(mix: &Mix, behaviour: Behaviour, rng: &mut StdRng) -> Duration {
    match mix.cancelled_at {
        CancelAt::Within(most) | CancelAt::Wait(most) => up_to(most, rng),
        CancelAt::TheirEnd => behaviour.takes + up_to(ON_THE_WAY, rng),
    }
}

fn delay(mix: &Mix, rng: &mut StdRng) -> Delay {
    let millis = up_to(mix.longest_delay, rng).as_millis().try_into().unwrap_or(u64::MAX);
    let time = Duration::from_millis(millis);
    if rng.random() { Delay::By(time) } else { Delay::Until(time) }
}

fn happens(percent: u32, rng: &mut StdRng) -> bool {
    rng.random_range(0..100) < percent
}

fn up_to(most: Duration, rng: &mut StdRng) -> Duration {
    most.mul_f64(rng.random())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

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
        let mix = Mix { kept: 20, waiting: 20, delayed: 20, ..Mix::default() };
        let calls = plan(&mix, &mut StdRng::seed_from_u64(1));
        assert_eq!(calls.len(), 200);
        let any = |is: fn(&PlannedCall) -> bool| calls.iter().any(is);
        assert!(any(|call| call.id == Id::Own) && any(|call| call.id == Id::Generated));
        assert!(any(|call| call.queue == 0) && any(|call| call.queue == 1));
        assert!(any(|call| call.repeats > 0) && any(|call| call.cancel_after.is_some()));
        assert!(any(|call| call.ask_after.is_some()) && any(|call| call.behaviour.fails == ALWAYS));
        assert!(any(|call| call.callback == Some(Reception::Refuses(1, 500))));
        assert!(any(|call| call.keeps_result) && any(|call| call.waits.is_some()));
        assert!(any(|call| matches!(call.delay, Some(Delay::By(_)))));
        assert!(any(|call| matches!(call.delay, Some(Delay::Until(_)))));
        let none = Mix {
            cancelled: 0,
            callbacks: 0,
            failing: 0,
            shared_ids: 0,
            asked: 0,
            ..Mix::default()
        };
        let calls = plan(&none, &mut StdRng::seed_from_u64(1));
        assert!(calls.iter().all(|call| {
            call.cancel_after.is_none()
                && call.callback.is_none()
                && call.behaviour.fails == 0
                && call.ask_after.is_none()
                && !call.keeps_result
                && call.waits.is_none()
                && call.delay.is_none()
                && !matches!(call.id, Id::Shared(_))
        }));
    }

    #[test]
    fn batches_have_calls_of_one_queue_with_numbers_of_their_own() {
        let mix = Mix { batches: 30, cancelled: 30, ..Mix::default() };
        let batches = plan_batches(&mix, &mut StdRng::seed_from_u64(1));
        assert!(batches.iter().any(|batch| batch.cancels_rest && batch.callback.is_some()));
        assert!(batches.iter().all(|batch| !batch.calls.is_empty()));
        let queue_of = |batch: &PlannedBatch| batch.calls[0].queue;
        let is_of_one = |batch: &PlannedBatch| {
            batch.calls.iter().all(|call| call.queue == queue_of(batch) && call.id == Id::Own)
        };
        assert!(batches.iter().all(is_of_one));
        assert!(batches.iter().any(|batch| queue_of(batch) == 1));
        let numbers = batches.iter().flat_map(|batch| &batch.calls).map(|call| call.number);
        assert!(numbers.eq(0..batches.iter().map(|batch| batch.calls.len() as u64).sum()));
    }

    #[test]
    fn waits_and_batches_are_cancelled_where_the_mix_says_so() {
        let at = CancelAt::Wait(Duration::from_secs(1));
        let mix = Mix { waiting: 50, cancelled: 50, cancelled_at: at, ..Mix::default() };
        let calls = plan(&mix, &mut StdRng::seed_from_u64(1));
        assert!(calls.iter().any(|call| call.cancels_wait));
        let is_cancelled = |call: &PlannedCall| call.waits.is_some() && call.cancel_after.is_some();
        assert!(calls.iter().all(|call| call.cancels_wait == is_cancelled(call)));
        assert!(calls.iter().all(|call| !call.cancels_wait || call.id == Id::Own));
        let mix = Mix { batches: 30, batches_cancelled: 100, cancelled: 30, ..Mix::default() };
        let batches = plan_batches(&mix, &mut StdRng::seed_from_u64(1));
        assert!(batches.iter().all(|batch| batch.cancels_rest == batch.cancel_after.is_none()));
        assert!(batches.iter().any(|batch| batch.cancels_rest));
        assert!(batches.iter().any(|batch| batch.cancel_after.is_some()));
    }

    #[test]
    fn shared_ids_are_those_of_several_calls() {
        let mix = Mix { shared_ids: 50, ..Mix::default() };
        let mut sharers = BTreeMap::new();
        for call in plan(&mix, &mut StdRng::seed_from_u64(1)) {
            if let Id::Shared(id) = call.id {
                *sharers.entry(id).or_insert(0) += 1;
            }
        }
        assert!(sharers.len() > 10 && sharers.values().any(|count| *count > 2), "{sharers:?}");
    }
}
