//! The goals of the project, and whether they are met.

use super::{Part, printed, table};

/// What a figure should be.
#[derive(Clone, Copy, Debug)]
enum Bound {
    AtLeast(f64),
    MoreThan(f64),
    AtMost(f64),
}

/// A figure, where it stands, and what it should be.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    about: &'static str,
    part: &'static str,
    row: &'static str,
    column: &'static str,
    bound: Bound,
}

const fn goal(
    about: &'static str,
    part: &'static str,
    row: &'static str,
    column: &'static str,
    bound: Bound,
) -> Goal {
    Goal { about, part, row, column, bound }
}

const RATE_64: &str = "calls/s, 64 connections, 256 bytes";
const RATE_256: &str = "calls/s, 256 connections, 256 bytes";

/// All of them.
pub const GOALS: [Goal; 22] = [
    goal(
        "gateway: calls/s, 64 connections",
        "gateway",
        RATE_64,
        "gateway",
        Bound::MoreThan(28_000.0),
    ),
    goal(
        "gateway: of the bare limit, 64 connections",
        "gateway",
        RATE_64,
        "ratio",
        Bound::AtLeast(0.8),
    ),
    goal(
        "gateway: calls/s, 256 connections",
        "gateway",
        RATE_256,
        "gateway",
        Bound::MoreThan(28_000.0),
    ),
    goal(
        "gateway: of the bare limit, 256 connections",
        "gateway",
        RATE_256,
        "ratio",
        Bound::AtLeast(0.8),
    ),
    goal("gateway: idle, MB", "gateway", "resident MB, idle", "gateway", Bound::AtMost(10.0)),
    goal("worker: calls/s", "worker", "median", "worker, calls/s", Bound::MoreThan(15_000.0)),
    goal("worker: of the limit", "worker", "median", "ratio", Bound::AtLeast(0.65)),
    goal(
        "worker: p50 from submit to arrival at 1,000 calls/s, ms",
        "worker",
        "p50 from submit to arrival at the function, ms, 1000 calls/s",
        "worker",
        Bound::AtMost(0.3),
    ),
    goal(
        "worker: p99 of the same, ms",
        "worker",
        "p99 from submit to arrival at the function, ms, 1000 calls/s",
        "worker",
        Bound::AtMost(2.0),
    ),
    goal(
        "worker: next to 20,000 calls of a function at zero, of the rate without them",
        "worker",
        "calls/s next to 20000 calls of a function at zero",
        "ratio",
        Bound::AtLeast(0.9),
    ),
    goal("worker: idle, MB", "worker", "resident MB, idle", "worker", Bound::AtMost(10.0)),
    goal(
        "operator: 1,000 queues ready, s",
        "operator",
        "1000",
        "all ready after, s",
        Bound::AtMost(15.0),
    ),
    goal(
        "operator: with 1,000 queues, API writes in steady state",
        "operator",
        "1000",
        ": API writes",
        Bound::AtMost(0.0),
    ),
    goal("the same, JetStream writes", "operator", "1000", "JetStream writes", Bound::AtMost(0.0)),
    goal(
        "operator: with 10,000 queues, MB",
        "operator",
        "10000",
        "resident, MB",
        Bound::AtMost(96.0),
    ),
    goal(
        "operator: with 10,000 queues, API writes in steady state",
        "operator",
        "10000",
        ": API writes",
        Bound::AtMost(0.0),
    ),
    goal("the same, JetStream writes", "operator", "10000", "JetStream writes", Bound::AtMost(0.0)),
    goal(
        "results: p50 from submit to the result of a function of 1 ms at 500 calls/s, ms",
        "results",
        "submit to result, Prefer: wait=5, 500/s",
        "p50, ms",
        Bound::AtMost(1.2),
    ),
    goal(
        "results: p99 of the same, ms",
        "results",
        "submit to result, Prefer: wait=5, 500/s",
        "p99, ms",
        Bound::AtMost(10.0),
    ),
    goal(
        "results: p50 of reading a kept result, ms",
        "results",
        "a kept result is read",
        "p50, ms",
        Bound::AtMost(0.3),
    ),
    goal(
        "results: dispatch with results kept, of that without",
        "results",
        "results kept",
        "of those without",
        Bound::AtLeast(0.4),
    ),
    goal(
        "results: dispatch where nothing is kept, of that without the feature",
        "results",
        "no results, spec.results set",
        "of those without",
        Bound::AtLeast(0.95),
    ),
];

impl Goal {
    /// Its line in the report.
    #[must_use]
    pub fn row(&self, parts: &[Part]) -> String {
        let Self { about, bound, .. } = self;
        let measured =
            printed(parts, self.part).and_then(|text| table::find(text, self.row, self.column));
        match measured {
            Some(figure) => {
                format!("| {about} | {bound} | {figure} | {} |\n", bound.verdict(figure))
            }
            None => format!("| {about} | {bound} | not measured | |\n"),
        }
    }
}

impl Bound {
    fn verdict(self, figure: f64) -> String {
        let (met, times) = match self {
            Self::AtLeast(goal) => (figure >= goal, figure / goal),
            Self::MoreThan(goal) => (figure > goal, figure / goal),
            Self::AtMost(goal) => (figure <= goal, figure / goal),
        };
        match (met, times.is_finite()) {
            (true, _) => "met".to_owned(),
            (false, true) => format!("missed: {} times the goal", (times * 100.0).round() / 100.0),
            // None was asked for.
            (false, false) => "missed".to_owned(),
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(goal) => write!(f, "at least {goal}"),
            Self::MoreThan(goal) => write!(f, "more than {goal}"),
            Self::AtMost(goal) if *goal == 0.0 => write!(f, "none"),
            Self::AtMost(goal) => write!(f, "at most {goal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_met_at_its_bound_and_the_distance_is_said_beyond() {
        assert_eq!(Bound::AtMost(8.0).verdict(8.0), "met");
        assert_eq!(Bound::AtMost(8.0).verdict(10.0), "missed: 1.25 times the goal");
        assert_eq!(Bound::AtLeast(0.8).verdict(0.8), "met");
        assert_eq!(Bound::MoreThan(100.0).verdict(100.0), "missed: 1 times the goal");
        assert_eq!(Bound::MoreThan(100.0).verdict(72.0), "missed: 0.72 times the goal");
        assert_eq!(Bound::AtMost(0.0).verdict(0.0), "met");
        assert_eq!(Bound::AtMost(0.0).verdict(3.0), "missed");
    }
}
