//! Looks up a call by its id.

use async_nats::jetstream::Context;
use asyncqueue::{
    CallId, QueueName,
    call::{CallQuery, CandidateQueues, Lookup, QueueLocation},
    directory::{Directory, QueueEntry},
    lookup::{self, find_call, remembered_end},
};

use crate::inventory::{self, QueueInventory};

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
        None => Ok(inventory_places(&inventory::read(js).await?, query)),
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

/// Returns the queues that may have a call.
fn inventory_places(inventory: &QueueInventory, query: &CallQuery) -> CandidateQueues {
    let none = CandidateQueues { named: Vec::new(), rest: Vec::new() };
    let Some(any) = inventory.queues.keys().next() else { return none };
    let queues = inventory
        .queues
        .iter()
        // A deleted queue may still have dead letters.
        .map(|(queue, entry)| {
            (queue.clone(), entry.clone().unwrap_or_else(|| QueueEntry::with_default_names(queue)))
        })
        .collect();
    // The default queue would be searched too if it were not one of them.
    lookup::candidate_queues(&Directory { queues, ..Directory::default() }, any, query)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(queues: &[&str], call: &CallId) -> Vec<String> {
        let queues = queues.iter().map(|queue| (queue.parse().unwrap(), None)).collect();
        let places =
            inventory_places(&QueueInventory { queues, ..QueueInventory::default() }, &query(call));
        let mut names: Vec<String> =
            places.named.into_iter().map(|place| place.queue.to_string()).collect();
        names.sort();
        names
    }

    #[test]
    fn id_selects_its_queue_or_all_queues() {
        let generated = CallId::generate(&"slow".parse().unwrap());
        assert_eq!(places(&["fast", "slow"], &generated), ["slow"]);
        assert_eq!(places(&["fast", "slow"], &"own".parse().unwrap()), ["fast", "slow"]);
        assert!(places(&[], &generated).is_empty());
    }

    #[test]
    fn error_names_call_and_queue() {
        let (call, queue) = ("own".parse().unwrap(), "jobs".parse().unwrap());
        assert!(
            not_found(&call, Some(&queue)).to_string().contains("`own` not found on queue `jobs`")
        );
        assert!(not_found(&call, None).to_string().contains("`own` not found on any queue"));
    }
}
