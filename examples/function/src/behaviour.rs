//! Reads from the query how to answer a call.

use std::time::Duration;

use asyncqueue::GoDuration;
use http::StatusCode;
use percent_encoding::percent_decode_str;

/// How a call is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Behaviour {
    /// Time that the call takes.
    pub(crate) sleep: Duration,
    /// The status of the response, or of the failures if `fail_times` is set.
    pub(crate) status: Option<StatusCode>,
    /// Number of calls with the same id that fail before one succeeds.
    pub(crate) fail_times: Option<u32>,
    /// The value of `Retry-After` on failures.
    pub(crate) retry_after: Option<String>,
    /// Whether the response is the request as JSON.
    pub(crate) echo_request: bool,
}

// === impl Behaviour ===

impl Behaviour {
    /// Reads a query. Unknown keys are ignored. A value that can't be read is an error that names
    /// it.
    pub(crate) fn parse(query: &str, default_sleep: Duration) -> Result<Self, String> {
        let mut behaviour = Self { sleep: default_sleep, ..Self::default() };
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode_str(value).decode_utf8_lossy();
            let invalid = |rule: &str| format!("{key} `{value}` is not valid: {rule}");
            match key {
                "sleep" => {
                    behaviour.sleep =
                        value.parse::<GoDuration>().map_err(|error| invalid(&error.to_string()))?.0;
                }
                "status" => {
                    // A status below 200 is not final.
                    let status =
                        value.parse().ok().filter(|status: &StatusCode| status.as_u16() >= 200);
                    behaviour.status = Some(status.ok_or_else(|| invalid("use 200 to 999"))?);
                }
                "fail_times" => {
                    behaviour.fail_times =
                        Some(value.parse().map_err(|_| invalid("use a number"))?);
                }
                "retry_after" => behaviour.retry_after = Some(value.into_owned()),
                "echo" => behaviour.echo_request = value == "request",
                _ => {}
            }
        }
        Ok(behaviour)
    }

    /// Returns the status of a call if `failures` calls with the same id failed before.
    pub(crate) fn status(&self, failures: u32) -> StatusCode {
        match (self.fail_times, self.status) {
            (Some(times), status) if failures < times => {
                status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
            }
            (None, Some(status)) => status,
            _ => StatusCode::OK,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<Behaviour, String> {
        Behaviour::parse(query, Duration::from_secs(1))
    }

    #[test]
    fn a_query_may_ask_for_anything_or_nothing() {
        let plain = parse("").unwrap();
        assert_eq!(plain, Behaviour { sleep: Duration::from_secs(1), ..Behaviour::default() });
        let all =
            parse("sleep=2s&status=500&fail_times=2&retry_after=Tue%2C%201&echo=request&other")
                .unwrap();
        assert_eq!(all.sleep, Duration::from_secs(2));
        assert_eq!(all.retry_after.as_deref(), Some("Tue, 1"));
        assert!(all.echo_request);
        for bad in ["sleep=2", "status=abc", "status=100", "fail_times=-1"] {
            let error = parse(bad).unwrap_err();
            assert!(error.starts_with(bad.split_once('=').unwrap().0), "{error}");
        }
    }

    #[test]
    fn a_call_fails_as_often_as_asked_and_then_succeeds() {
        let statuses =
            |query: &str| [0, 1, 2].map(|failures| parse(query).unwrap().status(failures).as_u16());
        assert_eq!(statuses(""), [200, 200, 200]);
        assert_eq!(statuses("status=404"), [404, 404, 404]);
        assert_eq!(statuses("fail_times=2"), [503, 503, 200]);
        assert_eq!(statuses("fail_times=1&status=429"), [429, 200, 200]);
    }
}
