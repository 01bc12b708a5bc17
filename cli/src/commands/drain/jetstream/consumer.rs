//! Opens the consumer through which a stream is drained.

use anyhow::{Context as _, bail};
use async_nats::jetstream::{
    consumer::{AckPolicy, Config, DeliverPolicy, PullConsumer, pull},
    stream::Stream,
};
use asyncqueue_runtime::program::UsageError;
use futures::TryStreamExt;

/// Name of the consumer that is created for a stream that has none.
const DRAIN_CONSUMER: &str = "asyncqueue-drain";

/// The consumer to use.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ConsumerChoice {
    /// An existing consumer.
    Existing(String),
    /// A new consumer that the drain creates.
    New,
}

/// Opens the consumer with this name, or the one that the stream has. Creates one if the stream has
/// no consumer.
pub(super) async fn open(stream: &Stream, name: Option<&str>) -> anyhow::Result<PullConsumer> {
    let (what, stream_name) = ("consumers", &stream.cached_info().config.name);
    let all: Vec<String> = match name {
        Some(_) => Vec::new(),
        None => stream
            .consumer_names()
            .try_collect()
            .await
            .with_context(|| format!("failed to list the {what} of stream `{stream_name}`"))?,
    };
    match choose(name, all).map_err(UsageError)? {
        ConsumerChoice::Existing(name) => open_existing(stream, &name).await,
        ConsumerChoice::New => {
            stream.create_consumer(drain_consumer()).await.context("failed to create a consumer")
        }
    }
}

/// Chooses among the consumers of a stream, unless one is named.
fn choose(name: Option<&str>, mut all: Vec<String>) -> Result<ConsumerChoice, String> {
    if let Some(name) = name {
        return Ok(ConsumerChoice::Existing(name.to_owned()));
    }
    all.sort();
    match all.as_slice() {
        [] => Ok(ConsumerChoice::New),
        [only] => Ok(ConsumerChoice::Existing(only.clone())),
        several => Err(format!(
            "the stream has several consumers, select one with --consumer: {}",
            several.join(", ")
        )),
    }
}

async fn open_existing(stream: &Stream, name: &str) -> anyhow::Result<PullConsumer> {
    let info = stream
        .consumer_info(name)
        .await
        .with_context(|| format!("failed to open consumer `{name}`: check --consumer"))?;
    if let Err(rule) = check_config(&info.config) {
        bail!("consumer `{name}` can't be used: {rule}");
    }
    stream
        .get_consumer(name)
        .await
        .map_err(|error| anyhow::anyhow!(error))
        .context("failed to open the consumer")
}

/// Rejects a consumer whose messages can't be acknowledged individually when they are stored.
fn check_config(config: &Config) -> Result<(), &'static str> {
    match config {
        Config { deliver_subject: Some(_), .. } => {
            Err("it is a push consumer, and the drain needs a pull consumer")
        }
        Config { ack_policy: AckPolicy::Explicit, .. } => Ok(()),
        _ => Err("its ack policy is not explicit"),
    }
}

fn drain_consumer() -> pull::Config {
    pull::Config {
        durable_name: Some(DRAIN_CONSUMER.to_owned()),
        description: Some("Moves the messages to AsyncQueue".to_owned()),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ..pull::Config::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consumer_is_named_or_the_only_one() {
        let all = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let existing = |name: &str| Ok(ConsumerChoice::Existing(name.to_owned()));
        assert_eq!(choose(Some("a"), all(&[])), existing("a"));
        assert_eq!(choose(None, all(&["b"])), existing("b"));
        assert_eq!(choose(None, all(&[])), Ok(ConsumerChoice::New));
        assert!(choose(None, all(&["c", "b"])).unwrap_err().ends_with("b, c"));
    }

    #[test]
    fn only_pull_consumers_with_explicit_acks_are_accepted() {
        let with = |ack_policy, deliver_subject| Config {
            ack_policy,
            deliver_subject,
            ..Config::default()
        };
        assert_eq!(check_config(&with(AckPolicy::Explicit, None)), Ok(()));
        assert!(check_config(&with(AckPolicy::All, None)).is_err());
        assert!(check_config(&with(AckPolicy::None, None)).is_err());
        assert!(check_config(&with(AckPolicy::Explicit, Some("inbox".to_owned()))).is_err());
    }
}
