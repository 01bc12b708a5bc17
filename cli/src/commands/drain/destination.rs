//! Finds the destination of each message: the queue of its function, as the gateway routes it.

use std::{cell::RefCell, collections::HashMap, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use async_nats::{
    datetime::DateTime,
    jetstream::{
        Context,
        stream::{Info, Stream},
    },
};
use asyncqueue::{
    FunctionName, QueueName,
    directory::{Directory, QueueEntry, QueueRoute},
    jetstream::is_stream_not_found,
};
use tokio::sync::watch;

use super::{Common, retry::Retry};
use crate::routing;

/// A queue that stores the drained messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Destination {
    pub(super) route: QueueRoute,
    pub(super) stream: String,
    /// How long its stream remembers the id of a message.
    pub(super) duplicate_window: Duration,
}

/// Identifies a stream. A stream that is deleted and created again has another identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StreamId {
    name: String,
    created: DateTime,
}

/// The destinations of all functions.
#[derive(Debug)]
pub(super) struct Destinations {
    js: Context,
    /// The directory with its changes. `None` if there is no directory.
    directory: Option<watch::Receiver<Option<Arc<Directory>>>>,
    /// The queue of all functions, if `--queue` names one.
    override_queue: Option<(QueueName, QueueEntry)>,
    default_queue: QueueName,
    /// The stream that is drained. No message is stored there.
    source: Option<StreamId>,
    /// The destinations whose streams were already looked up.
    cache: RefCell<HashMap<QueueName, Destination>>,
}

// === impl StreamId ===

impl StreamId {
    pub(super) fn from_info(info: &Info) -> Self {
        Self { name: info.config.name.clone(), created: info.created }
    }
}

// === impl Destinations ===

impl Destinations {
    /// Reads the directory, and the queue that is requested.
    pub(super) async fn open(
        js: &Context,
        common: &Common,
        source: Option<StreamId>,
    ) -> anyhow::Result<Self> {
        let override_queue = routing::override_queue(js, &common.routing).await?;
        let directory = routing::follow_directory(js).await?;
        let default_queue = common.routing.default_queue.clone();
        Ok(Self {
            js: js.clone(),
            directory,
            override_queue,
            default_queue,
            source,
            cache: RefCell::default(),
        })
    }

    /// Returns the function of a message, as the directory spells it, and its destination.
    pub(super) async fn resolve(
        &self,
        function: &FunctionName,
        retry: &Retry,
    ) -> anyhow::Result<(FunctionName, Destination)> {
        let directory = self.directory();
        let function = directory.resolve(function.clone());
        let (queue, entry) = match &self.override_queue {
            Some(override_queue) => override_queue.clone(),
            None => route(&directory, &function, &self.default_queue),
        };
        Ok((function, self.look_up(&queue, &entry, retry).await?))
    }

    /// Returns the queue that keeps the dead letters of messages without a function.
    pub(super) fn dead_letter_queue(&self) -> &QueueName {
        self.override_queue.as_ref().map_or(&self.default_queue, |(queue, _)| queue)
    }

    fn directory(&self) -> Arc<Directory> {
        let directory = self.directory.as_ref().and_then(|directory| directory.borrow().clone());
        directory.unwrap_or_default()
    }

    /// Looks up the stream of a queue, once.
    async fn look_up(
        &self,
        queue: &QueueName,
        entry: &QueueEntry,
        retry: &Retry,
    ) -> anyhow::Result<Destination> {
        // The entry may come from the streams, which do not say whether the queue has lanes.
        let route = entry.route_of_unknown_fairness(queue.clone());
        let is_same = |cached: &Destination| cached.stream == entry.stream && cached.route == route;
        if let Some(cached) = self.cache.borrow().get(queue).filter(|cached| is_same(cached)) {
            return Ok(cached.clone());
        }
        let stream = retry.until_ok(async || find_stream(&self.js, &entry.stream).await).await;
        let Some(stream) = stream else {
            bail!(
                "queue `{queue}` has no stream `{}` on this NATS server: apply an AsyncQueue \
                 `{queue}`, or select another queue with --queue or --default-queue",
                entry.stream
            );
        };
        let info = stream.cached_info();
        if self.source.as_ref() == Some(&StreamId::from_info(info)) {
            bail!(
                "stream `{}` belongs to queue `{queue}`, which already has its messages: drain \
                 another stream, or select another queue with --queue",
                entry.stream
            );
        }
        let destination = Destination {
            route,
            stream: entry.stream.clone(),
            duplicate_window: info.config.duplicate_window,
        };
        self.cache.borrow_mut().insert(queue.clone(), destination.clone());
        Ok(destination)
    }
}

/// Returns the queue of a function, and its entry, which says where its calls are stored.
fn route(
    directory: &Directory,
    function: &FunctionName,
    default_queue: &QueueName,
) -> (QueueName, QueueEntry) {
    let queue = directory.route(function, default_queue).queue;
    let entry = directory
        .queues
        .get(&queue)
        .cloned()
        .unwrap_or_else(|| QueueEntry::with_default_names(&queue));
    (queue, entry)
}

/// Finds a stream. Returns `None` if it does not exist.
async fn find_stream(js: &Context, name: &str) -> anyhow::Result<Option<Stream>> {
    match js.get_stream(name).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if is_stream_not_found(&error) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("failed to look up stream `{name}`")),
    }
}

#[cfg(test)]
mod tests {
    use asyncqueue::directory::FunctionEntry;

    use super::*;

    #[test]
    fn message_is_routed_like_in_the_gateway() {
        let mut directory = Directory::default();
        let slow: QueueName = "slow".parse().unwrap();
        directory.queues.insert(slow.clone(), QueueEntry::new("SLOW", "jobs.slow"));
        let function = |name| FunctionName::new(name, "openfaas-fn").unwrap();
        let entry = FunctionEntry { queue: Some(slow.clone()), ..FunctionEntry::default() };
        directory.functions.insert(function("a"), entry);
        let default_queue = "faas-request".parse().unwrap();
        let routed = |name| route(&directory, &function(name), &default_queue);
        assert_eq!(routed("a"), (slow, QueueEntry::new("SLOW", "jobs.slow")));
        assert_eq!(
            routed("b"),
            (default_queue.clone(), QueueEntry::with_default_names(&default_queue))
        );
    }
}
