//! Counts how messages ended, and reports the counts.

use anyhow::bail;
use tracing::info;

/// How a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is now a call.
    Stored,
    /// It is already on its queue: an earlier drain stored it, and was interrupted before it
    /// recorded that.
    StoredBefore,
    /// It is recorded as stored by an earlier drain, which was interrupted before it acknowledged
    /// the message.
    EndedBefore,
    /// It cannot be a call: it is now a dead letter.
    Unusable,
    /// It may have been stored before and have ended since: it is now a dead letter.
    Uncertain,
    /// It can be neither a call nor a dead letter: it stays at its source.
    Left,
}

/// The number of messages by outcome.
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
    /// A signal asked the drain to stop.
    Stopped,
}

// === impl Outcome ===

impl Outcome {
    /// Returns whether AsyncQueue has the message, so that its source need not keep it.
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

    /// Returns how many messages stay at their source.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// Logs the counts.
    pub(super) fn log(&self, what: &str) {
        let Self { stored, stored_before, unusable, uncertain, left } = self;
        info!(stored, stored_before, unusable, uncertain, left, "{what}");
    }

    /// Reports how a drain ended. Returns an error if messages are left, or if the drain was
    /// stopped before the source was empty, unless it runs with `--follow`.
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
        let ends =
            |left: u64, why, follow| Tally { left, ..Tally::default() }.conclude("s", why, follow);
        assert!(ends(0, Why::Empty, false).is_ok());
        assert!(ends(0, Why::Stopped, true).is_ok());
        assert!(
            ends(0, Why::Stopped, false).unwrap_err().to_string().contains("before s was empty")
        );
        assert!(
            ends(2, Why::Empty, false)
                .unwrap_err()
                .to_string()
                .contains("2 messages are left on s")
        );
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
