//! Counts how messages ended, and reports the counts.

use anyhow::bail;
use tracing::info;

/// How a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TransferOutcome {
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
pub(super) struct TransferCounts {
    stored: u64,
    stored_before: u64,
    unusable: u64,
    uncertain: u64,
    left: u64,
}

/// The reason why a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndReason {
    /// The source is empty.
    Empty,
    /// A signal asked the drain to stop.
    Stopped,
}

// === impl TransferOutcome ===

impl TransferOutcome {
    /// Returns whether AsyncQueue has the message, so that its source need not keep it.
    pub(super) fn is_stored(self) -> bool {
        self != Self::Left
    }
}

// === impl TransferCounts ===

impl TransferCounts {
    /// Counts a message.
    pub(super) fn add(&mut self, outcome: TransferOutcome) {
        let count = match outcome {
            TransferOutcome::Stored => &mut self.stored,
            TransferOutcome::StoredBefore | TransferOutcome::EndedBefore => &mut self.stored_before,
            TransferOutcome::Unusable => &mut self.unusable,
            TransferOutcome::Uncertain => &mut self.uncertain,
            TransferOutcome::Left => &mut self.left,
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
    pub(super) fn to_result(
        &self,
        source: &str,
        reason: EndReason,
        follow: bool,
    ) -> anyhow::Result<()> {
        if self.left > 0 {
            bail!("{} messages are left on {source}: the log contains the reason", self.left);
        }
        match reason {
            EndReason::Stopped if !follow => {
                bail!("stopped before {source} was empty: run it again")
            }
            EndReason::Stopped | EndReason::Empty => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drain_fails_if_messages_are_left() {
        let result = |left: u64, reason, follow| {
            TransferCounts { left, ..TransferCounts::default() }.to_result("s", reason, follow)
        };
        assert!(result(0, EndReason::Empty, false).is_ok());
        assert!(result(0, EndReason::Stopped, true).is_ok());
        assert!(
            result(0, EndReason::Stopped, false)
                .unwrap_err()
                .to_string()
                .contains("before s was empty")
        );
        assert!(
            result(2, EndReason::Empty, false)
                .unwrap_err()
                .to_string()
                .contains("2 messages are left on s")
        );
    }

    #[test]
    fn each_outcome_is_counted() {
        let mut counts = TransferCounts::default();
        let all = [
            TransferOutcome::Stored,
            TransferOutcome::StoredBefore,
            TransferOutcome::EndedBefore,
            TransferOutcome::Unusable,
            TransferOutcome::Uncertain,
            TransferOutcome::Left,
        ];
        for outcome in all {
            counts.add(outcome);
        }
        let expected =
            TransferCounts { stored: 1, stored_before: 2, unusable: 1, uncertain: 1, left: 1 };
        assert_eq!(counts, expected);
        assert_eq!(all.map(TransferOutcome::is_stored), [true, true, true, true, true, false]);
    }
}
