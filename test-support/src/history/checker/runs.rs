//! The invocations of a call, put together from its steps.

use std::time::Duration;

use crate::history::{event::Step, trace::RESENT_WITHIN};

/// One invocation of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) number: u64,
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

/// How many invocations were sent once more within the same attempt: a worker does so at once, on a
/// new connection, where the function closed a kept-alive one without a byte of an answer.
pub(super) fn resent(runs: &[Run]) -> u64 {
    let (mut count, mut is_second) = (0, false);
    for pair in runs.windows(2) {
        let failed_at = match pair[0].end {
            Some((at, RunEnd::Failed)) => Some(at),
            _ => None,
        };
        // The second is on a connection of its own.
        is_second = !is_second && failed_at.is_some_and(|at| pair[1].started <= at + RESENT_WITHIN);
        count += u64::from(is_second);
    }
    count
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
