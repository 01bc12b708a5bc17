//! The end states of a call. Each accepted call ends in exactly one of them.

use std::{fmt, str::FromStr};

/// The status that the client gets for a cancelled call: the client closed the request.
pub const CANCELLED_STATUS: u16 = 499;

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndState {
    /// The function answered with a status that is not retried.
    Done,
    /// The attempts of the call are exhausted.
    Dead,
    /// The call was cancelled.
    Cancelled,
    /// The call was older than its queue allows when it was delivered.
    Expired,
}

/// A text does not name an end state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("use done, dead, cancelled or expired")]
pub struct EndStateError;

impl EndState {
    /// All end states.
    pub const ALL: [Self; 4] = [Self::Done, Self::Dead, Self::Cancelled, Self::Expired];

    /// Returns the end state as messages, metrics and event ids spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }

    /// Describes the end, as what a sentence says of the call.
    #[must_use]
    pub fn description(self) -> &'static str {
        match self {
            Self::Done => "has run",
            Self::Dead => "is a dead letter",
            Self::Cancelled => "is cancelled",
            Self::Expired => "has expired: it was older than limits.maxAge of its queue",
        }
    }

    /// Returns the status that the client gets for a call that ended so without having run: 499 if
    /// the client cancelled it, as nginx names a request that the client closed, 504 if it waited
    /// for too long. `None` if the end itself says the status.
    #[must_use]
    pub fn status(self) -> Option<u16> {
        match self {
            Self::Done | Self::Dead => None,
            Self::Cancelled => Some(CANCELLED_STATUS),
            Self::Expired => Some(504),
        }
    }
}

impl fmt::Display for EndState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EndState {
    type Err = EndStateError;

    fn from_str(text: &str) -> Result<Self, EndStateError> {
        Self::ALL.into_iter().find(|end| end.as_str() == text).ok_or(EndStateError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_states_are_read_as_they_are_written() {
        for end in EndState::ALL {
            assert_eq!(end.to_string().parse(), Ok(end));
        }
        assert_eq!("Done".parse::<EndState>(), Err(EndStateError));
    }
}
