//! Decides whether an invocation of a function may start in this worker, by the limits of the
//! function. Only queues with lanes have such limits: without lanes, a function at its limit would
//! delay all others.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use asyncqueue::{
    FunctionName, Rounded,
    directory::{Directory, FunctionLimits},
    shares::{FunctionShare, division::FunctionClaim, rate_of_share},
    stats::{LimitedFunction, MAX_LIMITED},
};
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};
use tracing::info;

use super::{
    adaptive_limit::{AdaptiveLimit, Started},
    gate::refill,
    token_bucket::TokenBucket,
};
use crate::{
    live_settings::LiveSettings,
    metrics::{AppliedLimits, Learned, Metrics, RateOf},
    retry::outcome::{AtLimit, InvocationEnd, Refusal},
};

/// Time after which a function without a lane is forgotten, if none of its calls has come.
const FORGET_AFTER: Duration = Duration::from_secs(60);

/// Time without a refusal after which a function refuses no more calls.
const QUIET_TIME: Duration = Duration::from_secs(60);

/// Time after its last refusal in which the limit of a function is in the statistics of the worker.
const REPORTED_FOR: Duration = Duration::from_secs(600);

/// Maximum number of functions without a lane that are remembered. Clients choose their names.
const MAX_WITHOUT_LANE: usize = 1000;

/// Lets invocations of functions start within this worker's shares of their limits. Clones share
/// their state.
#[derive(Clone, Debug)]
pub(crate) struct FunctionGate {
    settings: watch::Receiver<LiveSettings>,
    directory: watch::Receiver<Option<Arc<Directory>>>,
    metrics: Metrics,
    state: Arc<Mutex<State>>,
    /// Notified when the worker should renew its shares at once.
    claims_changed: Arc<Notify>,
    /// Changes when more invocations may start.
    raised: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether the queue has lanes.
    has_lanes: bool,
    /// Whether long calls use all slots of this worker.
    is_busy: bool,
    functions: HashMap<FunctionName, Function>,
    /// When invocations of functions with limits may no longer start, unless the shares are
    /// renewed.
    until: Option<Instant>,
}

#[derive(Debug)]
struct Function {
    has_lane: bool,
    /// Whether it shares its lane with no other function.
    has_own_lane: bool,
    used_at: Instant,
    /// Number of open invocations.
    open: u32,
    /// Number of calls that wait for a token.
    waiting: usize,
    /// Number of invocations that may be open, if that is limited.
    slots: u32,
    /// The part of the rate.
    rate: u32,
    bucket: TokenBucket,
    /// What is learned from the calls that it refuses.
    adaptive: AdaptiveLimit,
    /// When it has refused a call last, until it has refused none for a while.
    refused_at: Option<Instant>,
    /// When it has refused a call last.
    last_refusal: Option<Instant>,
    /// Number of calls that it has refused.
    refused: u64,
}

/// An invocation of a function that is open until this is dropped.
#[derive(Debug)]
pub(crate) struct OpenFunction(Option<Opened>);

#[derive(Debug)]
struct Opened {
    gate: FunctionGate,
    name: FunctionName,
    started: Started,
}

/// A call that waits for a token until this is dropped.
struct Waiting<'a>(&'a FunctionGate, &'a FunctionName);

// === impl FunctionGate ===

impl FunctionGate {
    pub(crate) fn new(
        settings: watch::Receiver<LiveSettings>,
        directory: watch::Receiver<Option<Arc<Directory>>>,
        metrics: Metrics,
    ) -> Self {
        Self {
            settings,
            directory,
            metrics,
            state: Arc::default(),
            claims_changed: Arc::default(),
            raised: watch::Sender::new(()),
        }
    }

    /// Takes over which functions have lanes, and whether the lane is their own. `None`: the queue
    /// has no lanes.
    pub(crate) fn set_lanes(&self, functions: Option<BTreeMap<FunctionName, bool>>) {
        let (now, mut state) = (Instant::now(), self.lock());
        state.has_lanes = functions.is_some();
        let functions = functions.unwrap_or_default();
        for (name, function) in &mut state.functions {
            function.has_lane = functions.contains_key(name);
        }
        let mut is_new = false;
        for (name, is_own) in functions {
            is_new |= !state.functions.contains_key(&name);
            let function = state.functions.entry(name).or_insert_with(|| Function::new(now));
            (function.has_lane, function.has_own_lane) = (true, is_own);
        }
        if is_new {
            self.claims_changed.notify_one();
        }
    }

    /// Takes over whether long calls use all slots of this worker.
    pub(crate) fn set_busy(&self, is_busy: bool) {
        if std::mem::replace(&mut self.lock().is_busy, is_busy) != is_busy {
            self.claims_changed.notify_one();
        }
    }

    /// Returns whether the rate of the function is limited.
    pub(crate) fn has_rate(&self, function: &FunctionName) -> bool {
        self.lock().has_lanes && self.limits(function).rate.is_some()
    }

    /// Waits until the rate of the function permits an invocation. Returns `false` if this worker
    /// has no part of the rate.
    pub(crate) async fn wait_for_token(&self, name: &FunctionName) -> bool {
        let now = Instant::now();
        let (wait, _waiting) = {
            let mut state = self.lock();
            let Some(function) = self.used(&mut state, name, now) else { return false };
            let Some(wait) = function.bucket.take(now) else { return false };
            function.waiting += 1;
            (wait, Waiting(self, name))
        };
        if !wait.is_zero() {
            self.metrics.record_rate_wait(RateOf::Function);
            sleep(wait).await;
        }
        true
    }

    /// Opens an invocation. Refuses it if that would exceed this worker's share of the limits of
    /// the function, if the share may have lapsed, or if the function would refuse it.
    pub(crate) fn open(&self, name: &FunctionName) -> Result<OpenFunction, AtLimit> {
        let mut state = self.lock();
        if !state.has_lanes {
            return Ok(OpenFunction(None));
        }
        let (limits, is_adaptive) = (self.limits(name), self.is_adaptive());
        let now = Instant::now();
        let is_valid = state.is_valid(now);
        let is_limited = has_shares(&limits);
        let Some(function) = self.used(&mut state, name, now) else {
            return if is_limited { Err(AtLimit::default()) } else { Ok(OpenFunction(None)) };
        };
        let has_slot = limits.max_inflight.is_none() || function.open < function.slots;
        let is_taken = !is_adaptive || function.open < function.adaptive.max_open(now);
        if !is_taken || is_limited && !(is_valid && has_slot) {
            let reopens_in =
                if is_adaptive { function.adaptive.closed_for(now) } else { Duration::ZERO };
            return Err(AtLimit { reopens_in, has_own_lane: function.has_own_lane });
        }
        function.open += 1;
        let started = function.adaptive.started(function.open);
        Ok(OpenFunction(Some(Opened { gate: self.clone(), name: name.clone(), started })))
    }

    /// Returns how many calls of these functions this worker may have in hand, where it has so many
    /// now.
    pub(crate) fn max_in_hand(&self, functions: &[FunctionName], in_hand: usize) -> usize {
        let (now, state) = (Instant::now(), self.lock());
        let is_valid = state.is_valid(now);
        let is_adaptive = self.is_adaptive();
        let max = |name| {
            let limits = self.limits(name);
            let is_limited = has_shares(&limits);
            if !is_limited && !is_adaptive {
                return usize::MAX;
            }
            let Some(function) = state.functions.get(name) else { return 0 };
            let taken =
                if is_adaptive { function.adaptive.max_open(now) as usize } else { usize::MAX };
            if !is_limited {
                return taken;
            }
            if !is_valid {
                return 0;
            }
            let slots = limits.max_inflight.map_or(usize::MAX, |_| function.slots as usize);
            let ahead = limits.rate.map_or(usize::MAX, |_| {
                in_hand + function.bucket.soon(now).saturating_sub(function.waiting)
            });
            slots.min(ahead).min(taken)
        };
        functions.iter().map(max).fold(0, usize::saturating_add)
    }

    /// Returns whether one of these functions has a limit.
    pub(crate) fn has_limits(&self, functions: &[FunctionName]) -> bool {
        let has_shares = |name| has_shares(&self.limits(name));
        !functions.is_empty() && (self.is_adaptive() || functions.iter().any(has_shares))
    }

    /// Returns the number of calls of one turn of these functions.
    pub(crate) fn weight(&self, functions: &[FunctionName]) -> u32 {
        let weight = |name| self.limits(name).weight.unwrap_or(1);
        functions.iter().map(weight).fold(0, u32::saturating_add).max(1)
    }

    /// Returns the limits of functions as they apply now.
    pub(crate) fn applied(&self) -> Vec<(FunctionName, AppliedLimits)> {
        let (now, state) = (Instant::now(), self.lock());
        let is_valid = state.is_valid(now);
        let is_adaptive = self.is_adaptive();
        let applied = |(name, function): (&FunctionName, &Function)| {
            let limits = self.limits(name);
            let (slots, part) = if is_valid { (function.slots, function.rate) } else { (0, 0) };
            let learned = (is_adaptive && function.adaptive.has_learned()).then(|| Learned {
                limit: function.adaptive.limit(),
                refuses_all: function.adaptive.refuses_all(),
            });
            let applied = AppliedLimits {
                has_own_lane: function.has_own_lane,
                max_inflight: limits.max_inflight.map(|total| (total, slots)),
                rate: limits
                    .rate
                    .map(|rate| (rate.per_second.into(), rate_of_share(rate.per_second, part))),
                learned,
            };
            (name.clone(), applied)
        };
        if !state.has_lanes {
            return Vec::new();
        }
        state.functions.iter().map(applied).collect()
    }

    /// Returns the functions that have refused calls in the last minutes, for the statistics of
    /// this worker.
    pub(crate) fn limited(&self) -> Vec<LimitedFunction> {
        if !self.is_adaptive() {
            return Vec::new();
        }
        let max_inflight = self.settings.borrow().max_inflight.into();
        let (now, state) = (Instant::now(), self.lock());
        let is_reported =
            |at: Option<Instant>| at.is_some_and(|at| now.duration_since(at) < REPORTED_FOR);
        let functions = state.functions.iter();
        let reported = functions.filter(|(_, function)| is_reported(function.last_refusal));
        let mut limited: Vec<_> = reported
            .map(|(name, function)| LimitedFunction {
                function: name.clone(),
                limit: function.adaptive.limit().min(max_inflight),
                refused: function.refused,
            })
            .collect();
        limited.sort_by(|one, other| one.function.cmp(&other.function));
        limited.truncate(MAX_LIMITED);
        limited
    }

    /// Returns a receiver of when more invocations may start, and one of the directory, which has
    /// the limits.
    pub(crate) fn subscribe(
        &self,
    ) -> (watch::Receiver<()>, watch::Receiver<Option<Arc<Directory>>>) {
        (self.raised.subscribe(), self.directory.clone())
    }

    /// Waits until the worker should renew its shares at once.
    pub(super) async fn claims_changed(&self) {
        self.claims_changed.notified().await;
    }

    /// Returns the functions of which this worker needs shares.
    pub(super) fn claims(&self) -> BTreeMap<FunctionName, FunctionClaim> {
        let (now, mut state) = (Instant::now(), self.lock());
        if !state.has_lanes {
            state.functions.clear();
            return BTreeMap::new();
        }
        state.functions.retain(|_, function| function.is_kept(now));
        self.claims_of(&state)
    }

    /// Decides on the next shares by the number of open invocations, and keeps within them from now
    /// on. They are confirmed when they are written.
    pub(super) fn prepare<T>(
        &self,
        decide: impl FnOnce(&BTreeMap<FunctionName, FunctionClaim>, bool) -> T,
        of: impl FnOnce(&T) -> (&BTreeMap<FunctionName, u32>, &BTreeMap<String, FunctionShare>),
    ) -> T {
        let (now, mut state) = (Instant::now(), self.lock());
        let decided = decide(&self.claims_of(&state), state.is_busy);
        let (slots, shares) = of(&decided);
        for (name, function) in &mut state.functions {
            function.slots = function.slots.min(slots.get(name).copied().unwrap_or_default());
            let rate = shares.get(&name.to_string()).map_or(0, |share| share.rate);
            if rate < function.rate {
                function.set_rate(&self.limits(name), rate, now);
            }
        }
        decided
    }

    /// Uses shares that were written, for a time that began before that.
    pub(super) fn confirm(
        &self,
        slots: &BTreeMap<FunctionName, u32>,
        shares: &BTreeMap<String, FunctionShare>,
        until: Instant,
    ) {
        let (now, mut state) = (Instant::now(), self.lock());
        let mut is_raised = !state.is_valid(now);
        state.until = Some(until);
        for (name, function) in &mut state.functions {
            let slots = slots.get(name).copied().unwrap_or_default();
            is_raised |= slots > function.slots;
            function.slots = slots;
            let rate = shares.get(&name.to_string()).map_or(0, |share| share.rate);
            is_raised |= rate > function.rate;
            function.set_rate(&self.limits(name), rate, now);
        }
        drop(state);
        if is_raised {
            self.raised.send_replace(());
        }
    }

    /// Forgets the shares: no function has a limit any more.
    pub(super) fn release(&self) {
        self.lock().until = None;
        self.raised.send_replace(());
    }

    /// Returns a function of which a call has come. `None`: there are too many.
    fn used<'a>(
        &self,
        state: &'a mut State,
        name: &FunctionName,
        now: Instant,
    ) -> Option<&'a mut Function> {
        if !state.functions.contains_key(name) {
            if state.without_lane() >= MAX_WITHOUT_LANE {
                state.functions.retain(|_, function| function.is_kept(now));
            }
            if state.without_lane() >= MAX_WITHOUT_LANE {
                return None;
            }
            state.functions.insert(name.clone(), Function::new(now));
            self.claims_changed.notify_one();
        }
        let function = state.functions.get_mut(name)?;
        function.used_at = now;
        Some(function)
    }

    fn claims_of(&self, state: &State) -> BTreeMap<FunctionName, FunctionClaim> {
        let claims = state.functions.iter().filter_map(|(name, function)| {
            let limits = self.limits(name);
            let claim = FunctionClaim {
                concurrency: limits.max_inflight,
                has_rate: limits.rate.is_some(),
                open: function.open,
            };
            has_shares(&limits).then(|| (name.clone(), claim))
        });
        claims.collect()
    }

    /// Returns the limits of a function: its own, or else those of its queue.
    fn limits(&self, name: &FunctionName) -> FunctionLimits {
        let directory = self.directory.borrow();
        let entry = directory.as_ref().and_then(|directory| directory.functions.get(name));
        let own = entry.map(|entry| entry.limits).unwrap_or_default();
        own.or(&self.settings.borrow().per_function.limits())
    }

    /// Returns whether the workers learn how many invocations a function takes.
    fn is_adaptive(&self) -> bool {
        self.settings.borrow().per_function.adaptive
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether workers share limits of the function.
fn has_shares(limits: &FunctionLimits) -> bool {
    limits.max_inflight.is_some() || limits.rate.is_some()
}

// === impl State ===

impl State {
    /// Returns whether the shares were renewed in time.
    fn is_valid(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// Returns how many functions without a lane are remembered.
    fn without_lane(&self) -> usize {
        self.functions.values().filter(|function| !function.has_lane).count()
    }
}

// === impl Function ===

impl Function {
    fn new(now: Instant) -> Self {
        let bucket = TokenBucket::empty(now);
        Self {
            has_lane: false,
            has_own_lane: false,
            used_at: now,
            open: 0,
            waiting: 0,
            slots: 0,
            rate: 0,
            bucket,
            adaptive: AdaptiveLimit::new(),
            refused_at: None,
            last_refusal: None,
            refused: 0,
        }
    }

    fn is_kept(&self, now: Instant) -> bool {
        self.has_lane
            || self.open > 0
            || self.waiting > 0
            || now.duration_since(self.used_at) < FORGET_AFTER
    }

    fn set_rate(&mut self, limits: &FunctionLimits, part: u32, now: Instant) {
        self.rate = part;
        self.bucket.set(refill(limits.rate, part), now);
    }
}

// === impl OpenFunction ===

impl OpenFunction {
    /// Records how the invocation has ended, and returns whether the function has refused the call.
    /// What the platform or the network did to it otherwise says nothing of the function.
    pub(crate) fn record(mut self, end: &InvocationEnd, now: SystemTime) -> Option<Refusal> {
        let opened = self.0.take()?;
        let refusal = Refusal::of(end, now).filter(|_| opened.gate.is_adaptive());
        opened.close(refusal, matches!(end, InvocationEnd::Answered { status: ..500, .. }));
        refusal
    }
}

impl Opened {
    /// Closes the invocation, and learns from its end.
    fn close(self, refusal: Option<Refusal>, is_accepted: bool) {
        let Self { gate, name, started } = self;
        let (now, mut state) = (Instant::now(), gate.lock());
        let Some(function) = state.functions.get_mut(&name) else { return };
        function.open = function.open.saturating_sub(1);
        if !gate.is_adaptive() {
            return;
        }
        let (open, before) = (function.open, function.adaptive.limit());
        let mut ended_after = None;
        match refusal {
            Some(Refusal { retry_after, .. }) => {
                function.adaptive.refused(started, open, retry_after, now);
                function.refused += 1;
                function.last_refusal = Some(now);
                let is_new = function.refused_at.replace(now).is_none();
                let (limit, closed) =
                    (function.adaptive.limit(), function.adaptive.closed_for(now));
                if is_new {
                    info!(
                        function = %name,
                        limit,
                        "{} refuses calls, which is no attempt: this worker invokes it {limit} \
                         times at once, and not for {}",
                        name.name(),
                        Rounded(closed)
                    );
                }
            }
            None if is_accepted => {
                function.adaptive.accepted(started, open);
                ended_after = function.refused_at.filter(|at| now.duration_since(*at) > QUIET_TIME);
            }
            None => {}
        }
        let limit = function.adaptive.limit();
        if ended_after.is_some() {
            function.refused_at = None;
            info!(
                function = %name,
                limit,
                "{} has refused no call for {}: this worker invokes it {limit} times at once",
                name.name(),
                Rounded(QUIET_TIME)
            );
        }
        drop(state);
        if let Some(Refusal { reason, .. }) = refusal {
            let directory = gate.directory.borrow();
            gate.metrics.record_refusal(&name, reason, directory.as_deref());
        }
        if limit > before {
            gate.raised.send_replace(());
        }
    }
}

impl Drop for OpenFunction {
    fn drop(&mut self) {
        if let Some(opened) = self.0.take() {
            opened.close(None, false);
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(function) = self.0.lock().functions.get_mut(self.1) {
            function.waiting = function.waiting.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use asyncqueue::{
        GoDuration,
        directory::{FunctionEntry, PerFunction, Rate},
        retry::QueueRetry,
        shares::WHOLE_RATE,
    };

    use super::*;

    fn name(name: &str) -> FunctionName {
        FunctionName::new(name, "ns").unwrap()
    }

    /// A queue with lanes for `a` and `b`, of which each function has this limit, and `own` has
    /// limits of its own.
    fn gate(max_inflight: Option<u32>, own: Option<FunctionLimits>) -> FunctionGate {
        gate_of(PerFunction { max_inflight, adaptive: false }, own)
    }

    fn gate_of(per_function: PerFunction, own: Option<FunctionLimits>) -> FunctionGate {
        let settings =
            LiveSettings::new(10, GoDuration(Duration::from_secs(1)), QueueRetry::default())
                .with_per_function(per_function);
        let entry = FunctionEntry { limits: own.unwrap_or_default(), ..FunctionEntry::default() };
        let functions = [(name("own"), entry)].into();
        let directory = Directory { functions, ..Directory::default() };
        let directory = watch::channel(Some(Arc::new(directory))).1;
        let queue = "jobs".parse().unwrap();
        let metrics = Metrics::new(&mut prometheus_client::registry::Registry::default(), &queue);
        let gate = FunctionGate::new(watch::channel(settings).1, directory, metrics);
        gate.set_lanes(Some(["a", "b", "own"].map(|function| (name(function), true)).into()));
        gate
    }

    /// Gives shares to this worker, each the whole rate.
    fn confirm(gate: &FunctionGate, slots: &[(&str, u32)], until: Instant) {
        let slots: BTreeMap<_, _> = slots.iter().map(|(of, slots)| (name(of), *slots)).collect();
        let share = |(name, slots): (&FunctionName, &u32)| {
            (name.to_string(), FunctionShare { slots: *slots, rate: WHOLE_RATE })
        };
        let shares = slots.iter().map(share).collect();
        gate.confirm(&slots, &shares, until);
    }

    fn in_a_second() -> Instant {
        Instant::now() + Duration::from_secs(1)
    }

    #[test]
    fn functions_without_limits_are_not_limited() {
        let gate = gate(None, None);
        assert!(gate.claims().is_empty() && !gate.has_limits(&[name("a")]));
        let _open: Vec<_> = (0..100).map(|_| gate.open(&name("a")).unwrap()).collect();
        assert_eq!(gate.max_in_hand(&[name("a")], 7), usize::MAX);
    }

    #[test]
    fn a_function_has_no_more_open_than_its_share() {
        let gate = gate(Some(4), None);
        assert!(gate.open(&name("a")).is_err(), "there is no share yet");
        assert_eq!(gate.max_in_hand(&[name("a")], 0), 0);
        confirm(&gate, &[("a", 2), ("b", 1)], in_a_second());
        let open = [gate.open(&name("a")).unwrap(), gate.open(&name("a")).unwrap()];
        assert!(gate.open(&name("a")).is_err());
        assert!(gate.open(&name("b")).is_ok(), "others have limits of their own");
        assert_eq!(gate.claims()[&name("a")].open, 2);
        // A lane of several functions may have the sum in hand.
        assert_eq!(gate.max_in_hand(&[name("a"), name("b")], 0), 3);
        drop(open);
        assert!(gate.open(&name("a")).is_ok());
        confirm(&gate, &[("a", 2)], Instant::now());
        assert!(gate.open(&name("a")).is_err(), "the share has lapsed");
        assert_eq!(gate.max_in_hand(&[name("a")], 0), 0);
    }

    #[test]
    fn limits_of_a_function_override_those_of_its_queue() {
        let own = FunctionLimits { max_inflight: Some(9), weight: Some(3), rate: None };
        let gate = gate(Some(4), Some(own));
        let claims = gate.claims();
        assert_eq!(claims[&name("own")].concurrency, Some(9));
        assert_eq!(claims[&name("a")].concurrency, Some(4));
        assert_eq!((gate.weight(&[name("own")]), gate.weight(&[name("a")])), (3, 1));
        assert_eq!((gate.weight(&[name("own"), name("a")]), gate.weight(&[])), (4, 1));
    }

    #[test]
    fn a_lower_share_applies_before_it_is_written() {
        let gate = gate(Some(4), None);
        confirm(&gate, &[("a", 4)], in_a_second());
        let _open = gate.open(&name("a")).unwrap();
        let none = BTreeMap::new();
        let lower = |slots: u32| [(name("a"), slots)].into();
        gate.prepare(|claims, _| (lower(claims[&name("a")].open), none), |of| (&of.0, &of.1));
        assert!(gate.open(&name("a")).is_err());
    }

    #[tokio::test]
    async fn calls_wait_for_the_rate_of_their_function() {
        let rate = Some(Rate { per_second: 50, burst: Some(1) });
        let gate = gate(None, Some(FunctionLimits { rate, ..FunctionLimits::default() }));
        assert!(gate.has_rate(&name("own")) && !gate.has_rate(&name("a")));
        assert!(!gate.wait_for_token(&name("own")).await, "there is no share yet");
        confirm(&gate, &[("own", 0)], in_a_second());
        assert!(gate.max_in_hand(&[name("own")], 0) > 0);
        let begun = Instant::now();
        for _ in 0..3 {
            assert!(gate.wait_for_token(&name("own")).await && gate.open(&name("own")).is_ok());
        }
        assert!(begun.elapsed() >= Duration::from_millis(40), "{:?}", begun.elapsed());
    }

    #[test]
    fn limits_are_shown_as_they_apply() {
        let rate = Some(Rate { per_second: 50, burst: None });
        let gate = gate(Some(4), Some(FunctionLimits { rate, ..FunctionLimits::default() }));
        let applied = || gate.applied().into_iter().collect::<HashMap<_, _>>();
        assert_eq!(applied()[&name("a")].max_inflight, Some((4, 0)), "there is no share yet");
        confirm(&gate, &[("a", 3), ("own", 1)], in_a_second());
        let expected = AppliedLimits {
            has_own_lane: true,
            max_inflight: Some((4, 3)),
            ..AppliedLimits::default()
        };
        assert_eq!(applied()[&name("a")], expected);
        assert_eq!(applied()[&name("own")].rate, Some((50.0, 50.0)));
        confirm(&gate, &[("a", 3), ("own", 1)], Instant::now());
        assert_eq!(applied()[&name("own")].rate, Some((50.0, 0.0)), "the share has lapsed");
        gate.set_lanes(None);
        assert!(applied().is_empty());
    }

    #[test]
    fn functions_without_lanes_are_bounded_and_forgotten() {
        let gate = gate(Some(1), None);
        for number in 0..MAX_WITHOUT_LANE + 10 {
            assert!(gate.open(&name(&format!("f{number}"))).is_err());
        }
        assert_eq!(gate.claims().len(), MAX_WITHOUT_LANE + 3);
        let past = Instant::now().checked_sub(FORGET_AFTER).unwrap();
        for function in gate.lock().functions.values_mut() {
            function.used_at = past;
        }
        assert_eq!(gate.claims().len(), 3);
        // Without lanes, no function has a limit.
        gate.set_lanes(None);
        assert!(gate.claims().is_empty() && gate.open(&name("a")).is_ok());
    }

    #[test]
    fn a_function_that_refuses_has_fewer_invocations() {
        let gate = gate_of(PerFunction { max_inflight: None, adaptive: true }, None);
        let answered = |status, retry_after: Option<&str>| InvocationEnd::Answered {
            status,
            internal: false,
            retry_after: retry_after.map(str::to_owned),
        };
        let now = SystemTime::now();
        assert_eq!(gate.max_in_hand(&[name("a")], 0), 1);
        assert_eq!(gate.open(&name("a")).unwrap().record(&answered(200, None), now), None);
        assert_eq!(gate.max_in_hand(&[name("a")], 0), 2);
        let learned = || {
            let applied: HashMap<_, _> = gate.applied().into_iter().collect();
            applied[&name("a")].learned.unwrap()
        };
        assert_eq!(learned(), Learned { limit: 2, refuses_all: false });
        let open = [gate.open(&name("a")).unwrap(), gate.open(&name("a")).unwrap()];
        let at_limit = gate.open(&name("a")).unwrap_err();
        assert_eq!(at_limit, AtLimit { reopens_in: Duration::ZERO, has_own_lane: true });
        let [first, second] = open;
        assert!(first.record(&answered(429, Some("30")), now).is_some());
        let closed_for = gate.open(&name("a")).unwrap_err().reopens_in;
        assert!(closed_for > Duration::from_secs(28), "{closed_for:?}");
        assert_eq!(gate.max_in_hand(&[name("a")], 1), 0);
        // Another function is not affected.
        assert!(gate.open(&name("b")).is_ok());
        let limited = LimitedFunction { function: name("a"), limit: 1, refused: 1 };
        assert_eq!(gate.limited(), [limited]);
        // A cancelled invocation says nothing.
        drop(second);
        assert_eq!(learned(), Learned { limit: 1, refuses_all: false });
        assert_eq!(gate.lock().functions[&name("a")].open, 0);
    }

    #[test]
    fn the_statistics_have_the_first_functions_that_refuse() {
        let gate = gate_of(PerFunction { max_inflight: None, adaptive: true }, None);
        let end = InvocationEnd::Answered { status: 429, internal: false, retry_after: None };
        for number in 0..MAX_LIMITED + 5 {
            let open = gate.open(&name(&format!("f{number:02}"))).unwrap();
            assert!(open.record(&end, SystemTime::now()).is_some());
        }
        let names: Vec<_> = gate.limited().into_iter().map(|limited| limited.function).collect();
        let expected: Vec<_> =
            (0..MAX_LIMITED).map(|number| name(&format!("f{number:02}"))).collect();
        assert_eq!(names, expected);
        let past = Instant::now().checked_sub(REPORTED_FOR).unwrap();
        for function in gate.lock().functions.values_mut() {
            function.last_refusal = function.last_refusal.map(|_| past);
        }
        assert!(gate.limited().is_empty());
    }

    #[test]
    fn without_adaptive_limits_nothing_is_learned() {
        let gate = gate(None, None);
        let end = InvocationEnd::Answered { status: 429, internal: false, retry_after: None };
        let open = gate.open(&name("a")).unwrap();
        assert_eq!(open.record(&end, SystemTime::now()), None);
        assert!(gate.limited().is_empty());
        assert_eq!(gate.max_in_hand(&[name("a")], 0), usize::MAX);
    }
}
