//! Logs the attempts of calls.

use std::time::{Duration, Instant};

use asyncqueue::{FunctionName, Rounded, headers::X_OPENFAAS_INTERNAL};
use asyncqueue_runtime::log_limit::LogLimits;
use jiff::Timestamp;
use tracing::{debug, error, info, warn};

use super::Call;
use crate::{
    function::client::Reply,
    retry::outcome::{Outcome, PutOffReason},
};

/// Minimum time between two lines at info level about a function whose calls are put off.
pub(crate) const PUT_OFF_INTERVAL: Duration = Duration::from_secs(60);

/// Maximum length of a platform's error that is logged, in bytes.
const MAX_PLATFORM_ERROR: usize = 200;

/// Logs the line that people search for in `kubectl logs`.
pub(super) fn log_attempt(call: &Call, reply: &Reply, outcome: &Outcome) {
    let (function, call_id) = call.function_and_id();
    let attempt = call.attempts.number;
    let (name, status) = (function.name(), reply.end.status());
    let seconds = reply.duration.as_secs_f64();
    if reply.truncated {
        warn!(
            %call_id, %function, bytes = reply.body.len(),
            "the response of {name} exceeds max_response_bytes and is truncated"
        );
    }
    let error = reply.error.as_deref();
    match outcome {
        Outcome::Done => {
            info!(%call_id, %function, attempt, "Invoked {name} [{status}] in {seconds:.3}s");
        }
        Outcome::Retry { wait, not_counted_for: Some(rest) } => {
            let (wait, cause) = (Rounded(*wait), platform_error(reply));
            let until = Timestamp::now().saturating_add(*rest).unwrap_or(Timestamp::MAX);
            warn!(
                %call_id, %function, attempt,
                "Invoked {name} [{status}] in {seconds:.3}s, platform failed ({cause}): not \
                 counted as an attempt until {until:.0}, retrying in {wait}"
            );
        }
        Outcome::Retry { wait, not_counted_for: None } => {
            let wait = Rounded(*wait);
            warn!(
                %call_id, %function, attempt, error,
                "Invoked {name} [{status}] in {seconds:.3}s, retrying in {wait}"
            );
        }
        Outcome::Dead(reason) => {
            error!(
                %call_id, %function, attempt, error,
                "Invoked {name} [{status}] in {seconds:.3}s, moving the call to the dead-letter \
                 stream: {reason}"
            );
        }
    }
}

/// Logs that a function has refused a call, which is no attempt.
pub(super) fn log_refused(call: &Call, reply: &Reply) {
    let (function, call_id) = call.function_and_id();
    let status = reply.end.status();
    debug!(%call_id, %function, status, "{} has refused the call for now", function.name());
}

/// Logs that a call is put off: at info level once a minute for each function.
pub(super) fn log_put_off(
    call: &Call,
    reason: PutOffReason,
    wait: Duration,
    limits: &LogLimits<FunctionName>,
) {
    let (function, call_id) = call.function_and_id();
    let (name, wait, reason) = (function.name(), Rounded(wait), reason.description());
    if limits.allow(function, Instant::now()).is_some() {
        info!(
            %call_id, %function,
            "calls of {name} are put off, which is no attempt, this one for {wait}: {reason}"
        );
    } else {
        debug!(%call_id, %function, "put off for {wait}: {reason}");
    }
}

/// Logs that a delayed call is handed back until it is due, or for a part of that time.
pub(super) fn log_scheduled(call: &Call, wait: Duration) {
    let (function, call_id) = call.function_and_id();
    debug!(%call_id, %function, "scheduled: handed back for {}", Rounded(wait));
}

/// Returns what the platform says about its failure: the header that says so, and the first line of
/// the body.
fn platform_error(reply: &Reply) -> String {
    let by = reply
        .headers
        .get(X_OPENFAAS_INTERNAL)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let text = String::from_utf8_lossy(&reply.body[..reply.body.len().min(MAX_PLATFORM_ERROR)]);
    let line = text.lines().next().unwrap_or_default().trim();
    let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let colon = if line.is_empty() { "" } else { ": " };
    format!("X-OpenFaaS-Internal: {by}{colon}{line}")
}
