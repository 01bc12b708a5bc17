//! The records that a worker stores for a call whose end is known.

/// Says what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Record {
    /// The result of a call, for its client.
    Result,
    /// The result of a call, kept for its client. It is disposable.
    KeptResult,
    /// A dead letter.
    DeadLetter,
    /// The mark that a call is dead or expired.
    Tombstone,
    /// How many deliveries of a call did not count as attempts.
    AttemptOffset,
    /// How a call of a batch has ended.
    BatchEnd,
}

// === impl Record ===

impl Record {
    /// All kinds of records.
    pub(crate) const ALL: [Self; 6] = [
        Self::Result,
        Self::KeptResult,
        Self::DeadLetter,
        Self::Tombstone,
        Self::AttemptOffset,
        Self::BatchEnd,
    ];

    /// Returns whether a call ends without this record while there is no room for it. The room that
    /// is left is for other records.
    pub(crate) fn is_disposable(self) -> bool {
        self == Self::KeptResult
    }

    /// Returns the value of a metric's label for this record.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Result => "result",
            Self::KeptResult => "kept_result",
            Self::DeadLetter => "dead_letter",
            Self::Tombstone => "tombstone",
            Self::AttemptOffset => "attempt_offset",
            Self::BatchEnd => "batch_end",
        }
    }

    /// Describes the record in messages, with its article.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Result => "the result",
            Self::KeptResult => "the result that is kept",
            Self::DeadLetter => "the dead letter",
            Self::Tombstone => "the mark that the call has ended",
            Self::AttemptOffset => "the attempt offset",
            Self::BatchEnd => "the end in the batch",
        }
    }
}
