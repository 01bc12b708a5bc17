//! The lanes of the queue, and how many calls wait in each. A queue without lanes has no series of
//! these. The number of series is bounded by the number of lanes.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use async_nats::jetstream::consumer::Info;
use asyncqueue::{
    FunctionName, QueueName,
    lanes::{LaneCounts, MAX_MAX_LANES, function_of_lane},
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{FunctionLabels, QueueLabels};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LaneLabels {
    queue_name: Arc<str>,
    kind: &'static str,
}

/// What the consumers of a queue say of its lanes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Lanes {
    counts: LaneCounts,
    /// How many calls wait, by function. Functions that share a lane are not in it: the server
    /// knows their sum only.
    waiting: Vec<(FunctionName, u64)>,
}

/// The metrics of lanes.
#[derive(Clone, Debug)]
pub(super) struct LaneGauges {
    queue: Arc<str>,
    lanes: Family<LaneLabels, Gauge>,
    sharing: Family<QueueLabels, Gauge>,
    /// The functions that have a series of their waiting calls.
    functions: Arc<Mutex<BTreeSet<String>>>,
}

// === impl Lanes ===

impl Lanes {
    /// Reads the lanes among the consumers of the queue's stream.
    pub(crate) fn new(queue: &QueueName, consumers: &[Info]) -> Self {
        let waiting = consumers
            .iter()
            .filter_map(|info| Some((function_of_lane(queue, &info.name)?, info.num_pending)))
            .take(MAX_MAX_LANES)
            .collect();
        Self { counts: LaneCounts::new(queue, consumers), waiting }
    }
}

// === impl LaneGauges ===

impl LaneGauges {
    pub(super) fn new(queue: Arc<str>) -> Self {
        Self {
            queue,
            lanes: Family::default(),
            sharing: Family::default(),
            functions: Arc::default(),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "lanes",
            "Lanes of the queue, by kind: own, of one function, or shared. Only with fairness \
             between functions",
            self.lanes.clone(),
        );
        registry.register(
            "functions_sharing_lanes",
            "Functions that share a lane, because there are too many for lanes of their own",
            self.sharing.clone(),
        );
    }

    /// Sets the numbers of lanes, and the series of functions in `pending`; `None` for a queue
    /// without lanes.
    pub(super) fn set(&self, lanes: Option<&Lanes>, pending: &Family<FunctionLabels, Gauge>) {
        let number = |count| i64::try_from(count).unwrap_or(i64::MAX);
        let Some(Lanes { counts, waiting }) = lanes else {
            self.lanes.clear();
            self.sharing.clear();
            self.keep_functions(BTreeSet::new(), pending);
            return;
        };
        for (kind, count) in [("own", counts.own), ("shared", counts.shared)] {
            let queue_name = self.queue.clone();
            let gauge = self.lanes.get_or_create_owned(&LaneLabels { queue_name, kind });
            gauge.set(number(count as u64));
        }
        let of_queue = QueueLabels { queue_name: self.queue.clone() };
        self.sharing.get_or_create_owned(&of_queue).set(number(counts.sharing as u64));
        let functions = waiting.iter().map(|(function, _)| function.to_string()).collect();
        self.keep_functions(functions, pending);
        for (function, count) in waiting {
            pending.get_or_create_owned(&self.labels(function.to_string())).set(number(*count));
        }
    }

    /// Removes the series of all other functions.
    fn keep_functions(&self, current: BTreeSet<String>, pending: &Family<FunctionLabels, Gauge>) {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *functions, current);
        for gone in before.difference(&functions) {
            pending.remove(&self.labels(gone.clone()));
        }
    }

    fn labels(&self, function_name: String) -> FunctionLabels {
        FunctionLabels { queue_name: self.queue.clone(), function_name }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    fn lanes(waiting: &[(&str, u64)], sharing: usize) -> Lanes {
        let counts = LaneCounts { own: waiting.len(), shared: usize::from(sharing > 0), sharing };
        let function = |name: &str| FunctionName::new(name, "ns").unwrap();
        let waiting = waiting.iter().map(|(name, count)| (function(name), *count)).collect();
        Lanes { counts, waiting }
    }

    #[test]
    fn a_function_has_a_series_while_it_has_a_lane() {
        let (gauges, pending) = (LaneGauges::new("jobs".into()), Family::<_, Gauge>::default());
        let mut registry = Registry::default();
        registry.register("pending", "Calls", pending.clone());
        gauges.register(&mut registry);
        let all = FunctionLabels { queue_name: "jobs".into(), function_name: String::new() };
        pending.get_or_create_owned(&all).set(12);
        let text = |lanes: Option<&Lanes>| {
            gauges.set(lanes, &pending);
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            text
        };
        let of = |name: &str| format!("pending{{queue_name=\"jobs\",function_name=\"{name}\"}}");
        let both = text(Some(&lanes(&[("a", 2), ("b", 3)], 4)));
        for line in [
            of("") + " 12",
            of("a.ns") + " 2",
            of("b.ns") + " 3",
            "lanes{queue_name=\"jobs\",kind=\"own\"} 2".to_owned(),
            "lanes{queue_name=\"jobs\",kind=\"shared\"} 1".to_owned(),
            "functions_sharing_lanes{queue_name=\"jobs\"} 4".to_owned(),
        ] {
            assert!(both.contains(&line), "{line} in\n{both}");
        }
        let one = text(Some(&lanes(&[("b", 0)], 0)));
        assert!(!one.contains(&of("a.ns")) && one.contains(&(of("b.ns") + " 0")), "{one}");
        let none = text(None);
        assert!(none.contains(&of("")) && !none.contains("ns\""), "{none}");
        assert!(!none.contains("lanes{"), "{none}");
    }
}
