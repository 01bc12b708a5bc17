//! Opens the consumer through which a stream is drained.

use anyhow::{Context as _, bail};
use async_nats::jetstream::{
    consumer::{AckPolicy, Config, DeliverPolicy, PullConsumer, pull},
    stream::Stream,
};
use asyncqueue_runtime::program::UsageError;
use futures::TryStreamExt;

/// Name of the consumer that is created for a stream that has none.
const OWN: &str = "asyncqueue-drain";

/// The consumer to use.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Choice {
    /// An existing consumer.
    Existing(String),
    /// A new consumer that the drain creates.
    Own,
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
        Choice::Existing(name) => existing(stream, &name).await,
        Choice::Own => stream.create_consumer(own()).await.context("failed to create a consumer"),
    }
}

/// Chooses among the consumers of a stream, unless one is named.
fn choose(name: Option<&str>, mut all: Vec<String>) -> Result<Choice, String> {
    if let Some(name) = name {
        return Ok(Choice::Existing(name.to_owned()));
    }
    all.sort();
    match all.as_slice() {
        [] => Ok(Choice::Own),
        [only] => Ok(Choice::Existing(only.clone())),
        several => Err(format!(
            "the stream has several consumers, name one with --consumer: {}",
            several.join(", ")
        )),
    }
}

async fn existing(stream: &Stream, name: &str) -> anyhow::Result<PullConsumer> {
    let info = stream
        .consumer_info(name)
        .await
        .with_context(|| format!("failed to open consumer `{name}`: --consumer names it"))?;
    if let Err(rule) = check(&info.config) {
        bail!("consumer `{name}` can't be used: {rule}");
    }
    stream
        .get_consumer(name)
        .await
        .map_err(|error| anyhow::anyhow!(error))
        .context("failed to open the consumer")
}

/// Refuses a consumer whose messages can't be acknowledged individually when they are stored.
fn check(config: &Config) -> Result<(), &'static str> {
    match config {
        Config { deliver_subject: Some(_), .. } => {
            Err("it pushes messages, and a pull consumer is needed")
        }
        Config { ack_policy: AckPolicy::Explicit, .. } => Ok(()),
        _ => Err("its ack policy is not explicit"),
    }
}

fn own() -> pull::Config {
    pull::Config {
        durable_name: Some(OWN.to_owned()),
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
    fn a_consumer_is_named_or_the_only_one() {
        let all = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let existing = |name: &str| Ok(Choice::Existing(name.to_owned()));
        assert_eq!(choose(Some("a"), all(&[])), existing("a"));
        assert_eq!(choose(None, all(&["b"])), existing("b"));
        assert_eq!(choose(None, all(&[])), Ok(Choice::Own));
        assert!(choose(None, all(&["c", "b"])).unwrap_err().ends_with("b, c"));
    }

    #[test]
    fn only_a_pull_consumer_with_acks_will_do() {
        let with = |ack_policy, deliver_subject| Config {
            ack_policy,
            deliver_subject,
            ..Config::default()
        };
        assert_eq!(check(&with(AckPolicy::Explicit, None)), Ok(()));
        assert!(check(&with(AckPolicy::All, None)).is_err());
        assert!(check(&with(AckPolicy::None, None)).is_err());
        assert!(check(&with(AckPolicy::Explicit, Some("inbox".to_owned()))).is_err());
    }
}
