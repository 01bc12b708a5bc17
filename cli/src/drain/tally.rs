//! How many messages ended in which way, and what is said of that.

use anyhow::bail;
use tracing::info;

/// How a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is a call now.
    Stored,
    /// It is on its queue already: a drain stored it that was interrupted before it recorded that.
    StoredBefore,
    /// It is recorded as stored, by a drain that was interrupted before it acknowledged it.
    EndedBefore,
    /// It cannot be a call: it is a dead letter now.
    Unusable,
    /// It may have been stored before and have ended since: it is a dead letter now.
    Uncertain,
    /// It can be neither a call nor a dead letter: it stays where it is.
    Left,
}

/// How many messages ended in which way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    stored: u64,
    stored_before: u64,
    unusable: u64,
    uncertain: u64,
    left: u64,
}

/// Why a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The source is empty.
    Empty,
    /// A signal asked it to stop.
    Stopped,
}

// === impl Outcome ===

impl Outcome {
    /// Whether the message is kept here, so that its source need not.
    pub(super) fn is_kept(self) -> bool {
        self != Self::Left
    }
}

// === impl Tally ===

impl Tally {
    /// Counts a message.
    pub(super) fn add(&mut self, outcome: Outcome) {
        let count = match outcome {
            Outcome::Stored => &mut self.stored,
            Outcome::StoredBefore | Outcome::EndedBefore => &mut self.stored_before,
            Outcome::Unusable => &mut self.unusable,
            Outcome::Uncertain => &mut self.uncertain,
            Outcome::Left => &mut self.left,
        };
        *count += 1;
    }

    /// How many stay where they are.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// Logs the counts.
    pub(super) fn log(&self, what: &str) {
        let Self { stored, stored_before, unusable, uncertain, left } = self;
        info!(stored, stored_before, unusable, uncertain, left, "{what}");
    }

    /// Says how a drain ended: an error where something is left to do.
    pub(super) fn conclude(&self, source: &str, why: Why, follow: bool) -> anyhow::Result<()> {
        if self.left > 0 {
            bail!("{} messages are left on {source}: the log says why", self.left);
        }
        match why {
            Why::Stopped if !follow => bail!("stopped before {source} was empty: run it again"),
            Why::Stopped | Why::Empty => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_fails_where_something_is_left_to_do() {
        let ends = |left: u64, why, follow| Tally { left, ..Tally::default() }.conclude("s", why, follow);
        assert!(ends(0, Why::Empty, false).is_ok());
        assert!(ends(0, Why::Stopped, true).is_ok());
        assert!(ends(0, Why::Stopped, false).unwrap_err().to_string().contains("before s was empty"));
        assert!(ends(2, Why::Empty, false).unwrap_err().to_string().contains("2 messages are left on s"));
    }

    #[test]
    fn each_outcome_is_counted_apart() {
        let mut tally = Tally::default();
        let all = [
            Outcome::Stored,
            Outcome::StoredBefore,
            Outcome::EndedBefore,
            Outcome::Unusable,
            Outcome::Uncertain,
            Outcome::Left,
        ];
        for outcome in all {
            tally.add(outcome);
        }
        let expected = Tally { stored: 1, stored_before: 2, unusable: 1, uncertain: 1, left: 1 };
        assert_eq!(tally, expected);
        assert_eq!(all.map(Outcome::is_kept), [true, true, true, true, true, false]);
    }
}
