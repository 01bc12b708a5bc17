//! Looks up a call by its id.

use async_nats::jetstream::Context;
use asyncqueue::{
    CallId, QueueName,
    call::{CallQuery, CandidateQueues, Lookup, QueueLocation},
    directory::{Directory, QueueEntry},
    lookup::{self, find_call},
};

use crate::known::{self, Known};

/// Looks up a call: on one queue, or on all that may have it.
pub(crate) async fn find(
    js: &Context,
    queue: Option<&QueueName>,
    call: &CallId,
) -> anyhow::Result<Lookup> {
    let wanted = wanted(call);
    Ok(find_call(js, &places(js, queue, &wanted).await?, &wanted).await?)
}

/// Returns where a call may be: on one queue, or on all that may have it.
pub(crate) async fn places(
    js: &Context,
    queue: Option<&QueueName>,
    wanted: &CallQuery,
) -> anyhow::Result<CandidateQueues> {
    match queue {
        Some(queue) => {
            let entry = known::entry(js, queue).await?;
            Ok(CandidateQueues {
                named: vec![QueueLocation { queue: queue.clone(), entry }],
                rest: Vec::new(),
            })
        }
        None => Ok(known_places(&known::all(js).await?, wanted)),
    }
}

/// Selects the call with an id, of any function.
pub(crate) fn wanted(call: &CallId) -> CallQuery {
    CallQuery { id: call.clone(), function: None }
}

/// Returns the error for a call that is not known.
pub(crate) fn unknown(call: &CallId, queue: Option<&QueueName>) -> anyhow::Error {
    let place = queue.map_or("any queue".to_owned(), |queue| format!("queue `{queue}`"));
    anyhow::anyhow!(
        "nothing is known of a call `{call}` on {place}: it never was, or ended long enough ago"
    )
}

/// Returns the queues that may have a call.
fn known_places(known: &Known, wanted: &CallQuery) -> CandidateQueues {
    let nowhere = CandidateQueues { named: Vec::new(), rest: Vec::new() };
    let Some(any) = known.queues.keys().next() else { return nowhere };
    let queues = known
        .queues
        .iter()
        // A deleted queue may still have dead letters.
        .map(|(queue, entry)| {
            (queue.clone(), entry.clone().unwrap_or_else(|| QueueEntry::with_default_names(queue)))
        })
        .collect();
    // The default queue would be searched too if it were not one of them.
    lookup::candidate_queues(&Directory { queues, ..Directory::default() }, any, wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(queues: &[&str], call: &CallId) -> Vec<String> {
        let queues = queues.iter().map(|queue| (queue.parse().unwrap(), None)).collect();
        let places = known_places(&Known { queues, ..Known::default() }, &wanted(call));
        let mut names: Vec<String> =
            places.named.into_iter().map(|place| place.queue.to_string()).collect();
        names.sort();
        names
    }

    #[test]
    fn an_id_names_its_queue_or_all_are_asked() {
        let generated = CallId::generate(&"slow".parse().unwrap());
        assert_eq!(asked(&["fast", "slow"], &generated), ["slow"]);
        assert_eq!(asked(&["fast", "slow"], &"own".parse().unwrap()), ["fast", "slow"]);
        assert!(asked(&[], &generated).is_empty());
    }

    #[test]
    fn what_is_not_found_is_named() {
        let (call, queue) = ("own".parse().unwrap(), "jobs".parse().unwrap());
        assert!(unknown(&call, Some(&queue)).to_string().contains("`own` on queue `jobs`"));
        assert!(unknown(&call, None).to_string().contains("`own` on any queue"));
    }
}
