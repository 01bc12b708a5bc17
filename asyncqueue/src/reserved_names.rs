//! Names that no queue can have, because all queues share what has these names.
//!
//! The CRD of `AsyncQueue` has the same rules for the API server (`operator/src/crd/rules.rs`), and
//! a test compares both.

use crate::{names::QueueName, reserve};

/// The subject on which, and below which, workers and gateways communicate.
pub(crate) const ROOT_SUBJECT: &str = "asyncqueue";

/// Prefix of the streams of KV buckets.
const BUCKET_STREAM_PREFIX: &str = "KV_asyncqueue-";

/// A name is reserved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} `{name}` is reserved: {why}; {remedy}")]
pub struct ReservedName {
    kind: &'static str,
    name: String,
    why: &'static str,
    remedy: &'static str,
}

const SUBJECT_REASON: &str = "the subjects below asyncqueue are what workers and gateways talk on";
const RESERVE_REASON: &str = "the streams asyncqueue-reserve keep room for what ends calls";
const BUCKET_REASON: &str = "it holds a KV bucket of AsyncQueue";
const CHOOSE_ANOTHER: &str = "choose another one";

/// Refuses a queue whose name is reserved. `has_subject`: the queue's subject is set and is not its
/// name.
pub fn check_queue(name: &QueueName, has_subject: bool) -> Result<(), ReservedName> {
    let refuse =
        |why, remedy| Err(ReservedName { kind: "queue name", name: name.to_string(), why, remedy });
    match name.as_str() {
        ROOT_SUBJECT if !has_subject => {
            refuse(SUBJECT_REASON, "choose another one, or give it a subject of its own")
        }
        name if is_reserve_stream(name) => refuse(RESERVE_REASON, CHOOSE_ANOTHER),
        _ => Ok(()),
    }
}

/// Refuses a reserved name of a stream of calls.
pub fn check_stream(name: &str) -> Result<(), ReservedName> {
    let refuse = |why| {
        Err(ReservedName { kind: "stream", name: name.to_owned(), why, remedy: CHOOSE_ANOTHER })
    };
    match name {
        name if is_reserve_stream(name) => refuse(RESERVE_REASON),
        name if name.starts_with(BUCKET_STREAM_PREFIX) => refuse(BUCKET_REASON),
        _ => Ok(()),
    }
}

/// Refuses a reserved subject of a queue.
pub fn check_subject(subject: &str) -> Result<(), ReservedName> {
    let refuse = |why| {
        Err(ReservedName { kind: "subject", name: subject.to_owned(), why, remedy: CHOOSE_ANOTHER })
    };
    let first = subject.split('.').next().unwrap_or_default();
    match first {
        ROOT_SUBJECT => refuse(SUBJECT_REASON),
        first if is_reserve_stream(first) => refuse(RESERVE_REASON),
        _ => Ok(()),
    }
}

/// Returns whether a name is that of a stream of the reserve: `asyncqueue-reserve`, or the same
/// with a number.
fn is_reserve_stream(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(reserve::STREAM) else { return false };
    let is_number = |rest: &str| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit());
    rest.is_empty() || rest.strip_prefix('-').is_some_and(is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_what_queues_share_are_reserved() {
        let queue = |name: &str, has_subject| check_queue(&name.parse().unwrap(), has_subject);
        assert!(
            queue("asyncqueue", false).unwrap_err().to_string().contains("a subject of its own")
        );
        assert_eq!(queue("asyncqueue", true), Ok(()));
        for name in ["asyncqueue-reserve", "asyncqueue-reserve-2"] {
            assert!(queue(name, true).is_err() && check_stream(name).is_err(), "{name}");
            assert!(
                check_subject(name).is_err() && check_subject(&format!("{name}.x")).is_err(),
                "{name}"
            );
        }
        for name in
            ["asyncqueue2", "asyncqueue-reserved", "asyncqueue-reserve-", "asyncqueue-reserve-x"]
        {
            assert_eq!(
                (queue(name, false), check_stream(name), check_subject(name)),
                (Ok(()), Ok(()), Ok(()))
            );
        }
        for subject in ["asyncqueue", "asyncqueue.stats"] {
            assert!(
                check_subject(subject).unwrap_err().to_string().contains("talk on"),
                "{subject}"
            );
        }
        assert!(check_stream("KV_asyncqueue-directory").is_err());
        assert_eq!(check_stream("KV_other"), Ok(()));
    }
}
