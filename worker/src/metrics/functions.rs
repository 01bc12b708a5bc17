//! The limits of functions as this worker applies them, and the calls that functions refuse. A
//! queue without such limits has no series of these. The number of series is bounded: by the
//! functions of the directory, and gauges by [`MAX_FUNCTIONS`].

use std::{
    collections::BTreeSet,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
};

use asyncqueue::{FunctionName, directory::Directory};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{FunctionLabels, inflight::OTHER_FUNCTIONS};
use crate::retry::outcome::RefusalReason;

/// Maximum number of functions with gauges: those that a queue has lanes for, and some more.
const MAX_FUNCTIONS: usize = 100;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct KindLabels {
    queue_name: Arc<str>,
    function_name: String,
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    queue_name: Arc<str>,
    function_name: String,
    reason: &'static str,
}

/// The limits of one function as this worker applies them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct AppliedLimits {
    /// Whether the function has a lane of its own.
    pub(crate) has_own_lane: bool,
    /// Maximum number of open invocations: of all workers, and of this one.
    pub(crate) max_inflight: Option<(u32, u32)>,
    /// Invocations that start in a second: of all workers, and of this one.
    pub(crate) rate: Option<(f64, f64)>,
    /// What was learned from the calls that it refuses.
    pub(crate) learned: Option<Learned>,
}

/// What a worker has learned from the calls that a function refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Learned {
    /// Maximum number of open invocations in this worker.
    pub(crate) limit: u32,
    /// Whether the function has refused its last call, although no other one ran here.
    pub(crate) refuses_all: bool,
}

/// The metrics of functions with limits.
#[derive(Clone, Debug)]
pub(super) struct FunctionMetrics {
    queue: Arc<str>,
    limits: Family<KindLabels, Gauge>,
    rates: Family<KindLabels, Gauge<f64, AtomicU64>>,
    refuses_all: Family<FunctionLabels, Gauge>,
    refusals: Family<RefusalLabels, Counter>,
    shown: Arc<Mutex<Shown>>,
    /// The functions that have a series of refusals. The lock is held while one is counted or
    /// removed.
    refusing: Arc<Mutex<BTreeSet<FunctionName>>>,
}

/// The gauges that have a series.
#[derive(Debug, Default)]
struct Shown {
    limits: BTreeSet<KindLabels>,
    rates: BTreeSet<KindLabels>,
    refuses_all: BTreeSet<FunctionLabels>,
}

// === impl FunctionMetrics ===

impl FunctionMetrics {
    pub(super) fn new(queue: Arc<str>) -> Self {
        Self {
            queue,
            limits: Family::default(),
            rates: Family::default(),
            refuses_all: Family::default(),
            refusals: Family::default(),
            shown: Arc::default(),
            refusing: Arc::default(),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "function_limit",
            "Maximum number of open invocations of a function in the directory, updated every few \
             seconds, by kind: total of all workers, share of this worker, or learned by this \
             worker with perFunction.adaptive",
            self.limits.clone(),
        );
        registry.register(
            "function_rate",
            "Maximum number of invocations of a function in the directory that start in a second, \
             updated every few seconds, by kind: total of all workers, or share of this worker",
            self.rates.clone(),
        );
        registry.register(
            "function_refuses_all",
            "1 if a function in the directory has refused its last call, although this worker ran \
             no other one; updated every few seconds, only with perFunction.adaptive",
            self.refuses_all.clone(),
        );
        registry.register(
            "calls_refused",
            "Invocations that a function refused for now, with perFunction.adaptive, by reason: \
             status_429, status_503 or platform; function_name is `other` for functions that are \
             not in the directory",
            self.refusals.clone(),
        );
    }

    /// Sets the limits that apply to functions. Functions that are not among them have no series.
    pub(super) fn set(
        &self,
        functions: &[(FunctionName, AppliedLimits)],
        directory: Option<&Directory>,
    ) {
        let is_known = |name: &FunctionName| {
            directory.is_some_and(|directory| directory.functions.contains_key(name))
        };
        let mut known: Vec<_> = functions.iter().filter(|(name, _)| is_known(name)).collect();
        known.sort_by_key(|(name, limits)| (!limits.has_own_lane, name));
        known.truncate(MAX_FUNCTIONS);
        let mut current = Shown::default();
        for (name, limits) in known {
            let name = name.to_string();
            let mut limit = |kind, limit: u32| {
                let labels = self.kind_labels(&name, kind);
                self.limits.get_or_create(&labels).set(limit.into());
                current.limits.insert(labels);
            };
            if let Some((total, share)) = limits.max_inflight {
                limit("total", total);
                limit("share", share);
            }
            if let Some(learned) = limits.learned {
                limit("learned", learned.limit);
                let queue_name = self.queue.clone();
                let labels = FunctionLabels { queue_name, function_name: name.clone() };
                self.refuses_all.get_or_create(&labels).set(learned.refuses_all.into());
                current.refuses_all.insert(labels);
            }
            if let Some((total, share)) = limits.rate {
                for (kind, rate) in [("total", total), ("share", share)] {
                    let labels = self.kind_labels(&name, kind);
                    self.rates.get_or_create(&labels).set(rate);
                    current.rates.insert(labels);
                }
            }
        }
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *shown, current);
        remove_others(&self.limits, before.limits, &shown.limits);
        remove_others(&self.rates, before.rates, &shown.rates);
        remove_others(&self.refuses_all, before.refuses_all, &shown.refuses_all);
    }

    /// Counts a call that its function has refused.
    pub(super) fn record_refusal(
        &self,
        function: &FunctionName,
        reason: RefusalReason,
        directory: Option<&Directory>,
    ) {
        let is_known =
            directory.is_some_and(|directory| directory.functions.contains_key(function));
        let name = if is_known { function.to_string() } else { OTHER_FUNCTIONS.to_owned() };
        let mut refusing = self.lock();
        if is_known && !refusing.contains(function) {
            refusing.insert(function.clone());
        }
        self.refusals.get_or_create(&self.refusal_labels(name, reason)).inc();
    }

    /// Removes the counters of functions that the directory no longer has.
    pub(super) fn retain(&self, directory: &Directory) {
        self.lock().retain(|function| {
            let is_kept = directory.functions.contains_key(function);
            if !is_kept {
                for reason in RefusalReason::ALL {
                    self.refusals.remove(&self.refusal_labels(function.to_string(), reason));
                }
            }
            is_kept
        });
    }

    fn kind_labels(&self, function: &str, kind: &'static str) -> KindLabels {
        KindLabels { queue_name: self.queue.clone(), function_name: function.to_owned(), kind }
    }

    fn refusal_labels(&self, function_name: String, reason: RefusalReason) -> RefusalLabels {
        RefusalLabels { queue_name: self.queue.clone(), function_name, reason: reason.as_str() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<FunctionName>> {
        self.refusing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes the series that are not among the current ones.
fn remove_others<L: Clone + Eq + Hash + Ord, G: Default>(
    family: &Family<L, G>,
    before: BTreeSet<L>,
    current: &BTreeSet<L>,
) {
    for labels in before.into_iter().filter(|labels| !current.contains(labels)) {
        family.remove(&labels);
    }
}

#[cfg(test)]
mod tests {
    use asyncqueue::directory::FunctionEntry;
    use prometheus_client::encoding::text::encode;

    use super::*;

    fn name(name: &str) -> FunctionName {
        FunctionName::new(name, "ns").unwrap()
    }

    fn directory(names: &[&str]) -> Directory {
        let functions = names.iter().map(|of| (name(of), FunctionEntry::default()));
        Directory { functions: functions.collect(), ..Directory::default() }
    }

    /// The series as they are scraped, without the name of the queue.
    fn series(metrics: &FunctionMetrics) -> Vec<String> {
        let (mut registry, mut text) = (Registry::default(), String::new());
        metrics.register(&mut registry);
        encode(&mut text, &registry).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let mut series: Vec<_> =
            lines.map(|line| line.replace("queue_name=\"jobs\",", "").replace('"', "")).collect();
        series.sort();
        series
    }

    #[test]
    fn limits_of_functions_are_shown_while_they_apply() {
        let (metrics, directory) = (FunctionMetrics::new("jobs".into()), directory(&["a", "b"]));
        let both = AppliedLimits {
            max_inflight: Some((10, 4)),
            rate: Some((5.0, 2.5)),
            ..AppliedLimits::default()
        };
        let learned = Some(Learned { limit: 7, refuses_all: true });
        let learned = AppliedLimits { learned, ..AppliedLimits::default() };
        let all = [(name("a"), both), (name("b"), learned.clone()), (name("invented"), learned)];
        metrics.set(&all, Some(&directory));
        let expected = [
            "function_limit{function_name=a.ns,kind=share} 4",
            "function_limit{function_name=a.ns,kind=total} 10",
            "function_limit{function_name=b.ns,kind=learned} 7",
            "function_rate{function_name=a.ns,kind=share} 2.5",
            "function_rate{function_name=a.ns,kind=total} 5.0",
            "function_refuses_all{function_name=b.ns} 1",
        ];
        assert_eq!(series(&metrics), expected);
        metrics.set(&all[1..], Some(&directory));
        assert_eq!(series(&metrics), [expected[2], expected[5]]);
        metrics.set(&all, None);
        assert_eq!(series(&metrics), [""; 0]);
    }

    #[test]
    fn functions_with_lanes_of_their_own_have_series_first() {
        let names: Vec<_> = (0..150).map(|number| format!("f{number:03}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let (metrics, directory) = (FunctionMetrics::new("jobs".into()), directory(&names));
        let limits = |has_own_lane| AppliedLimits {
            has_own_lane,
            max_inflight: Some((3, 1)),
            ..AppliedLimits::default()
        };
        let all: Vec<_> = names.iter().map(|of| (name(of), limits(*of >= "f060"))).collect();
        metrics.set(&all, Some(&directory));
        let series = series(&metrics);
        let has = |number| {
            series.contains(&format!("function_limit{{function_name=f{number}.ns,kind=total}} 3"))
        };
        assert_eq!(series.len(), 2 * MAX_FUNCTIONS);
        assert!(has("149") && has("060") && has("009") && !has("010"), "{series:?}");
    }

    #[test]
    fn refusals_are_counted_by_reason_and_function_of_the_directory() {
        let metrics = FunctionMetrics::new("jobs".into());
        let both = directory(&["a"]);
        for (function, reason) in [
            ("a", RefusalReason::TooManyRequests),
            ("a", RefusalReason::Platform),
            ("invented", RefusalReason::Unavailable),
            ("made-up", RefusalReason::Unavailable),
        ] {
            metrics.record_refusal(&name(function), reason, Some(&both));
        }
        let other = "calls_refused_total{function_name=other,reason=status_503} 2";
        let expected = [
            "calls_refused_total{function_name=a.ns,reason=platform} 1",
            "calls_refused_total{function_name=a.ns,reason=status_429} 1",
            other,
        ];
        assert_eq!(series(&metrics), expected);
        metrics.retain(&both);
        assert_eq!(series(&metrics), expected);
        metrics.retain(&directory(&[]));
        assert_eq!(series(&metrics), [other]);
    }
}
