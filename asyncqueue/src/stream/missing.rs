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
    jetstream::{NatsError, find_stream},
    kv::Bucket,
    stream::QueueSpec,
};

/// A stream that must exist, and perhaps a consumer of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequiredStream {
    stream: String,
    consumer: RequiredConsumer,
}

/// The consumer that a stream needs.
#[derive(Clone, Debug, PartialEq, Eq)]
enum RequiredConsumer {
    None,
    /// Any, whatever its name: a producer does not know the name that workers use.
    Any,
    Named(String),
}

/// Returns what the workers of a queue need: its streams, and the consumers by their names.
#[must_use]
pub fn required_by_workers(spec: &QueueSpec) -> Vec<RequiredStream> {
    let named = |name: String| RequiredConsumer::Named(name);
    required(spec, named(spec.durable.clone()), named(spec.queue.callback_durable()))
}

/// Returns what a producer needs: the streams of a queue, each with a consumer.
#[must_use]
pub fn required_by_producer(spec: &QueueSpec) -> Vec<RequiredStream> {
    required(spec, RequiredConsumer::Any, RequiredConsumer::Any)
}

/// Returns the need for a bucket.
#[must_use]
pub fn required_bucket(bucket: &Bucket) -> RequiredStream {
    RequiredStream { stream: bucket.stream(), consumer: RequiredConsumer::None }
}

/// Returns the need for a stream without a consumer.
#[must_use]
pub fn required_stream(name: &str) -> RequiredStream {
    RequiredStream { stream: name.to_owned(), consumer: RequiredConsumer::None }
}

fn required(
    spec: &QueueSpec,
    for_calls: RequiredConsumer,
    for_callbacks: RequiredConsumer,
) -> Vec<RequiredStream> {
    let [calls, callbacks, dead] = spec.streams();
    let mut required = vec![
        RequiredStream { stream: calls, consumer: for_calls },
        RequiredStream { stream: callbacks, consumer: for_callbacks },
    ];
    if spec.dead_letters.enabled {
        required.push(RequiredStream { stream: dead, consumer: RequiredConsumer::None });
    }
    required
}

/// Returns the first of these that is missing, in words; `None` if all exist.
pub async fn first_missing(
    js: &Context,
    required: &[RequiredStream],
) -> Result<Option<String>, NatsError> {
    for RequiredStream { stream: name, consumer } in required {
        let stream = find_stream(js, name).await.map_err(NatsError::during("read the streams"))?;
        let Some(stream) = stream else { return Ok(Some(format!("stream {name}"))) };
        let missing = match consumer {
            RequiredConsumer::Any if stream.cached_info().state.consumer_count == 0 => {
                Some(format!("the consumer of stream {name}"))
            }
            RequiredConsumer::None | RequiredConsumer::Any => None,
            RequiredConsumer::Named(consumer) if has_consumer(&stream, consumer).await? => None,
            RequiredConsumer::Named(consumer) => {
                Some(format!("consumer {consumer} of stream {name}"))
            }
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
        Err(error) => Err(NatsError::during("read the consumers")(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{buckets::DIRECTORY, stream::spec::Owner};

    #[test]
    fn a_queue_needs_its_streams_and_consumers() {
        let mut spec = QueueSpec::new("jobs".parse().unwrap(), Owner::standalone());
        spec.stream = "JOBS".to_owned();
        let all = |stream: &str, consumer| RequiredStream { stream: stream.to_owned(), consumer };
        let named = |name: &str| RequiredConsumer::Named(name.to_owned());
        assert_eq!(
            required_by_workers(&spec),
            [
                all("JOBS", named("jobs-workers")),
                all("jobs-callbacks", named("jobs-callback-workers")),
                all("jobs-dead", RequiredConsumer::None),
            ]
        );
        spec.dead_letters.enabled = false;
        assert_eq!(
            required_by_producer(&spec),
            [all("JOBS", RequiredConsumer::Any), all("jobs-callbacks", RequiredConsumer::Any)]
        );
        assert_eq!(required_bucket(&DIRECTORY).stream, "KV_asyncqueue-directory");
    }
}
