//! Decides what the end of an invocation means for its call: a pure function of how it ended, how
//! often the call was tried, and the policy.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use asyncqueue::{
    attempt_offset::AttemptOffset,
    function_namespaces::NamespaceRefused,
    retry::{QueueRetry, RetryOverrides},
};
use jiff::Timestamp;

use super::{
    backoff::{BackoffPolicy, PUT_OFF},
    retry_after,
};

/// Maximum wait that a `Retry-After` can request. The maximum of the policy limits only the waits
/// that the worker computes.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Wait of a refused call, before jitter. It does not grow: the limit that is learned from it says
/// how many calls come.
const REFUSED_WAIT: Duration = Duration::from_secs(1);

/// Status with which a function refuses a call for now (RFC 6585, 4).
const STATUS_TOO_MANY_REQUESTS: u16 = 429;

/// Status with which a function refuses a call for now, if it says until when.
const STATUS_UNAVAILABLE: u16 = 503;

/// Time in which failures of the platform do not count as attempts, nor a function that is scaled
/// to zero. A platform that is unavailable for longer is not expected to return for this call.
const PLATFORM_RETRY_WINDOW: Duration = Duration::from_secs(24 * 3600);

/// Status for a call that took longer than its time limit.
pub const STATUS_TIMED_OUT: u16 = 504;

/// Status for a function that may not be called.
pub const STATUS_FORBIDDEN: u16 = 403;

/// Status for a function that could not be reached.
pub const STATUS_UNREACHABLE: u16 = 503;

/// Status for a response that can't be read (RFC 9110, 15.6.3: "an invalid response").
pub const STATUS_UNREADABLE: u16 = 502;

/// Says when a call is retried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Maximum number of attempts, the first included.
    pub max_attempts: u64,
    /// Waits between the attempts.
    pub backoff: BackoffPolicy,
    /// HTTP statuses that are retried. A missing response, or one that is not in time, always is.
    pub codes: BTreeSet<u16>,
}

/// Says how an invocation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvocationEnd {
    /// The function responded.
    Answered {
        /// Status of the response.
        status: u16,
        /// Whether the platform failed, and not the function: an error with `X-OpenFaaS-Internal`.
        internal: bool,
        /// `Retry-After` of the response.
        retry_after: Option<String>,
    },
    /// The time limit was reached.
    TimedOut,
    /// There was no response, or only part of one.
    Unreachable,
    /// The function may not be called, for this reason. No request was sent.
    Forbidden(NamespaceRefused),
    /// The head of the response can't be read, for this reason.
    Unreadable(String),
}

/// Number of attempts and deliveries of a call, and its age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptCount {
    /// Number of this attempt, from 1.
    pub number: u64,
    /// Number of deliveries, including those that did not count as attempts and those by an earlier
    /// consumer that were attempts.
    pub deliveries: u64,
    /// How long the call has been in the queue.
    pub age: Duration,
}

/// A call is handed back without an invocation, which is no attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PutOff {
    /// Why.
    pub(crate) reason: PutOffReason,
    /// Wait before the next delivery.
    pub(crate) wait: Duration,
    /// How much longer the call is put off rather than invoked, if that ends.
    pub(crate) not_counted_for: Option<Duration>,
}

/// Why a call is handed back without an invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PutOffReason {
    /// Its function is scaled to zero.
    ScaledToZero,
    /// The worker has no share of the concurrency and rate of the queue, or can't renew it.
    NoShare,
    /// The function is at its limit in this worker.
    FunctionLimit,
    /// Its next attempt is not due: an earlier consumer of the queue had it wait.
    NotDue,
}

/// A function, or the platform in front of it, refuses a call for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// How it says so.
    pub(crate) reason: RefusalReason,
    /// For how long it asks to be left alone, at most an hour.
    pub(crate) retry_after: Option<Duration>,
}

/// How a function, or the platform in front of it, refuses a call for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefusalReason {
    /// Status 429.
    TooManyRequests,
    /// Status 503 with `Retry-After`.
    Unavailable,
    /// An error with `X-OpenFaaS-Internal`.
    Platform,
}

/// No invocation of a function may start now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AtLimit {
    /// For how long the function wants no calls.
    pub(crate) reopens_in: Duration,
    /// Whether its lane is its own, and held back until another invocation may start.
    pub(crate) has_own_lane: bool,
}

/// What follows for the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The call is done, and the client gets the result.
    Done,
    /// The call is retried.
    Retry {
        /// Wait before the next attempt.
        wait: Duration,
        /// If this invocation does not count as an attempt because the platform failed: how much
        /// longer such failures of this call are not counted. `None`: it counts.
        not_counted_for: Option<Duration>,
    },
    /// The call becomes a dead letter, for this reason, and the client gets the last status.
    Dead(String),
}

// === impl AttemptCount ===

impl AttemptCount {
    /// Creates the count of a call whose deliveries were all attempts.
    #[must_use]
    pub fn all_counted(attempt: u64) -> Self {
        Self { number: attempt, deliveries: attempt, age: Duration::ZERO }
    }

    /// Returns how much longer the platform may keep the call from its function without a counted
    /// attempt. `None`: the time is over.
    pub(crate) fn not_counted_for(self) -> Option<Duration> {
        PLATFORM_RETRY_WINDOW.checked_sub(self.age).filter(|rest| !rest.is_zero())
    }

    /// Decides how long a call is put off whose function is scaled to zero. `chance`, from 0 to
    /// 1, is for the jitter. `None`: it was put off for long enough, and is invoked.
    pub(crate) fn put_off_at_zero(self, chance: f64) -> Option<PutOff> {
        let not_counted_for = self.not_counted_for()?;
        let times = self.deliveries.saturating_sub(self.number).saturating_add(1);
        Some(PutOff {
            reason: PutOffReason::ScaledToZero,
            wait: PUT_OFF.wait_after(times, chance),
            not_counted_for: Some(not_counted_for),
        })
    }

    /// Decides how long a call is put off whose function is at its limit. `chance`, from 0 to 1, is
    /// for the jitter.
    pub(crate) fn put_off_by_function_limit(self, at_limit: AtLimit, chance: f64) -> PutOff {
        // If the lane is held back, few such calls come.
        let times = self.deliveries.saturating_sub(self.number).saturating_add(1);
        let times = if at_limit.has_own_lane { 1 } else { times };
        let wait = PUT_OFF.wait_after(times, chance).max(at_limit.reopens_in);
        PutOff { reason: PutOffReason::FunctionLimit, wait, not_counted_for: None }
    }

    /// Decides what follows for a call that its function refuses: for a day, this is no attempt.
    /// `chance`, from 0 to 1, is for the jitter. `None`: the refusal is an attempt that has failed.
    pub(crate) fn refused(self, refusal: Refusal, chance: f64) -> Option<Outcome> {
        let not_counted_for = Some(self.not_counted_for()?);
        let wait = refusal.retry_after.unwrap_or_default();
        let wait = wait + REFUSED_WAIT.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0);
        Some(Outcome::Retry { wait, not_counted_for })
    }
}

// === impl PutOff ===

impl PutOff {
    /// Creates what follows for a call for which the worker has no share. It may go to another
    /// worker. `chance`, from 0 to 1, is for the jitter.
    pub(crate) fn without_share(chance: f64) -> Self {
        let wait = PUT_OFF.wait_after(1, chance);
        Self { reason: PutOffReason::NoShare, wait, not_counted_for: None }
    }

    /// Creates what follows for a call whose next attempt is not due. `None`: it is due.
    pub(crate) fn until_due(recorded: AttemptOffset, now: Timestamp) -> Option<Self> {
        let AttemptOffset::Waiting { not_before, .. } = recorded else { return None };
        let wait = Duration::try_from(not_before.duration_since(now)).ok()?;
        let reason = PutOffReason::NotDue;
        (!wait.is_zero()).then_some(Self { reason, wait, not_counted_for: None })
    }
}

// === impl PutOffReason ===

impl PutOffReason {
    pub(crate) const ALL: [Self; 4] =
        [Self::ScaledToZero, Self::NoShare, Self::FunctionLimit, Self::NotDue];

    /// Returns the reason as a label.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::ScaledToZero => "scaled_to_zero",
            Self::NoShare => "no_share",
            Self::FunctionLimit => "function_limit",
            Self::NotDue => "not_due",
        }
    }

    /// Describes the reason, as the last error of the call.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::ScaledToZero => "the function is scaled to zero",
            Self::NoShare => "its worker had no share of the queue's concurrency and rate",
            Self::FunctionLimit => "the function was at its limit of invocations in its worker",
            Self::NotDue => "it waited for its next attempt when the fairness of the queue changed",
        }
    }
}

// === impl Refusal ===

impl Refusal {
    /// Returns the refusal that an invocation ended with, if it is one.
    pub(crate) fn of(end: &InvocationEnd, now: SystemTime) -> Option<Self> {
        let retry_after = requested_wait(end, now).map(|wait| wait.min(MAX_RETRY_AFTER));
        let reason = match end {
            end if end.is_platform_error() => RefusalReason::Platform,
            InvocationEnd::Answered { status: STATUS_TOO_MANY_REQUESTS, .. } => {
                RefusalReason::TooManyRequests
            }
            InvocationEnd::Answered { status: STATUS_UNAVAILABLE, .. } if retry_after.is_some() => {
                RefusalReason::Unavailable
            }
            _ => return None,
        };
        Some(Self { reason, retry_after })
    }
}

// === impl RefusalReason ===

impl RefusalReason {
    pub(crate) const ALL: [Self; 3] = [Self::TooManyRequests, Self::Unavailable, Self::Platform];

    /// Returns the reason as a label.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::TooManyRequests => "status_429",
            Self::Unavailable => "status_503",
            Self::Platform => "platform",
        }
    }
}

// === impl InvocationEnd ===

impl InvocationEnd {
    /// Returns the status that the client gets.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Answered { status, .. } => *status,
            Self::TimedOut => STATUS_TIMED_OUT,
            Self::Unreachable => STATUS_UNREACHABLE,
            Self::Forbidden(_) => STATUS_FORBIDDEN,
            Self::Unreadable(_) => STATUS_UNREADABLE,
        }
    }

    fn is_platform_error(&self) -> bool {
        matches!(self, Self::Answered { internal: true, .. })
    }

    /// Describes the end, as the reason for another attempt or for a dead letter.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Answered { status, .. } => format!("the function answered {status}"),
            Self::TimedOut => "the time limit was reached".to_owned(),
            Self::Unreachable => "the function did not answer".to_owned(),
            Self::Forbidden(refused) => refused.to_string(),
            Self::Unreadable(reason) => {
                format!("the answer of the function can't be read: {reason}")
            }
        }
    }
}

// === impl RetryPolicy ===

impl From<&QueueRetry> for RetryPolicy {
    fn from(retry: &QueueRetry) -> Self {
        Self {
            max_attempts: retry.max_attempts,
            backoff: BackoffPolicy {
                min: retry.min_backoff.0,
                max: retry.max_backoff.0,
                backoff: retry.backoff,
                jitter: retry.jitter,
            },
            codes: retry.status_codes.iter().copied().collect(),
        }
    }
}

impl RetryPolicy {
    /// Returns this policy with the overrides of a function. A minimum wait above the queue's
    /// maximum raises that maximum. A maximum that the function sets itself limits the minimum.
    #[must_use]
    pub fn with_overrides(&self, overrides: &RetryOverrides) -> Self {
        let min = overrides.min_wait.map_or(self.backoff.min, Duration::from);
        let max = overrides.max_wait.map_or(self.backoff.max.max(min), Duration::from);
        Self {
            max_attempts: overrides.attempts.unwrap_or(self.max_attempts),
            backoff: BackoffPolicy { min: min.min(max), max, ..self.backoff },
            codes: overrides.codes.clone().unwrap_or_else(|| self.codes.clone()),
        }
    }

    /// Decides what the end of an invocation means after these attempts. `chance`, from 0 to 1, is
    /// for the jitter.
    #[must_use]
    pub fn decide(
        &self,
        end: &InvocationEnd,
        attempts: AttemptCount,
        now: SystemTime,
        chance: f64,
    ) -> Outcome {
        match end {
            InvocationEnd::Forbidden(refused) => return Outcome::Dead(refused.to_string()),
            // The function has run, and would respond in the same way again.
            InvocationEnd::Unreadable(_) => {
                return Outcome::Dead(format!(
                    "{} (not retried: the function has run)",
                    end.reason()
                ));
            }
            InvocationEnd::Answered { .. }
            | InvocationEnd::TimedOut
            | InvocationEnd::Unreachable => {}
        }
        if !self.is_retried(end) {
            return Outcome::Done;
        }
        let not_counted_for =
            if end.is_platform_error() { attempts.not_counted_for() } else { None };
        if not_counted_for.is_none() && attempts.number >= self.max_attempts {
            return Outcome::Dead(format!(
                "{} (attempt {} of {})",
                end.reason(),
                attempts.number,
                self.max_attempts
            ));
        }
        let wait = match requested_wait(end, now) {
            Some(wait) => wait.min(MAX_RETRY_AFTER).max(self.backoff.min),
            None => self.backoff.wait_after(attempts.deliveries, chance),
        };
        Outcome::Retry { wait, not_counted_for }
    }

    /// Returns whether the attempts are exhausted on arrival: the worker crashed during the last
    /// one. Otherwise the call would have ended.
    #[must_use]
    pub fn is_poison(&self, attempt: u64) -> bool {
        attempt > self.max_attempts
    }

    fn is_retried(&self, end: &InvocationEnd) -> bool {
        match end {
            InvocationEnd::Answered { status, .. } => {
                end.is_platform_error() || self.codes.contains(status)
            }
            InvocationEnd::TimedOut | InvocationEnd::Unreachable => true,
            InvocationEnd::Forbidden(_) | InvocationEnd::Unreadable(_) => false,
        }
    }
}

/// Returns the wait that the function requested.
fn requested_wait(end: &InvocationEnd, now: SystemTime) -> Option<Duration> {
    match end {
        InvocationEnd::Answered { retry_after: Some(value), .. } => retry_after::parse(value, now),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use asyncqueue::retry::{Backoff, Jitter};

    fn policy() -> RetryPolicy {
        RetryPolicy {
            max_attempts: 3,
            backoff: BackoffPolicy {
                min: Duration::from_secs(10),
                max: Duration::from_secs(120),
                backoff: Backoff::Exponential,
                jitter: Jitter::None,
            },
            codes: [408, 429, 500, 502, 503, 504].into(),
        }
    }

    fn answered(status: u16) -> InvocationEnd {
        InvocationEnd::Answered { status, internal: false, retry_after: None }
    }

    fn decide(end: &InvocationEnd, attempt: u64) -> Outcome {
        policy().decide(end, AttemptCount::all_counted(attempt), SystemTime::UNIX_EPOCH, 0.5)
    }

    fn retry_in(seconds: u64) -> Outcome {
        Outcome::Retry { wait: Duration::from_secs(seconds), not_counted_for: None }
    }

    #[test]
    fn only_listed_codes_are_retried() {
        for status in [200, 202, 204, 301, 302, 400, 404, 413, 422, 501] {
            assert_eq!(decide(&answered(status), 1), Outcome::Done, "{status}");
        }
        for status in [408, 429, 500, 502, 503, 504] {
            assert_eq!(decide(&answered(status), 1), retry_in(10), "{status}");
        }
    }

    #[test]
    fn settings_of_a_function_override_those_of_its_queue() {
        assert_eq!(policy().with_overrides(&RetryOverrides::default()), policy());
        let own = RetryOverrides {
            attempts: Some(5),
            codes: Some([418].into()),
            min_wait: Some("5m".parse().unwrap()),
            max_wait: None,
        };
        let policy = policy().with_overrides(&own);
        assert_eq!((policy.max_attempts, policy.codes), (5, [418].into()));
        assert_eq!((policy.backoff.min.as_secs(), policy.backoff.max.as_secs()), (300, 300));
    }

    #[test]
    fn a_forbidden_function_is_not_retried() {
        let end = InvocationEnd::Forbidden(NamespaceRefused::NotListed("dev".to_owned()));
        let Outcome::Dead(reason) = decide(&end, 1) else { panic!("not dead") };
        assert!(reason.contains("`dev`") && reason.contains("function_namespaces"), "{reason}");
        assert_eq!(end.status(), 403);
    }

    #[test]
    fn a_missing_response_is_always_retried() {
        let policy = RetryPolicy { codes: BTreeSet::new(), ..policy() };
        for end in [InvocationEnd::TimedOut, InvocationEnd::Unreachable] {
            let outcome =
                policy.decide(&end, AttemptCount::all_counted(2), SystemTime::UNIX_EPOCH, 0.5);
            assert_eq!(outcome, retry_in(20));
        }
    }

    #[test]
    fn an_unreadable_response_is_not_retried() {
        let Outcome::Dead(reason) =
            decide(&InvocationEnd::Unreadable("invalid HTTP version".to_owned()), 1)
        else {
            panic!("not dead")
        };
        assert!(
            reason.contains("invalid HTTP version") && reason.contains("not retried"),
            "{reason}"
        );
    }

    #[test]
    fn a_platform_failure_is_retried_and_not_counted_for_a_day() {
        let end = InvocationEnd::Answered { status: 404, internal: true, retry_after: None };
        let after = |deliveries, age| {
            let attempts = AttemptCount { number: 3, deliveries, age: Duration::from_secs(age) };
            policy().decide(&end, attempts, SystemTime::UNIX_EPOCH, 0.5)
        };
        let uncounted = |wait, rest| Outcome::Retry {
            wait: Duration::from_secs(wait),
            not_counted_for: Some(Duration::from_secs(rest)),
        };
        assert_eq!(after(3, 0), uncounted(40, 86_400));
        assert_eq!(after(99, 86_399), uncounted(120, 1));
        assert!(matches!(after(99, 86_400), Outcome::Dead(_)));
    }

    #[test]
    fn a_call_is_put_off_for_longer_each_time_and_for_a_day() {
        let after = |deliveries, age| {
            let attempts = AttemptCount { number: 3, deliveries, age: Duration::from_secs(age) };
            attempts.put_off_at_zero(1.0)
        };
        let put_off = |wait, rest| {
            Some(PutOff {
                reason: PutOffReason::ScaledToZero,
                wait: Duration::from_secs(wait),
                not_counted_for: Some(Duration::from_secs(rest)),
            })
        };
        assert_eq!(after(3, 0), put_off(1, 86_400));
        assert_eq!(after(5, 400), put_off(4, 86_000));
        assert_eq!(after(2_000, 86_399), put_off(60, 1));
        assert_eq!(after(2_000, 86_400), None);
    }

    #[test]
    fn a_function_refuses_with_429_and_503_and_the_platform() {
        let refusal = |status, internal, retry_after: Option<&str>| {
            let retry_after = retry_after.map(str::to_owned);
            let end = InvocationEnd::Answered { status, internal, retry_after };
            Refusal::of(&end, SystemTime::UNIX_EPOCH)
                .map(|refusal| (refusal.reason.as_str(), refusal.retry_after))
        };
        let seconds = |reason, seconds| Some((reason, Some(Duration::from_secs(seconds))));
        assert_eq!(refusal(429, false, None), Some(("status_429", None)));
        assert_eq!(refusal(429, false, Some("7")), seconds("status_429", 7));
        assert_eq!(refusal(503, false, Some("86400")), seconds("status_503", 3600));
        assert_eq!(refusal(500, true, None), Some(("platform", None)));
        assert_eq!(refusal(429, true, Some("7")), seconds("platform", 7));
        for (status, retry_after) in
            [(503, None), (503, Some("soon")), (500, Some("7")), (200, None)]
        {
            assert_eq!(refusal(status, false, retry_after), None, "{status}");
        }
        assert_eq!(Refusal::of(&InvocationEnd::TimedOut, SystemTime::UNIX_EPOCH), None);
    }

    #[test]
    fn a_refused_call_makes_no_attempt_for_a_day() {
        let after = |age, retry_after| {
            let age = Duration::from_secs(age);
            let attempts = AttemptCount { number: 3, deliveries: 9, age };
            let reason = RefusalReason::TooManyRequests;
            attempts.refused(Refusal { reason, retry_after }, 1.0)
        };
        let retry = |wait, rest| {
            let not_counted_for = Some(Duration::from_secs(rest));
            Some(Outcome::Retry { wait: Duration::from_secs(wait), not_counted_for })
        };
        assert_eq!(after(0, None), retry(1, 86_400));
        assert_eq!(after(86_399, Some(Duration::from_secs(30))), retry(31, 1));
        assert_eq!(after(86_400, None), None);
    }

    #[test]
    fn a_call_of_a_held_lane_is_put_off_for_a_moment() {
        let attempts = AttemptCount { number: 1, deliveries: 9, age: Duration::ZERO };
        let wait = |has_own_lane, seconds| {
            let reopens_in = Duration::from_secs(seconds);
            attempts.put_off_by_function_limit(AtLimit { reopens_in, has_own_lane }, 1.0).wait
        };
        assert_eq!(wait(true, 0).as_secs(), 1);
        assert_eq!(wait(true, 30).as_secs(), 30);
        assert_eq!(wait(false, 0).as_secs(), 60);
    }

    #[test]
    fn exhausted_attempts_are_dead_with_a_reason() {
        let Outcome::Dead(reason) = decide(&answered(500), 3) else { panic!("not dead") };
        assert_eq!(reason, "the function answered 500 (attempt 3 of 3)");
        assert!(!policy().is_poison(3));
        assert!(policy().is_poison(4));
    }

    #[test]
    fn retry_after_overrides_the_computed_wait_up_to_an_hour() {
        let date = "Thu, 01 Jan 1970 00:20:00 GMT";
        for (value, seconds) in [
            ("30", 30),
            ("1", 10),
            ("600", 600),
            (date, 1200),
            ("86400", 3600),
            ("garbage", 10),
            ("-5", 10),
        ] {
            let end = InvocationEnd::Answered {
                status: 503,
                internal: false,
                retry_after: Some(value.to_owned()),
            };
            assert_eq!(decide(&end, 1), retry_in(seconds), "{value}");
        }
    }

    proptest! {
        #[test]
        fn a_call_has_at_most_max_attempts(
            status in 100_u16..600, internal: bool, attempt in 1_u64..10,
            age in 0_u64..200_000, chance in 0.0..1.0,
        ) {
            let end = InvocationEnd::Answered { status, internal, retry_after: None };
            let age = Duration::from_secs(age);
            let attempts = AttemptCount { age, ..AttemptCount::all_counted(attempt) };
            match policy().decide(&end, attempts, SystemTime::UNIX_EPOCH, chance) {
                Outcome::Retry { wait, not_counted_for } => {
                    let counted = not_counted_for.is_none();
                    prop_assert!(attempt < 3 || !counted);
                    prop_assert!(counted || (internal && attempts.age < PLATFORM_RETRY_WINDOW));
                    prop_assert!(wait <= Duration::from_secs(120));
                }
                Outcome::Done => prop_assert!(!policy().is_retried(&end)),
                Outcome::Dead(_) => prop_assert!(attempt >= 3),
            }
        }
    }
}
