//! Handles requests about one call: its status and its cancellation.

use std::time::Duration;

use async_nats::{connection::State, jetstream::Context};
use asyncqueue::{
    QueueName,
    call::{CallQuery, CallStatus, CandidateQueues, Lookup},
    cancel::{self, CancelCounts, CancelOutcome},
    directory::Directory,
    lookup::{candidate_queues, find_call, remembered_end},
    status,
};
use tokio::sync::SemaphorePermit;

use crate::{
    concurrency_limit::ConcurrencyLimit,
    rejection::Rejection,
    route::FunctionPath,
    submission::{call_id, function_name},
};

/// Maximum number of concurrent lookups. Each needs a few NATS requests, or a few for each queue,
/// and must leave capacity for storing calls.
const MAX_CONCURRENT_LOOKUPS: usize = 64;

/// Maximum number of concurrent questions to workers about calls that are not found. Each waits up
/// to 250 ms for their replies. Above the limit, such a call is unknown.
const MAX_CONCURRENT_QUESTIONS: usize = 256;

/// Looks up calls.
#[derive(Debug)]
pub(crate) struct Lookups {
    js: Context,
    limit: ConcurrencyLimit,
    questions: ConcurrencyLimit,
    /// Maximum time that a cancellation waits for its confirmation.
    cancel_timeout: Duration,
}

/// Parses the path of a call: `/async-function/CALL-ID[?function=NAME]` or
/// `/async-function/NAME/CALL-ID`. Returns `None` for a longer path. `namespace` is that of a
/// function named without one.
pub(crate) fn call_query(
    call: FunctionPath<'_>,
    query: Option<&str>,
    namespace: &str,
) -> Result<Option<CallQuery>, Rejection> {
    let function = |name| function_name(name, namespace).map(Some);
    let (function, id) = match call.path.strip_prefix('/').unwrap_or_default() {
        "" => (parameter(query, "function").map_or(Ok(None), function)?, call.function),
        path if path.contains('/') => return Ok(None),
        id => (function(call.function)?, id),
    };
    if id.is_empty() {
        return Err(Rejection::NoCallId);
    }
    Ok(Some(CallQuery { id: call_id("path", id)?, function }))
}

/// Returns a parameter of a query without decoding it: names of functions contain nothing that is
/// escaped.
pub(crate) fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    let pairs = query?.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .filter(|(key, value)| *key == name && !value.is_empty())
        .map(|(_, value)| value)
        .next_back()
}

// === impl Lookups ===

impl Lookups {
    /// Creates lookups that use this context. A cancellation waits up to `cancel_timeout` for its
    /// confirmation.
    #[must_use]
    pub(crate) fn new(js: Context, cancel_timeout: Duration) -> Self {
        Self {
            js,
            limit: ConcurrencyLimit::new(MAX_CONCURRENT_LOOKUPS, "concurrent lookups"),
            questions: ConcurrencyLimit::new(MAX_CONCURRENT_QUESTIONS, "concurrent questions"),
            cancel_timeout,
        }
    }

    /// Returns the status of a call.
    pub(crate) async fn status(
        &self,
        directory: &Directory,
        default_queue: &QueueName,
        wanted: CallQuery,
    ) -> Result<CallStatus, Rejection> {
        let permit = self.permit()?;
        let places = candidate_queues(directory, default_queue, &wanted);
        match find_call(&self.js, &places, &wanted).await? {
            Lookup::Pending { newest, others } => {
                let mut status = status::status_of_pending(&self.js, &wanted, &newest).await?;
                status.others = Some(others).filter(|others| *others > 0);
                Ok(status)
            }
            Lookup::Ended(status) | Lookup::Cancelling(status) => Ok(status),
            Lookup::NotFound => {
                let remembered = self.remembered_end(permit, &places, &wanted).await;
                remembered.ok_or_else(|| unknown(wanted, &places))
            }
        }
    }

    /// Returns the end of a call that a worker remembers. The permit of the lookup is released
    /// before: who asks for unknown calls delays no other lookup.
    pub(crate) async fn remembered_end(
        &self,
        permit: SemaphorePermit<'_>,
        places: &CandidateQueues,
        wanted: &CallQuery,
    ) -> Option<CallStatus> {
        drop(permit);
        let _permit = self.questions.try_acquire().ok()?;
        // Best effort: nothing else depends on it.
        remembered_end(&self.js, places, wanted).await.ok().flatten()
    }

    /// Cancels all calls with an id that are stored when the request arrives; see
    /// [`cancel::cancel_calls`].
    ///
    /// The cancellation is completed even if the client disconnects. A call that is only partly
    /// cancelled would seem to be queued until a worker receives it.
    pub(crate) async fn cancel(
        &self,
        directory: &Directory,
        default_queue: &QueueName,
        wanted: CallQuery,
    ) -> Result<CancelCounts, Rejection> {
        let _permit = self.permit()?;
        let places = candidate_queues(directory, default_queue, &wanted);
        let (js, timeout) = (self.js.clone(), self.cancel_timeout);
        let cancelling = tokio::spawn(async move {
            let verdict = cancel::cancel_calls(&js, &places, &wanted, timeout).await;
            (verdict, places, wanted)
        });
        let (verdict, places, wanted) = cancelling.await.map_err(|_| Rejection::ShuttingDown)?;
        match verdict.map_err(Rejection::CancelFailed)? {
            CancelOutcome::Cancelled(tally) => Ok(tally),
            CancelOutcome::Unconfirmed => {
                Err(Rejection::CancellationUnconfirmed { call_id: wanted.id })
            }
            CancelOutcome::Ended { end, .. } => {
                Err(Rejection::CallEnded { call_id: wanted.id, how: end.description() })
            }
            CancelOutcome::NotFound => Err(unknown(wanted, &places)),
        }
    }

    /// Returns the context of requests to NATS.
    pub(crate) fn context(&self) -> &Context {
        &self.js
    }

    /// Returns how long a cancellation waits for its confirmation.
    pub(crate) fn cancel_timeout(&self) -> Duration {
        self.cancel_timeout
    }

    /// Returns the permit for a lookup, if NATS is connected and not too many are running.
    pub(crate) fn permit(&self) -> Result<SemaphorePermit<'_>, Rejection> {
        if self.js.client().connection_state() != State::Connected {
            return Err(Rejection::NatsUnavailable);
        }
        self.limit.try_acquire()
    }
}

pub(crate) fn unknown(wanted: CallQuery, places: &CandidateQueues) -> Rejection {
    let queue = match &places.named[..] {
        [only] => Some(only.queue.clone()),
        _ => None,
    };
    Rejection::UnknownCall { call_id: wanted.id, queue }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Route;

    fn read(target: &str) -> Result<Option<(String, Option<String>)>, Rejection> {
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let Route::AsyncFunction(call) = Route::parse(path) else { panic!("{target}") };
        let wanted = call_query(call, query, "openfaas-fn")?;
        Ok(wanted.map(|wanted| (wanted.id.to_string(), wanted.function.map(|f| f.to_string()))))
    }

    #[test]
    fn path_names_a_call_and_optionally_its_function() {
        let named =
            |id: &str, function: Option<&str>| Some((id.to_owned(), function.map(str::to_owned)));
        for (target, expected) in [
            ("/async-function/id-1", named("id-1", None)),
            ("/async-function/id-1/", named("id-1", None)),
            ("/async-function/id-1?x&function=&y=1", named("id-1", None)),
            ("/async-function/id-1?function=figlet", named("id-1", Some("figlet.openfaas-fn"))),
            ("/async-function/id-1?a=b&function=figlet.dev", named("id-1", Some("figlet.dev"))),
            ("/async-function/figlet/id-1", named("id-1", Some("figlet.openfaas-fn"))),
            ("/async-function/figlet.dev/id-1?function=other", named("id-1", Some("figlet.dev"))),
            ("/async-function/figlet/id-1/", None),
            ("/async-function/figlet/a/b", None),
        ] {
            assert_eq!(read(target).unwrap(), expected, "{target}");
        }
    }

    #[test]
    fn invalid_id_or_function_is_named() {
        for (target, status, expected) in [
            ("/async-function/a.b", 400, "call id `a.b`"),
            ("/async-function/figlet/%20", 400, "call id `%20`"),
            ("/async-function/id?function=a%20b", 400, "function name `a%20b`"),
            ("/async-function//id", 404, "missing function name"),
            ("/async-function/", 404, "missing call id"),
        ] {
            let rejection = read(target).unwrap_err();
            assert_eq!(rejection.status(), status, "{target}");
            assert!(rejection.to_string().contains(expected), "{rejection}");
        }
    }
}
