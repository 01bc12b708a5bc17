//! The exit codes of commands that print the result of a call.

use asyncqueue::{CallId, batch::CallEnd, message::kept_result::KeptResult};

/// There is no result, or it is that of a failure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ResultError {
    /// The call has not ended.
    #[error("call `{0}` has not ended: repeat the command later, or with a longer --wait")]
    Pending(CallId),
    /// The call has ended, and its result is not kept.
    #[error(
        "the result of call `{0}` is not kept, or not any more: submit the call with \
         X-Keep-Result, or raise spec.results.retention of its queue"
    )]
    NotKept(CallId),
    /// Nothing is known of the call. The text says where it was looked up.
    #[error("{0}")]
    NotFound(String),
    /// The result is that of a call that failed.
    #[error("call `{call_id}` ended as {}, with status {status}", .end.as_str())]
    Failed {
        /// The call's id.
        call_id: CallId,
        /// How it ended.
        end: CallEnd,
        /// The status of its result.
        status: u16,
    },
}

// === impl ResultError ===

impl ResultError {
    /// Returns the exit code of the program.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Pending(_) => 3,
            Self::NotKept(_) | Self::NotFound(_) => 4,
            Self::Failed { .. } => 5,
        }
    }

    /// Returns the error of a result that says that its call failed.
    pub(crate) fn of(result: &KeptResult) -> Option<Self> {
        let KeptResult { call_id, status, .. } = result;
        let end = CallEnd::new(result.end, *status);
        let failed = Self::Failed { call_id: call_id.clone(), end, status: *status };
        (end != CallEnd::Done).then_some(failed)
    }
}

#[cfg(test)]
mod tests {
    use asyncqueue::{EndState, FunctionName, Invocation};

    use super::*;

    #[test]
    fn only_a_call_that_is_done_has_no_error() {
        let function = FunctionName::new("figlet", "openfaas-fn").unwrap();
        let call = Invocation::new("id-1".parse().unwrap(), function, "");
        let error = |end, status| ResultError::of(&KeptResult::new(&call, 1, end, status));
        assert_eq!(error(EndState::Done, 200), None);
        assert_eq!(error(EndState::Done, 302), None);
        for (end, status, expected) in [
            (EndState::Done, 404, "ended as failed, with status 404"),
            (EndState::Dead, 500, "ended as dead, with status 500"),
            (EndState::Cancelled, 499, "ended as cancelled, with status 499"),
            (EndState::Expired, 504, "ended as expired, with status 504"),
        ] {
            let error = error(end, status).unwrap();
            assert_eq!(error.code(), 5);
            assert!(error.to_string().ends_with(expected), "{error}");
        }
    }
}
