//! Finds streams, consumers and buckets of a queue that are missing, for programs that create them
//! where there is no operator. They may have been deleted, or the server came back with an empty
//! store.
//!
//! This module only reads, so it may run often. What exists is left as it is, whatever its
//! configuration: two programs with different settings do not undo each other's changes.

use async_nats::jetstream::{
    Context,
    context::ConsumerInfoErrorKind,
    stream::{Info, Stream},
};

use crate::{
    bucket::Bucket,
    peek::{NatsError, failed, is_missing_stream},
    stream::QueueSpec,
};

/// A stream that must exist, and perhaps a consumer of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    stream: String,
    consumer: Consumer,
}

/// The consumer that a stream needs.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Consumer {
    None,
    /// Any, whatever its name: a producer does not know the name that workers use.
    Any,
    Named(String),
}

/// Returns what the workers of a queue need: its streams, and the consumers by their names.
#[must_use]
pub fn needed_by_workers(spec: &QueueSpec) -> Vec<Needed> {
    let named = |name: String| Consumer::Named(name);
    needed(spec, named(spec.durable.clone()), named(spec.queue.callback_durable()))
}

/// Returns what a producer needs: the streams of a queue, each with a consumer.
#[must_use]
pub fn needed_by_producer(spec: &QueueSpec) -> Vec<Needed> {
    needed(spec, Consumer::Any, Consumer::Any)
}

/// Returns the need for a bucket.
#[must_use]
pub fn needed_bucket(bucket: &Bucket) -> Needed {
    Needed { stream: bucket.stream(), consumer: Consumer::None }
}

/// Returns the need for a stream without a consumer.
#[must_use]
pub fn needed_stream(name: &str) -> Needed {
    Needed { stream: name.to_owned(), consumer: Consumer::None }
}

fn needed(spec: &QueueSpec, of_calls: Consumer, of_callbacks: Consumer) -> Vec<Needed> {
    let [calls, callbacks, dead] = spec.streams();
    let mut needed = vec![
        Needed { stream: calls, consumer: of_calls },
        Needed { stream: callbacks, consumer: of_callbacks },
    ];
    if spec.dead_letters.enabled {
        needed.push(Needed { stream: dead, consumer: Consumer::None });
    }
    needed
}

/// Returns the first of these that is missing, in words; `None` if all exist.
pub async fn first_missing(js: &Context, needed: &[Needed]) -> Result<Option<String>, NatsError> {
    for Needed { stream: name, consumer } in needed {
        let stream = match js.get_stream(name).await {
            Ok(stream) => stream,
            Err(error) if is_missing_stream(&error) => return Ok(Some(format!("stream {name}"))),
            Err(error) => return Err(failed("read the streams")(error)),
        };
        let missing = match consumer {
            Consumer::Any if stream.cached_info().state.consumer_count == 0 => {
                Some(format!("the consumer of stream {name}"))
            }
            Consumer::None | Consumer::Any => None,
            Consumer::Named(consumer) if has_consumer(&stream, consumer).await? => None,
            Consumer::Named(consumer) => Some(format!("consumer {consumer} of stream {name}")),
        };
        if missing.is_some() {
            return Ok(missing);
        }
    }
    Ok(None)
}

async fn has_consumer(stream: &Stream<Info>, name: &str) -> Result<bool, NatsError> {
    match stream.consumer_info(name).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("read the consumers")(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{directory, stream::Owner};

    #[test]
    fn a_queue_needs_its_streams_and_consumers() {
        let mut spec = QueueSpec::new("jobs".parse().unwrap(), Owner::standalone());
        spec.stream = "JOBS".to_owned();
        let all = |stream: &str, consumer| Needed { stream: stream.to_owned(), consumer };
        let named = |name: &str| Consumer::Named(name.to_owned());
        assert_eq!(
            needed_by_workers(&spec),
            [
                all("JOBS", named("jobs-workers")),
                all("jobs-callbacks", named("jobs-callback-workers")),
                all("jobs-dead", Consumer::None),
            ]
        );
        spec.dead_letters.enabled = false;
        assert_eq!(
            needed_by_producer(&spec),
            [all("JOBS", Consumer::Any), all("jobs-callbacks", Consumer::Any)]
        );
        assert_eq!(needed_bucket(&directory::BUCKET).stream, "KV_asyncqueue-directory");
    }
}
