//! Handles requests about one call: its status and its cancellation.

use std::time::Duration;

use async_nats::{connection::State, jetstream::Context};
use asyncqueue::{
    EndState, QueueName,
    call::{CallQuery, CallStatus, CandidateQueues, Lookup},
    cancel::{self, CancelCounts, CancelOutcome},
    directory::Directory,
    lookup::{candidate_queues, find_call},
    status,
};
use tokio::sync::SemaphorePermit;

use crate::{
    refusal::Refusal,
    resource::Call,
    slots::Slots,
    submission::{call_id, function_name},
};

/// Maximum number of concurrent lookups. Each needs a few NATS requests, or a few for each queue,
/// and must leave capacity for storing calls.
const MAX_LOOKUPS: usize = 64;

/// Looks up calls.
#[derive(Debug)]
pub struct Lookups {
    js: Context,
    slots: Slots,
    /// Maximum time that a cancellation waits until it is certain.
    cancel_timeout: Duration,
}

/// Returns which call a path names: `/async-function/CALL-ID[?function=NAME]` or
/// `/async-function/NAME/CALL-ID`. Returns `None` for a longer path. `namespace` is that of a
/// function named without one.
pub fn wanted(
    call: Call<'_>,
    query: Option<&str>,
    namespace: &str,
) -> Result<Option<CallQuery>, Refusal> {
    let function = |name| function_name(name, namespace).map(Some);
    let (function, id) = match call.path.strip_prefix('/').unwrap_or_default() {
        "" => (parameter(query, "function").map_or(Ok(None), function)?, call.function),
        path if path.contains('/') => return Ok(None),
        id => (function(call.function)?, id),
    };
    if id.is_empty() {
        return Err(Refusal::NoCallId);
    }
    Ok(Some(CallQuery { id: call_id("path", id)?, function }))
}

/// Returns a parameter of a query without decoding it: names of functions contain nothing that is
/// escaped.
fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    let pairs = query?.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .filter(|(key, value)| *key == name && !value.is_empty())
        .map(|(_, value)| value)
        .next_back()
}

// === impl Lookups ===

impl Lookups {
    /// Creates lookups that use this context. A cancellation waits up to `cancel_timeout` until it
    /// is certain.
    #[must_use]
    pub fn new(js: Context, cancel_timeout: Duration) -> Self {
        Self { js, slots: Slots::new(MAX_LOOKUPS, "look-ups of calls"), cancel_timeout }
    }

    /// Returns where a call is.
    pub async fn status(
        &self,
        directory: &Directory,
        default_queue: &QueueName,
        wanted: CallQuery,
    ) -> Result<CallStatus, Refusal> {
        let _slot = self.slot()?;
        let places = candidate_queues(directory, default_queue, &wanted);
        match find_call(&self.js, &places, &wanted).await? {
            Lookup::Pending { newest, others } => {
                let mut status = status::status_of_pending(&self.js, &wanted, &newest).await?;
                status.others = Some(others).filter(|others| *others > 0);
                Ok(status)
            }
            Lookup::Ended(status) | Lookup::Cancelling(status) => Ok(status),
            Lookup::NotFound => Err(unknown(wanted, &places)),
        }
    }

    /// Cancels all calls with an id that are stored when the request arrives; see
    /// [`cancel::cancel_calls`].
    ///
    /// The cancellation is completed even if the client disconnects. A call that is only partly
    /// cancelled would seem to be queued until a worker receives it.
    pub async fn cancel(
        &self,
        directory: &Directory,
        default_queue: &QueueName,
        wanted: CallQuery,
    ) -> Result<CancelCounts, Refusal> {
        let _slot = self.slot()?;
        let places = candidate_queues(directory, default_queue, &wanted);
        let (js, patience) = (self.js.clone(), self.cancel_timeout);
        let cancelling = tokio::spawn(async move {
            let verdict = cancel::cancel_calls(&js, &places, &wanted, patience).await;
            (verdict, places, wanted)
        });
        let (verdict, places, wanted) = cancelling.await.map_err(|_| Refusal::Interrupted)?;
        match verdict.map_err(Refusal::Cancel)? {
            CancelOutcome::Cancelled(tally) => Ok(tally),
            CancelOutcome::Unconfirmed => Err(Refusal::NotCancelledYet { call_id: wanted.id }),
            CancelOutcome::Ended { end, .. } => {
                Err(Refusal::Ended { call_id: wanted.id, how: how_it_ended(end) })
            }
            CancelOutcome::NotFound => Err(unknown(wanted, &places)),
        }
    }

    fn slot(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        if self.js.client().connection_state() != State::Connected {
            return Err(Refusal::NatsAway);
        }
        self.slots.take()
    }
}

fn unknown(wanted: CallQuery, places: &CandidateQueues) -> Refusal {
    let queue = match &places.named[..] {
        [only] => Some(only.queue.clone()),
        _ => None,
    };
    Refusal::UnknownCall { call_id: wanted.id, queue }
}

fn how_it_ended(end: EndState) -> &'static str {
    match end {
        EndState::Dead => "is a dead letter",
        EndState::Expired => "has expired",
        EndState::Done | EndState::Cancelled => "has run",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Resource;

    fn read(target: &str) -> Result<Option<(String, Option<String>)>, Refusal> {
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let Resource::Queue(call) = Resource::of(path) else { panic!("{target}") };
        let wanted = wanted(call, query, "openfaas-fn")?;
        Ok(wanted.map(|wanted| (wanted.id.to_string(), wanted.function.map(|f| f.to_string()))))
    }

    #[test]
    fn a_path_names_a_call_and_perhaps_its_function() {
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
    fn what_is_no_id_or_no_function_is_named() {
        for (target, status, expected) in [
            ("/async-function/a.b", 400, "call id `a.b`"),
            ("/async-function/figlet/%20", 400, "call id `%20`"),
            ("/async-function/id?function=a%20b", 400, "function name `a%20b`"),
            ("/async-function//id", 404, "no function is named"),
            ("/async-function/", 404, "no call is named"),
        ] {
            let refusal = read(target).unwrap_err();
            assert_eq!(refusal.status(), status, "{target}");
            assert!(refusal.to_string().contains(expected), "{refusal}");
        }
    }
}
