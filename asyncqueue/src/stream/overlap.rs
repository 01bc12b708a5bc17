//! The streams and subjects that a queue claims on `JetStream`, and whether two queues claim the
//! same.

use super::spec::QueueSpec;

/// A stream, and the subject that it listens on, with all subjects below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StreamClaim {
    /// Name of the stream.
    pub(crate) stream: String,
    /// Subject of the stream.
    pub(crate) subject: String,
}

/// What two queues both claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// A stream.
    Stream(String),
    /// A subject of the first queue that equals, contains or is contained in one of the second.
    Subject {
        /// The subject of the first queue.
        subject: String,
        /// The subject of the second queue.
        others: String,
    },
}

/// Returns the streams of a queue: calls, results and dead letters.
#[must_use]
pub(crate) fn stream_claims(spec: &QueueSpec) -> [StreamClaim; 3] {
    let [calls, callbacks, dead] = spec.streams();
    [
        StreamClaim { stream: calls, subject: spec.subject.clone() },
        StreamClaim { stream: callbacks.clone(), subject: callbacks },
        StreamClaim { stream: dead.clone(), subject: dead },
    ]
}

/// Returns what two queues both claim, if anything.
#[must_use]
pub fn find_overlap(first: &QueueSpec, second: &QueueSpec) -> Option<Overlap> {
    let (first, second) = (stream_claims(first), stream_claims(second));
    let pairs = || first.iter().flat_map(|a| second.iter().map(move |b| (a, b)));
    if let Some((a, _)) = pairs().find(|(a, b)| a.stream == b.stream) {
        return Some(Overlap::Stream(a.stream.clone()));
    }
    let (a, b) =
        pairs().find(|(a, b)| covers(&a.subject, &b.subject) || covers(&b.subject, &a.subject))?;
    Some(Overlap::Subject { subject: a.subject.clone(), others: b.subject.clone() })
}

/// Returns whether a subject equals another, or is above it.
fn covers(subject: &str, other: &str) -> bool {
    other.strip_prefix(subject).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Owner;

    fn spec(queue: &str, stream: &str, subject: &str) -> QueueSpec {
        let (stream, subject) = (stream.to_owned(), subject.to_owned());
        QueueSpec { stream, subject, ..QueueSpec::new(queue.parse().unwrap(), Owner::standalone()) }
    }

    #[test]
    fn queues_clash_over_streams_and_subjects() {
        let jobs = spec("jobs", "JOBS", "jobs");
        for (other, expected) in [
            (spec("other", "other", "other"), None),
            (spec("other", "other", "jobs2"), None),
            (spec("other", "JOBS", "other"), Some(Overlap::Stream("JOBS".to_owned()))),
            (spec("jobs-dead", "jobs-dead", "x"), Some(Overlap::Stream("jobs-dead".to_owned()))),
            (
                spec("other", "other", "jobs.slow"),
                Some(Overlap::Subject {
                    subject: "jobs".to_owned(),
                    others: "jobs.slow".to_owned(),
                }),
            ),
            (
                spec("other", "other", "jobs-callbacks"),
                Some(Overlap::Subject {
                    subject: "jobs-callbacks".to_owned(),
                    others: "jobs-callbacks".to_owned(),
                }),
            ),
        ] {
            assert_eq!(find_overlap(&jobs, &other), expected, "{other:?}");
            assert_eq!(find_overlap(&other, &jobs).is_some(), expected.is_some(), "{other:?}");
        }
    }
}
