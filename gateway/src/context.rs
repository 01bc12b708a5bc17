//! What is known about a request while it is handled.

use asyncqueue::{CallId, batch::BatchId};
use http::{HeaderMap, header};
use jiff::Timestamp;
use tracing::field::{DisplayValue, display};

/// The facts about a request that its response repeats, or that decide its form.
#[derive(Clone, Debug)]
pub(crate) struct RequestContext {
    /// The call's id, once it is known.
    pub(crate) call_id: Option<CallId>,
    /// The batch's id, once it is known.
    pub(crate) batch_id: Option<BatchId>,
    /// When the request arrived.
    pub(crate) started_at: Timestamp,
    /// Whether the client reads errors as JSON.
    pub(crate) accepts_problem_json: bool,
}

// === impl RequestContext ===

impl RequestContext {
    /// Creates the context of a request that arrives now.
    #[must_use]
    pub(crate) fn new(headers: &HeaderMap) -> Self {
        Self {
            call_id: None,
            batch_id: None,
            started_at: Timestamp::now(),
            accepts_problem_json: accepts_problem_json(headers),
        }
    }

    /// Returns the call's id as a log field.
    pub(crate) fn logged_call_id(&self) -> Option<DisplayValue<&CallId>> {
        self.call_id.as_ref().map(display)
    }
}

/// Returns whether a client asks for JSON: `Accept` names a form of it, and not only `*/*`.
fn accepts_problem_json(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
        let is_excluded =
            parts.any(|part| part.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0)));
        matches!(&media_type[..], "application/json" | "application/problem+json") && !is_excluded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_sent_only_to_clients_that_name_it() {
        let accepts = |values: &[&str]| {
            let values = values.iter().map(|value| (header::ACCEPT, value.parse().unwrap()));
            accepts_problem_json(&values.collect())
        };
        for yes in ["application/json", "text/html, Application/Problem+JSON; q=0.5"] {
            assert!(accepts(&[yes]), "{yes}");
        }
        assert!(accepts(&["text/plain", "application/json"]));
        for no in [
            "*/*",
            "application/*",
            "text/plain",
            "application/json;q=0",
            "application/json-seq",
            "",
        ] {
            assert!(!accepts(&[no]), "{no}");
        }
        assert!(!accepts(&[]));
    }
}
