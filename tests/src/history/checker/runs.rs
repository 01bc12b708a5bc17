//! The invocations of a call, put together from its steps.

use std::time::Duration;

use crate::history::event::Step;

/// One invocation of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    number: u64,
    pub(super) started: Duration,
    /// When and how it ended; `None` while nothing was seen of that.
    pub(super) end: Option<(Duration, RunEnd)>,
}

/// How an invocation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunEnd {
    /// The function answered with this status.
    Returned(u16),
    /// The function broke off.
    Failed,
    /// The worker closed the connection.
    BrokenOff,
}

impl Run {
    /// Whether the function had answered before a time.
    pub(super) fn returned_before(&self, time: Duration) -> bool {
        matches!(self.end, Some((at, RunEnd::Returned(_))) if at < time)
    }
}

/// The invocations of a call, in the order of their starts.
pub(super) fn of(steps: &[(Duration, Step)]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (at, step) in steps {
        let (number, end) = match *step {
            Step::Started { run } => {
                runs.push(Run { number: run, started: *at, end: None });
                continue;
            }
            Step::Returned { run, status } => (run, RunEnd::Returned(status)),
            Step::Failed { run } => (run, RunEnd::Failed),
            Step::BrokenOff { run } => (run, RunEnd::BrokenOff),
            _ => continue,
        };
        if let Some(run) = runs.iter_mut().find(|run| run.number == number) {
            run.end = Some((*at, end));
        }
    }
    runs
}
