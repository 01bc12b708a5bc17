//! Decides which functions an event names, and when. Pure.
//!
//! Clients choose the names, so both the memory and the events are bounded. The bounds are the
//! queues that exist, and for each queue a number of functions and a time.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use asyncqueue::{
    FunctionName, QueueName,
    unknown_functions::{Outcome, Report},
};

/// A function that is deployed within this time is not named: it may already be in the directory,
/// without the gateway having read it.
const REPORT_DELAY: Duration = Duration::from_secs(5);

/// Minimum interval of events about one queue.
const EVENT_INTERVAL: Duration = Duration::from_secs(60);

/// Time after which a function is named again. An API server keeps an event that long by default.
const REPEAT_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Maximum number of functions that are stored for one queue. Others are not named until some of
/// these are removed.
const MAX_FUNCTIONS: usize = 64;

/// The reports, by queue.
#[derive(Debug, Default)]
pub(super) struct Pending {
    queues: HashMap<QueueName, Reported>,
}

/// The reports about one queue.
#[derive(Debug)]
struct Reported {
    /// What the gateway last did with the calls.
    outcome: Outcome,
    /// Functions that no event has named yet, with the time of their first report.
    waiting: BTreeMap<FunctionName, Instant>,
    /// Functions that an event has named, with its time.
    named: HashMap<FunctionName, Instant>,
    /// Time of the last event.
    event_at: Option<Instant>,
}

/// An event that is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) queue: QueueName,
    pub(super) outcome: Outcome,
    /// The functions to name: at least one, in order.
    pub(super) functions: Vec<FunctionName>,
}

// === impl Pending ===

impl Pending {
    /// Records a report about a queue that exists.
    pub(super) fn record(&mut self, queue: QueueName, report: Report, now: Instant) {
        let reported = self.queues.entry(queue).or_insert_with(|| Reported::new(report.outcome));
        reported.outcome = report.outcome;
        for function in report.functions {
            reported.add(function, now);
        }
    }

    /// Returns the events that are due, each of them once. `exists` says whether a function exists.
    pub(super) fn due(&mut self, exists: impl Fn(&FunctionName) -> bool, now: Instant) -> Vec<Due> {
        let due = self.queues.iter_mut().filter_map(|(queue, reported)| {
            let functions = reported.due(&exists, now);
            let (queue, outcome) = (queue.clone(), reported.outcome);
            (!functions.is_empty()).then_some(Due { queue, outcome, functions })
        });
        let due = due.collect();
        self.queues.retain(|_, reported| !reported.is_expired(now));
        due
    }
}

// === impl Reported ===

impl Reported {
    fn new(outcome: Outcome) -> Self {
        Self { outcome, waiting: BTreeMap::new(), named: HashMap::new(), event_at: None }
    }

    fn add(&mut self, function: FunctionName, now: Instant) {
        let has_room = self.waiting.len() + self.named.len() < MAX_FUNCTIONS;
        if has_room && !self.named.contains_key(&function) {
            self.waiting.entry(function).or_insert(now);
        }
    }

    /// Returns the functions that an event names now.
    fn due(&mut self, exists: impl Fn(&FunctionName) -> bool, now: Instant) -> Vec<FunctionName> {
        // A function that was deployed and is removed again is reported again.
        self.waiting.retain(|function, _| !exists(function));
        self.named
            .retain(|function, at| now.duration_since(*at) < REPEAT_INTERVAL && !exists(function));
        if self.event_at.is_some_and(|at| now.duration_since(at) < EVENT_INTERVAL) {
            return Vec::new();
        }
        let is_due = |since: &Instant| now.duration_since(*since) >= REPORT_DELAY;
        let due: Vec<FunctionName> = self
            .waiting
            .iter()
            .filter(|(_, since)| is_due(since))
            .map(|(name, _)| name.clone())
            .collect();
        for function in &due {
            self.waiting.remove(function);
            self.named.insert(function.clone(), now);
        }
        if !due.is_empty() {
            self.event_at = Some(now);
        }
        due
    }

    /// Returns whether no entry is needed any more.
    fn is_expired(&self, now: Instant) -> bool {
        let is_quiet = self.event_at.is_none_or(|at| now.duration_since(at) >= EVENT_INTERVAL);
        is_quiet && self.waiting.is_empty() && self.named.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str) -> FunctionName {
        FunctionName::new(name, "openfaas-fn").unwrap()
    }

    /// Records a report about `jobs`.
    fn record(pending: &mut Pending, names: &[&str], now: Instant) {
        let functions = names.iter().map(|name| function(name)).collect();
        pending.record(
            "jobs".parse().unwrap(),
            Report { outcome: Outcome::Accepted, functions },
            now,
        );
    }

    /// Returns the names in the events that are due, if these functions exist.
    fn due(pending: &mut Pending, existing: &[&str], now: Instant) -> Vec<Vec<String>> {
        let existing: Vec<_> = existing.iter().map(|name| function(name)).collect();
        let due = pending.due(|function| existing.contains(function), now);
        let names =
            |due: Due| due.functions.iter().map(|function| function.name().to_owned()).collect();
        due.into_iter().map(names).collect()
    }

    #[test]
    fn a_function_is_named_once_after_a_delay() {
        let (mut pending, start) = (Pending::default(), Instant::now());
        record(&mut pending, &["slwo"], start);
        assert_eq!(due(&mut pending, &[], start), [[""; 0]; 0]);
        assert_eq!(due(&mut pending, &[], start + REPORT_DELAY), [["slwo"]]);
        // More calls change nothing.
        for minute in 1..60 {
            record(&mut pending, &["slwo"], start + minute * EVENT_INTERVAL);
            assert_eq!(
                due(&mut pending, &[], start + minute * EVENT_INTERVAL + REPORT_DELAY),
                [[""; 0]; 0],
                "{minute}"
            );
        }
        // By then its event has expired.
        let later = start + REPORT_DELAY + REPEAT_INTERVAL;
        assert_eq!(due(&mut pending, &[], later), [[""; 0]; 0]);
        record(&mut pending, &["slwo"], later);
        assert_eq!(due(&mut pending, &[], later + REPORT_DELAY), [["slwo"]]);
    }

    #[test]
    fn a_function_deployed_in_time_is_not_named() {
        let (mut pending, start) = (Pending::default(), Instant::now());
        record(&mut pending, &["new", "slwo"], start);
        assert_eq!(due(&mut pending, &["new"], start + REPORT_DELAY), [["slwo"]]);
        // A function that was deployed and is removed again is reported again.
        assert_eq!(due(&mut pending, &["slwo"], start + EVENT_INTERVAL), [[""; 0]; 0]);
        record(&mut pending, &["slwo"], start + EVENT_INTERVAL);
        assert_eq!(due(&mut pending, &[], start + EVENT_INTERVAL + REPORT_DELAY), [["slwo"]]);
    }

    #[test]
    fn events_about_a_queue_have_a_minimum_interval() {
        let (mut pending, start) = (Pending::default(), Instant::now());
        record(&mut pending, &["a"], start);
        assert_eq!(due(&mut pending, &[], start + REPORT_DELAY), [["a"]]);
        record(&mut pending, &["c", "b"], start + REPORT_DELAY);
        assert_eq!(due(&mut pending, &[], start + 2 * REPORT_DELAY), [[""; 0]; 0]);
        assert_eq!(due(&mut pending, &[], start + REPORT_DELAY + EVENT_INTERVAL), [["b", "c"]]);
    }

    #[test]
    fn invented_names_are_bounded() {
        let (mut pending, start) = (Pending::default(), Instant::now());
        let (mut now, mut named, mut events) = (start, 0, 0);
        for number in 0..10_000 {
            record(&mut pending, &[&format!("invented-{number}")], now);
            for names in due(&mut pending, &[], now) {
                events += 1;
                named += names.len();
            }
            now += Duration::from_millis(300);
        }
        assert!(now < start + REPEAT_INTERVAL);
        assert_eq!(named, MAX_FUNCTIONS);
        assert!((1..=MAX_FUNCTIONS).contains(&events), "{events}");
        let stored: usize =
            pending.queues.values().map(|queue| queue.waiting.len() + queue.named.len()).sum();
        assert_eq!(stored, MAX_FUNCTIONS);
        // Every entry expires.
        assert_eq!(due(&mut pending, &[], now + REPEAT_INTERVAL), [[""; 0]; 0]);
        assert!(pending.queues.is_empty());
    }

    #[test]
    fn each_queue_has_its_own_event() {
        let (mut pending, start) = (Pending::default(), Instant::now());
        for (queue, outcome) in [("a", Outcome::Accepted), ("b", Outcome::Rejected)] {
            let report = Report { outcome, functions: vec![function("slwo")] };
            pending.record(queue.parse().unwrap(), report, start);
        }
        let mut due = pending.due(|_| false, start + REPORT_DELAY);
        due.sort_by(|a, b| a.queue.cmp(&b.queue));
        let expected =
            [("a", Outcome::Accepted), ("b", Outcome::Rejected)].map(|(queue, outcome)| Due {
                queue: queue.parse().unwrap(),
                outcome,
                functions: vec![function("slwo")],
            });
        assert_eq!(due, expected);
    }
}
