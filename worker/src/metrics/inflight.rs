//! Counts the calls that run now, by function. The number of series is bounded, whatever names
//! clients invent.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use asyncqueue::{FunctionName, directory::Directory};
use prometheus_client::metrics::{family::Family, gauge::Gauge};

use super::FunctionLabels;

/// The label of all functions that the directory does not have. No function has this name: a
/// function's name contains its namespace.
pub(super) const OTHER_FUNCTIONS: &str = "other";

/// The calls that run now, by function.
#[derive(Clone, Debug)]
pub(super) struct InflightGauges {
    queue: Arc<str>,
    pub(super) family: Family<FunctionLabels, Gauge>,
    /// The functions that have a series. The lock is held while a gauge is read from the family or
    /// removed from it, so that no call counts on a removed gauge.
    functions: Arc<Mutex<HashSet<FunctionName>>>,
}

/// One running call, counted until this is dropped.
pub(crate) struct InflightGuard(Gauge);

// === impl InflightGauges ===

impl InflightGauges {
    pub(super) fn new(queue: Arc<str>) -> Self {
        Self { queue, family: Family::default(), functions: Arc::default() }
    }

    /// Counts a call as running until the guard is dropped: by its function if the directory has
    /// it.
    pub(super) fn track(
        &self,
        function: &FunctionName,
        directory: Option<&Directory>,
    ) -> InflightGuard {
        let is_known =
            directory.is_some_and(|directory| directory.functions.contains_key(function));
        let name = if is_known { function.to_string() } else { OTHER_FUNCTIONS.to_owned() };
        let mut functions = self.lock();
        if is_known && !functions.contains(function) {
            functions.insert(function.clone());
        }
        let gauge = self.family.get_or_create_owned(&self.labels(name));
        gauge.inc();
        InflightGuard(gauge)
    }

    /// Removes the series of functions that have left the directory, once no call of theirs runs.
    pub(super) fn retain(&self, directory: &Directory) {
        self.lock().retain(|function| {
            let labels = self.labels(function.to_string());
            let is_kept = directory.functions.contains_key(function)
                || self.family.get_or_create(&labels).get() > 0;
            if !is_kept {
                self.family.remove(&labels);
            }
            is_kept
        });
    }

    fn labels(&self, function_name: String) -> FunctionLabels {
        FunctionLabels { queue_name: self.queue.clone(), function_name }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<FunctionName>> {
        self.functions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InflightGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use asyncqueue::directory::FunctionEntry;
    use prometheus_client::{encoding::text::encode, registry::Registry};

    use super::*;

    fn function(name: &str) -> FunctionName {
        FunctionName::new(name, "ns").unwrap()
    }

    fn directory(names: &[&str]) -> Directory {
        let functions = names.iter().map(|name| (function(name), FunctionEntry::default()));
        Directory { functions: functions.collect(), ..Directory::default() }
    }

    /// Returns the series as they are scraped: function and number.
    fn series(inflight: &InflightGauges) -> Vec<String> {
        let (mut registry, mut text) = (Registry::default(), String::new());
        registry.register("inflight", "help", inflight.family.clone());
        encode(&mut text, &registry).unwrap();
        let name = |line: &str| Some(line.split_once("function_name=\"")?.1.replace("\"}", ""));
        let mut series: Vec<_> = text.lines().filter_map(name).collect();
        series.sort();
        series
    }

    #[test]
    fn invented_names_share_a_series() {
        let inflight = InflightGauges::new("jobs".into());
        let directory = directory(&["known"]);
        let _known = inflight.track(&function("known"), Some(&directory));
        let invented: Vec<_> = (0..30_000)
            .map(|number| {
                inflight.track(&function(&format!("invented-{number}")), Some(&directory))
            })
            .collect();
        let _unread = inflight.track(&function("known"), None);
        assert_eq!(series(&inflight), ["known.ns 1", "other 30001"]);
        drop(invented);
        assert_eq!(series(&inflight), ["known.ns 1", "other 1"]);
    }

    #[test]
    fn a_removed_function_loses_its_series_when_idle() {
        let inflight = InflightGauges::new("jobs".into());
        let both = directory(&["busy", "idle"]);
        let busy = inflight.track(&function("busy"), Some(&both));
        drop(inflight.track(&function("idle"), Some(&both)));
        inflight.retain(&both);
        assert_eq!(series(&inflight), ["busy.ns 1", "idle.ns 0"]);
        inflight.retain(&directory(&[]));
        assert_eq!(series(&inflight), ["busy.ns 1"]);
        drop(busy);
        inflight.retain(&directory(&[]));
        assert_eq!(series(&inflight), [""; 0]);
    }
}
