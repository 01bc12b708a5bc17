//! Looks up a call by its id.

use async_nats::jetstream::Context;
use asyncqueue::{
    CallId, QueueName,
    call::{CallQuery, CandidateQueues, Lookup, QueueLocation},
    lookup::{find_call, remembered_end},
};

use crate::inventory;

/// Looks up a call: on one queue, or on all that may have it. If nothing is stored of it, asks the
/// workers that may remember it.
pub(crate) async fn look_up(
    js: &Context,
    queue: Option<&QueueName>,
    call: &CallId,
) -> anyhow::Result<Lookup> {
    let query = query(call);
    let places = candidate_places(js, queue, &query).await?;
    match find_call(js, &places, &query).await? {
        Lookup::NotFound => {
            let remembered = remembered_end(js, &places, &query).await?;
            Ok(remembered.map_or(Lookup::NotFound, Lookup::Ended))
        }
        found => Ok(found),
    }
}

/// Returns where a call may be: on one queue, or on all that may have it.
pub(crate) async fn candidate_places(
    js: &Context,
    queue: Option<&QueueName>,
    query: &CallQuery,
) -> anyhow::Result<CandidateQueues> {
    match queue {
        Some(queue) => {
            let entry = inventory::queue_entry(js, queue).await?;
            Ok(CandidateQueues {
                named: vec![QueueLocation { queue: queue.clone(), entry }],
                rest: Vec::new(),
            })
        }
        None => Ok(inventory::read(js).await?.candidate_queues(query)),
    }
}

/// Selects the call with an id, of any function.
pub(crate) fn query(call: &CallId) -> CallQuery {
    CallQuery { id: call.clone(), function: None }
}

/// Returns the error for a call that is not found.
pub(crate) fn not_found(call: &CallId, queue: Option<&QueueName>) -> anyhow::Error {
    let place = queue.map_or("any queue".to_owned(), |queue| format!("queue `{queue}`"));
    anyhow::anyhow!(
        "call `{call}` not found on {place}: unknown id, or it ended and its status has expired"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_names_call_and_queue() {
        let (call, queue) = ("own".parse().unwrap(), "jobs".parse().unwrap());
        assert!(
            not_found(&call, Some(&queue)).to_string().contains("`own` not found on queue `jobs`")
        );
        assert!(not_found(&call, None).to_string().contains("`own` not found on any queue"));
    }
}
