//! Remembers the failed attempts of this worker, for questions about a call.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use asyncqueue::{
    CallId,
    call::CallRef,
    failed_attempts::{FailedAttempt, Tried, asked_for},
};
use bytes::Bytes;
use jiff::Timestamp;

/// Maximum number of attempts that are remembered: about 2 MB, and at most 10 MB with the longest
/// ids and errors.
const MAX_ATTEMPTS: usize = 10_000;

/// Maximum length of the remembered cause of a failed attempt, in characters.
pub(crate) const MAX_ERROR_CHARS: usize = 200;

/// The last failed attempts of this worker. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct FailedAttempts(Arc<Mutex<VecDeque<(CallId, FailedAttempt)>>>);

// === impl FailedAttempts ===

impl FailedAttempts {
    /// Remembers an attempt that has failed now.
    pub(crate) fn record(&self, call: &CallRef, of: Tried, attempt: u64, status: u16, error: &str) {
        let error = error.chars().take(MAX_ERROR_CHARS).collect();
        let CallRef { id, sequence } = call.clone();
        let failed = FailedAttempt { sequence, of, attempt, at: Timestamp::now(), status, error };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_ATTEMPTS {
            all.pop_front();
        }
        all.push_back((id, failed));
    }

    /// Answers the question for the failed attempts of a call; `None` if it is another question.
    pub(crate) fn answer(&self, request: &[u8]) -> Option<Bytes> {
        let call = asked_for(request)?;
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_call: Vec<&FailedAttempt> =
            all.iter().filter(|(id, _)| *id == call).map(|(_, failed)| failed).collect();
        serde_json::to_vec(&of_call).ok().map(Bytes::from)
    }
}

#[cfg(test)]
mod tests {
    use asyncqueue::failed_attempts::question;

    use super::*;

    fn call(id: &str) -> CallRef {
        CallRef { id: id.parse().unwrap(), sequence: 7 }
    }

    fn answer(failed: &FailedAttempts, id: &str) -> Vec<FailedAttempt> {
        let answer = failed.answer(question(&id.parse().unwrap()).as_bytes()).unwrap();
        serde_json::from_slice(&answer).unwrap()
    }

    #[test]
    fn attempts_of_a_call_are_answered_in_order() {
        let failed = FailedAttempts::default();
        failed.record(&call("a"), Tried::Call, 1, 500, "it failed");
        failed.record(&call("b"), Tried::Call, 1, 500, "it failed");
        failed.record(&call("a"), Tried::Callback, 1, 503, &"é".repeat(900));
        let [first, second] = &answer(&failed, "a")[..] else { panic!("two attempts") };
        assert_eq!(
            (first.sequence, first.of, first.attempt, first.status),
            (7, Tried::Call, 1, 500)
        );
        assert_eq!((second.of, second.error.chars().count()), (Tried::Callback, MAX_ERROR_CHARS));
        assert!(answer(&failed, "c").is_empty());
        assert_eq!(failed.answer(b"stats"), None);
    }

    #[test]
    fn number_of_attempts_is_bounded() {
        let failed = FailedAttempts::default();
        failed.record(&call("first"), Tried::Call, 1, 500, "");
        for _ in 0..MAX_ATTEMPTS {
            failed.record(&call("a"), Tried::Call, 1, 500, "");
        }
        assert!(answer(&failed, "first").is_empty());
        assert_eq!(answer(&failed, "a").len(), MAX_ATTEMPTS);
    }
}
