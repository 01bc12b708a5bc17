//! Lists all streams and evaluates them for each queue. Pure, except for the listing itself.

use std::{collections::HashMap, sync::Arc};

use async_nats::jetstream::{
    Context,
    context::StreamsError,
    stream::{Config, Info},
};
use asyncqueue::stream::{Plan, QueueSpec, plan_stream};
use futures::TryStreamExt;

use crate::{crd::AsyncQueue, nats::queue_spec::queue_spec};

/// A listing of streams, evaluated for these queues.
pub(super) struct StreamListing {
    queues: Vec<ObservedQueue>,
    /// By stream: the index of its queue in `queues`, and the stream's role.
    streams: HashMap<String, (usize, StreamRole)>,
}

/// A queue, and the state of its streams in the listing.
#[derive(Clone, Debug)]
pub(super) struct ObservedQueue {
    pub(super) queue: Arc<AsyncQueue>,
    calls: Option<u64>,
    callbacks: Option<u64>,
    dead_letters: Option<u64>,
    changed: bool,
}

/// Role of a stream in its queue.
#[derive(Clone, Copy, Debug)]
enum StreamRole {
    Calls,
    Callbacks,
    DeadLetters,
}

// === impl StreamListing ===

impl StreamListing {
    /// Creates an empty listing for these queues, which own their streams.
    pub(super) fn new(queues: impl IntoIterator<Item = Arc<AsyncQueue>>) -> Self {
        let mut listing = Self { queues: Vec::new(), streams: HashMap::new() };
        for queue in queues {
            let observed = ObservedQueue::new(queue);
            let Some(spec) = observed.spec() else { continue };
            let index = listing.queues.len();
            let roles = [StreamRole::Calls, StreamRole::Callbacks, StreamRole::DeadLetters]
                .map(|role| (index, role));
            listing.streams.extend(spec.streams().into_iter().zip(roles));
            listing.queues.push(observed);
        }
        listing
    }

    /// Lists all streams: one request for each 256 of them. Also returns how many there are.
    pub(super) async fn list(
        mut self,
        js: &Context,
    ) -> Result<(Vec<ObservedQueue>, usize), StreamsError> {
        let (mut streams, mut listed) = (js.streams(), 0);
        while let Some(info) = streams.try_next().await? {
            self.add(&info);
            listed += 1;
        }
        Ok((self.queues, listed))
    }

    /// Adds the info of one stream.
    fn add(&mut self, info: &Info) {
        let Some((index, role)) = self.streams.get(&info.config.name) else { return };
        let observed = &mut self.queues[*index];
        let Some(spec) = observed.spec() else { return };
        let messages = Some(info.state.messages);
        let desired = match role {
            StreamRole::Calls => {
                observed.calls = messages;
                observed.changed |= observed.is_recreated(info.created.unix_timestamp());
                spec.stream_config()
            }
            StreamRole::Callbacks => {
                observed.callbacks = messages;
                spec.callback_config()
            }
            StreamRole::DeadLetters => {
                observed.dead_letters = messages;
                spec.dead_letter_config()
            }
        };
        observed.changed |= is_changed(&info.config, &desired);
    }
}

fn is_changed(config: &Config, desired: &Config) -> bool {
    plan_stream(Some(config), desired, false) != Plan::Keep
}

// === impl ObservedQueue ===

impl ObservedQueue {
    fn new(queue: Arc<AsyncQueue>) -> Self {
        Self { queue, calls: None, callbacks: None, dead_letters: None, changed: false }
    }

    /// Returns the spec of the queue. It is computed each time: for ten thousand queues, stored
    /// specs would be most of the memory that is used here.
    pub(super) fn spec(&self) -> Option<QueueSpec> {
        queue_spec(&self.queue).ok()
    }

    /// Returns the counts of stored calls and of dead letters. A queue with dead letters disabled
    /// may still have some from before.
    pub(super) fn counts(&self) -> Option<(u64, u64)> {
        let none = (!self.queue.spec.dead_letter.enabled).then_some(0);
        self.calls.zip(self.dead_letters.or(none))
    }

    /// Returns whether the controller should reconcile the queue: a stream was not seen, is not in
    /// its desired state, or was recreated. A stream that was not seen may still
    /// exist: streams come and go between the pages of a listing.
    pub(super) fn is_due(&self) -> bool {
        self.changed || self.callbacks.is_none() || self.counts().is_none()
    }

    /// Returns whether the stream of calls is not the one in the status.
    fn is_recreated(&self, created: i64) -> bool {
        let known = self.queue.status.as_ref().and_then(|status| status.stream_created.as_ref());
        known.is_some_and(|known| known.0.as_second() != created)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures;

    /// Returns what the server says of a stream.
    fn info(config: &Config, messages: u64) -> Info {
        created(config, messages, "1970-01-01T00:00:50Z")
    }

    fn created(config: &Config, messages: u64, created: &str) -> Info {
        serde_json::from_value(json!({
            "config": config,
            "created": created,
            "ts": "1970-01-01T00:01:00Z",
            "state": {
                "messages": messages, "bytes": 0, "consumer_count": 1,
                "first_seq": 1, "first_ts": "1970-01-01T00:00:00Z",
                "last_seq": 1, "last_ts": "1970-01-01T00:00:00Z",
            },
        }))
        .unwrap()
    }

    fn owner() -> (Arc<AsyncQueue>, [Config; 3]) {
        let mut queue = fixtures::owner("q");
        queue.status.as_mut().unwrap().stream_created = Some(fixtures::second(50));
        let spec = queue_spec(&queue).unwrap();
        (Arc::new(queue), [spec.stream_config(), spec.callback_config(), spec.dead_letter_config()])
    }

    fn observed(infos: &[Info]) -> ObservedQueue {
        let mut listing = StreamListing::new([owner().0]);
        for info in infos {
            listing.add(info);
        }
        listing.queues.remove(0)
    }

    #[test]
    fn a_queue_in_its_desired_state_is_counted_and_not_due() {
        let (_, [calls, callbacks, dead]) = owner();
        let other = Config { name: "other".to_owned(), ..Config::default() };
        let observed =
            observed(&[info(&other, 9), info(&calls, 7), info(&callbacks, 1), info(&dead, 3)]);
        assert_eq!(observed.counts(), Some((7, 3)));
        assert!(!observed.is_due());
    }

    #[test]
    fn a_queue_without_dead_letters_needs_no_stream_for_them() {
        let mut queue = fixtures::owner("q");
        queue.spec.dead_letter.enabled = false;
        let spec = queue_spec(&queue).unwrap();
        let mut listing = StreamListing::new([Arc::new(queue)]);
        listing.add(&info(&spec.stream_config(), 7));
        listing.add(&info(&spec.callback_config(), 0));
        let observed = listing.queues.remove(0);
        assert_eq!(observed.counts(), Some((7, 0)));
        assert!(!observed.is_due());
    }

    #[test]
    fn a_missing_changed_or_recreated_stream_makes_it_due() {
        let (_, [calls, callbacks, dead]) = owner();
        let all = [&calls, &callbacks, &dead];
        for missing in 0..all.len() {
            let rest = all.iter().enumerate().filter(|(index, _)| *index != missing);
            let infos: Vec<_> = rest.map(|(_, config)| info(config, 0)).collect();
            assert!(observed(&infos).is_due(), "{missing}");
        }
        let changed = Config { max_messages: 1, ..dead.clone() };
        assert!(observed(&[info(&calls, 0), info(&callbacks, 0), info(&changed, 0)]).is_due());
        let another = created(&calls, 0, "1970-01-01T00:00:51Z");
        assert!(observed(&[another, info(&callbacks, 0), info(&dead, 0)]).is_due());
    }
}
