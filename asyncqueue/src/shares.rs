//! The shares that the workers of a queue have in the limits of the whole queue, and in those of
//! single functions: how many invocations are open, and how many start in a second.
//!
//! The workers of a queue share one entry in KV ([`crate::buckets::SLOTS`]). Each writes its own
//! share, and only over the entry that it has read. No clocks are compared: a worker is alive while
//! the number of its writes grows.

use std::collections::BTreeMap;

use async_nats::jetstream::{Context, message::PublishMessage};
use serde::{Deserialize, Serialize};

use crate::{
    buckets::SLOTS,
    jetstream::{NatsError, last_message},
    publish_failure::PublishFailure,
};

pub mod division;

/// All of the rate, as [`WorkerShare::rate`] counts it.
pub const WHOLE_RATE: u32 = 1_000_000;

/// Returns how many invocations a share of a rate starts in a second. `share` is in millionths.
#[must_use]
pub fn rate_of_share(per_second: u32, share: u32) -> f64 {
    f64::from(per_second) * f64::from(share) / f64::from(WHOLE_RATE)
}

/// The shares of all workers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shares {
    /// By the id of the process.
    #[serde(default)]
    pub workers: BTreeMap<String, WorkerShare>,
}

/// The share of one worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerShare {
    /// How often the worker has written its share. While it does not grow, the worker may be dead.
    pub beat: u64,
    /// Number of invocations that the worker may have open.
    #[serde(default)]
    pub slots: u32,
    /// Part of the rate, in millionths.
    #[serde(default)]
    pub rate: u32,
    /// Whether the worker shuts down, and gives up what it does not need any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
    /// Whether long calls use all its slots. It then leaves limits of functions to others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub busy: bool,
    /// Its shares in the limits of functions, by `<name>.<namespace>`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub functions: BTreeMap<String, FunctionShare>,
}

/// The share of one worker in the limits of a function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FunctionShare {
    /// Number of invocations of the function that the worker may have open.
    #[serde(skip_serializing_if = "is_zero")]
    pub slots: u32,
    /// Part of the function's rate, in millionths.
    #[serde(skip_serializing_if = "is_zero")]
    pub rate: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The entry of a key, and its revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredShares {
    /// The shares; empty if the entry does not exist.
    pub shares: Shares,
    /// The revision of the entry; 0 if it does not exist.
    pub revision: u64,
}

/// Reads the shares of a key: the name of a queue.
pub async fn read(js: &Context, key: &str) -> Result<StoredShares, NatsError> {
    let found = last_message(js, &SLOTS.stream(), &SLOTS.subject(key)).await?;
    let Some(message) = found else { return Ok(StoredShares::default()) };
    // A deleted key has an empty value.
    let shares = if message.payload.is_empty() {
        Shares::default()
    } else {
        serde_json::from_slice(&message.payload).map_err(NatsError::during("read the shares"))?
    };
    Ok(StoredShares { shares, revision: message.sequence })
}

/// Writes the shares of a key over the revision that was read. Returns `false` if another worker
/// has written since then.
pub async fn write(
    js: &Context,
    key: &str,
    shares: &Shares,
    revision: u64,
) -> Result<bool, NatsError> {
    const ACTION: &str = "write the shares of the workers";
    let json = serde_json::to_vec(shares).map_err(NatsError::during(ACTION))?;
    let entry =
        PublishMessage::build().payload(json.into()).expected_last_subject_sequence(revision);
    let written = async { js.send_publish(SLOTS.subject(key), entry).await?.await };
    match written.await.map_err(NatsError::during(ACTION)) {
        Ok(_) => Ok(true),
        Err(error) if PublishFailure::from_error(&error) == PublishFailure::Conflict => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_read_back_as_they_were_written() {
        let mut share = WorkerShare { beat: 7, slots: 5, rate: 250_000, ..WorkerShare::default() };
        let mut shares = Shares { workers: [("w-1".to_owned(), share.clone())].into() };
        let json = r#"{"workers":{"w-1":{"beat":7,"slots":5,"rate":250000}}}"#;
        assert_eq!(serde_json::to_string(&shares).unwrap(), json);
        assert_eq!(serde_json::from_str::<Shares>(json).unwrap(), shares);
        share.busy = true;
        share.functions = [("f.ns".to_owned(), FunctionShare { slots: 3, rate: 0 })].into();
        shares.workers.insert("w-1".to_owned(), share);
        let of_functions = r#"{"workers":{"w-1":{"beat":7,"slots":5,"rate":250000,"busy":true,"#
            .to_owned()
            + r#""functions":{"f.ns":{"slots":3}}}}}"#;
        assert_eq!(serde_json::to_string(&shares).unwrap(), of_functions);
        assert_eq!(serde_json::from_str::<Shares>(&of_functions).unwrap(), shares);
        shares = serde_json::from_str(json).unwrap();
        // A later version may add fields.
        let later = r#"{"of":1,"workers":{"w-1":{"beat":7,"slots":5,"rate":250000,"of":1}}}"#;
        assert_eq!(serde_json::from_str::<Shares>(later).unwrap(), shares);
    }
}
