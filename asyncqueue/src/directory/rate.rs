//! How many invocations start.

use serde::{Deserialize, Serialize};

/// Maximum of the fields of [`Rate`].
pub const MAX_RATE: u32 = 100_000;

/// How many invocations start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rate {
    /// Number of invocations in a second, on average.
    pub per_second: u32,
    /// Number of invocations that may start at once after a pause. Default: those of a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
}

impl Rate {
    /// Returns the number of invocations that may start at once.
    #[must_use]
    pub fn burst(&self) -> u32 {
        self.burst.unwrap_or(self.per_second)
    }

    /// Returns the first field that is out of range, and its value.
    pub(super) fn invalid_field(&self) -> Option<(&'static str, u32)> {
        let fields = [("perSecond", self.per_second), ("burst", self.burst())];
        fields.into_iter().find(|(_, number)| !(1..=MAX_RATE).contains(number))
    }
}
