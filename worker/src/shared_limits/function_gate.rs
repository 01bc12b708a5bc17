//! Decides whether an invocation of a function may start in this worker, by the limits of the
//! function. Only queues with lanes have such limits: without lanes, a function at its limit would
//! delay all others.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use asyncqueue::{
    FunctionName,
    directory::{Directory, FunctionLimits},
    shares::{FunctionShare, division::FunctionClaim},
};
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};

use super::{gate::refill, token_bucket::TokenBucket};
use crate::live_settings::LiveSettings;

/// Time after which a function without a lane is forgotten, if none of its calls has come.
const FORGET_AFTER: Duration = Duration::from_secs(60);

/// Maximum number of functions without a lane that are remembered. Clients choose their names.
const MAX_WITHOUT_LANE: usize = 1000;

/// Lets invocations of functions start within this worker's shares of their limits. Clones share
/// their state.
#[derive(Clone, Debug)]
pub(crate) struct FunctionGate {
    settings: watch::Receiver<LiveSettings>,
    directory: watch::Receiver<Option<Arc<Directory>>>,
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
}

/// An invocation of a function that is open until this is dropped.
#[derive(Debug)]
pub(crate) struct OpenFunction(Option<(Arc<Mutex<State>>, FunctionName)>);

/// A call that waits for a token until this is dropped.
struct Waiting<'a>(&'a FunctionGate, &'a FunctionName);

// === impl FunctionGate ===

impl FunctionGate {
    pub(crate) fn new(
        settings: watch::Receiver<LiveSettings>,
        directory: watch::Receiver<Option<Arc<Directory>>>,
    ) -> Self {
        Self {
            settings,
            directory,
            state: Arc::default(),
            claims_changed: Arc::default(),
            raised: watch::Sender::new(()),
        }
    }

    /// Takes over which functions have lanes. `None`: the queue has no lanes.
    pub(crate) fn set_lanes(&self, functions: Option<BTreeSet<FunctionName>>) {
        let (now, mut state) = (Instant::now(), self.lock());
        state.has_lanes = functions.is_some();
        let functions = functions.unwrap_or_default();
        for (name, function) in &mut state.functions {
            function.has_lane = functions.contains(name);
        }
        let mut is_new = false;
        for name in functions {
            is_new |= !state.functions.contains_key(&name);
            let function = state.functions.entry(name).or_insert_with(|| Function::new(now));
            function.has_lane = true;
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
            sleep(wait).await;
        }
        true
    }

    /// Opens an invocation. Returns `None` if that would exceed this worker's share of the limits
    /// of the function, or if the share may have lapsed.
    pub(crate) fn open(&self, name: &FunctionName) -> Option<OpenFunction> {
        let limits = self.limits(name);
        let (now, mut state) = (Instant::now(), self.lock());
        if !state.has_lanes {
            return Some(OpenFunction(None));
        }
        let is_valid = state.is_valid(now);
        let is_limited = has_shares(&limits);
        let Some(function) = self.used(&mut state, name, now) else {
            return (!is_limited).then_some(OpenFunction(None));
        };
        let has_slot = limits.max_inflight.is_none() || function.open < function.slots;
        if is_limited && !(is_valid && has_slot) {
            return None;
        }
        function.open += 1;
        Some(OpenFunction(Some((self.state.clone(), name.clone()))))
    }

    /// Returns how many calls of these functions this worker may have in hand, where it has so many
    /// now.
    pub(crate) fn max_in_hand(&self, functions: &[FunctionName], in_hand: usize) -> usize {
        let (now, state) = (Instant::now(), self.lock());
        let is_valid = state.is_valid(now);
        let max = |name| {
            let limits = self.limits(name);
            if !has_shares(&limits) {
                return usize::MAX;
            }
            let Some(function) = state.functions.get(name).filter(|_| is_valid) else { return 0 };
            let slots = limits.max_inflight.map_or(usize::MAX, |_| function.slots as usize);
            let ahead = limits.rate.map_or(usize::MAX, |_| {
                in_hand + function.bucket.soon(now).saturating_sub(function.waiting)
            });
            slots.min(ahead)
        };
        functions.iter().map(max).fold(0, usize::saturating_add)
    }

    /// Returns whether one of these functions has a limit.
    pub(crate) fn has_limits(&self, functions: &[FunctionName]) -> bool {
        functions.iter().any(|name| has_shares(&self.limits(name)))
    }

    /// Returns the number of calls of one turn of these functions.
    pub(crate) fn weight(&self, functions: &[FunctionName]) -> u32 {
        let weight = |name| self.limits(name).weight.unwrap_or(1);
        functions.iter().map(weight).fold(0, u32::saturating_add).max(1)
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

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Returns whether workers share limits of the function.
fn has_shares(limits: &FunctionLimits) -> bool {
    limits.max_inflight.is_some() || limits.rate.is_some()
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
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
        Self { has_lane: false, used_at: now, open: 0, waiting: 0, slots: 0, rate: 0, bucket }
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

impl Drop for OpenFunction {
    fn drop(&mut self) {
        if let Some((state, name)) = &self.0
            && let Some(function) = lock(state).functions.get_mut(name)
        {
            function.open = function.open.saturating_sub(1);
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
        let settings =
            LiveSettings::new(10, GoDuration(Duration::from_secs(1)), QueueRetry::default())
                .with_per_function(PerFunction { max_inflight });
        let entry = FunctionEntry { limits: own.unwrap_or_default(), ..FunctionEntry::default() };
        let functions = [(name("own"), entry)].into();
        let directory = Directory { functions, ..Directory::default() };
        let directory = watch::channel(Some(Arc::new(directory))).1;
        let gate = FunctionGate::new(watch::channel(settings).1, directory);
        gate.set_lanes(Some([name("a"), name("b"), name("own")].into()));
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
        assert!(gate.open(&name("a")).is_none(), "there is no share yet");
        assert_eq!(gate.max_in_hand(&[name("a")], 0), 0);
        confirm(&gate, &[("a", 2), ("b", 1)], in_a_second());
        let open = [gate.open(&name("a")).unwrap(), gate.open(&name("a")).unwrap()];
        assert!(gate.open(&name("a")).is_none());
        assert!(gate.open(&name("b")).is_some(), "others have limits of their own");
        assert_eq!(gate.claims()[&name("a")].open, 2);
        // A lane of several functions may have the sum in hand.
        assert_eq!(gate.max_in_hand(&[name("a"), name("b")], 0), 3);
        drop(open);
        assert!(gate.open(&name("a")).is_some());
        confirm(&gate, &[("a", 2)], Instant::now());
        assert!(gate.open(&name("a")).is_none(), "the share has lapsed");
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
        assert!(gate.open(&name("a")).is_none());
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
            assert!(gate.wait_for_token(&name("own")).await && gate.open(&name("own")).is_some());
        }
        assert!(begun.elapsed() >= Duration::from_millis(40), "{:?}", begun.elapsed());
    }

    #[test]
    fn functions_without_lanes_are_bounded_and_forgotten() {
        let gate = gate(Some(1), None);
        for number in 0..MAX_WITHOUT_LANE + 10 {
            assert!(gate.open(&name(&format!("f{number}"))).is_none());
        }
        assert_eq!(gate.claims().len(), MAX_WITHOUT_LANE + 3);
        let past = Instant::now().checked_sub(FORGET_AFTER).unwrap();
        for function in gate.lock().functions.values_mut() {
            function.used_at = past;
        }
        assert_eq!(gate.claims().len(), 3);
        // Without lanes, no function has a limit.
        gate.set_lanes(None);
        assert!(gate.claims().is_empty() && gate.open(&name("a")).is_some());
    }
}
