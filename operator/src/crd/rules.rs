//! The rules that the API server holds a queue against, in CEL. Each message says what is allowed; the API server adds
//! the field and its value.

use kube::core::{Message, Rule};

/// A duration as Go writes it, in the units that make sense here. Part of the schema and of each rule on a
/// duration: CEL's `duration()` fails on anything else, with a message that helps nobody.
pub(super) const DURATION: &str = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$";

/// A name on `JetStream`: one subject token, and a file name everywhere.
pub(super) const JETSTREAM_NAME: &str = "^[A-Za-z0-9_-]+$";

/// Tokens separated by dots, the first of which does not begin with `_`: those subjects are the inboxes of
/// NATS's clients.
pub(super) const SUBJECT: &str = r"^[A-Za-z0-9-][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*$";

/// Servers that a NATS client can connect to.
pub(super) const NATS_URL: &str =
    r"^((nats|tls|ws|wss)://[^\s,/]+/?)(\s*,\s*(nats|tls|ws|wss)://[^\s,/]+/?)*$";

pub(super) fn queue_name() -> Rule {
    rule(
        "size(self.metadata.name) <= 40 && self.metadata.name.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')",
        "a queue's name must have 1 to 40 of a-z, 0-9 and -, and begin and end with a letter or digit: \
         its stream, its subject and its workers are named after it",
    )
}

pub(super) fn reserved_name() -> Rule {
    rule(
        "self.metadata.name != 'asyncqueue' || has(self.spec.stream.subject)",
        "a queue named asyncqueue needs a spec.stream.subject of its own: \
         the subjects below asyncqueue are what workers and gateways talk on",
    )
}

pub(super) fn stream_is_immutable() -> Rule {
    unchanged("spec.stream.name", "self.metadata.name", "the calls that are stored would stay behind")
}

pub(super) fn subject_is_immutable() -> Rule {
    unchanged("spec.stream.subject", "self.metadata.name", "calls that are being sent would get lost")
}

pub(super) fn durable_is_immutable() -> Rule {
    unchanged(
        "spec.consumer.durableName",
        "self.metadata.name + '-workers'",
        "a stream of calls has one consumer, whose state would stay behind",
    )
}

pub(super) fn storage_is_immutable() -> Rule {
    rule(
        "self == oldSelf",
        "storage can't be changed, since JetStream can't move a stream: \
         create another queue, send the functions' calls there, and delete this one when it is empty",
    )
}

pub(super) fn timeout() -> Rule {
    duration(
        "timeout",
        "duration(self) > duration('0s') && duration(self) <= duration('24h')",
        "of more than 0s and at most 24h",
    )
}

pub(super) fn ack_wait() -> Rule {
    duration(
        "ackWait",
        "duration(self) >= duration('1s') && duration(self) <= duration('1h')",
        "from 1s to 1h",
    )
}

pub(super) fn duplicate_window() -> Rule {
    duration(
        "duplicateWindow",
        "duration(self) >= duration('1s') && duration(self) <= duration('24h')",
        "from 1s to 24h",
    )
}

pub(super) fn jetstream_name() -> Rule {
    rule(
        format!("self.matches('{JETSTREAM_NAME}')"),
        "a name on JetStream must have 1 to 64 of A-Z, a-z, 0-9, - and _",
    )
}

pub(super) fn subject() -> Rule {
    rule(
        format!("self.matches('{}')", escaped(SUBJECT)),
        "a subject must be tokens of A-Z, a-z, 0-9, - and _ separated by single dots, such as jobs.slow, \
         without wildcards, and not begin with _",
    )
}

pub(super) fn reserved_subject() -> Rule {
    rule(
        "self != 'asyncqueue' && !self.startsWith('asyncqueue.')",
        "subjects below asyncqueue are what workers and gateways talk on: choose another one",
    )
}

pub(super) fn nats_url() -> Rule {
    rule(
        format!("self.matches('{}')", escaped(NATS_URL)),
        "a NATS URL must be written as nats://host:4222 or tls://host:4222, several of them separated by commas",
    )
}

fn rule(rule: impl Into<String>, message: impl Into<String>) -> Rule {
    Rule::new(rule).message(Message::Message(message.into()))
}

fn duration(field: &str, bounds: &str, allowed: &str) -> Rule {
    rule(
        format!("self.matches('{}') && {bounds}", escaped(DURATION)),
        format!("{field} must be a duration {allowed}, written as 200ms, 90s, 15m or 1h30m"),
    )
}

/// A field of the object keeps its value. Absent, it has the value `default`: so it may be written out or left out, as
/// long as that says the same.
fn unchanged(field: &str, default: &str, why: &str) -> Rule {
    let value = |of: &str| {
        let default = default.replace("self.", &format!("{of}."));
        format!("(has({of}.{field}) ? {of}.{field} : {default})")
    };
    rule(
        format!("{} == {}", value("self"), value("oldSelf")),
        format!(
            "{field} can't be changed, {why}: create another queue, and delete this one when it is empty"
        ),
    )
    .field_path(format!(".{field}"))
}

/// A regular expression within the quotes of a CEL string.
fn escaped(regex: &str) -> String {
    regex.replace('\\', r"\\")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use asyncqueue::GoDuration;

    use crate::{
        crd::{AsyncQueue, AsyncQueueSpec, Storage},
        fixtures,
    };

    /// What the API server says to a new queue, by CEL alone.
    fn refused(change: impl FnOnce(&mut AsyncQueueSpec)) -> Option<String> {
        let mut queue = fixtures::queue("slow-queue");
        change(&mut queue.spec);
        queue.validate_cel().err().map(|errors| errors.to_string())
    }

    /// What the API server says to a change.
    fn refused_change(change: impl FnOnce(&mut AsyncQueueSpec)) -> Option<String> {
        let old = fixtures::queue("slow-queue");
        let mut new = old.clone();
        change(&mut new.spec);
        new.validate_cel_update(&old).err().map(|errors| errors.to_string())
    }

    fn named(name: &str) -> AsyncQueue {
        fixtures::queue(name)
    }

    fn seconds(seconds: u64) -> GoDuration {
        GoDuration(Duration::from_secs(seconds))
    }

    #[track_caller]
    fn assert_says(refused: Option<String>, message: &str) {
        let refused = refused.expect("not refused");
        assert!(refused.contains(message), "{refused}");
    }

    #[test]
    fn every_default_is_allowed() {
        assert_eq!(refused(|_| {}), None);
    }

    #[test]
    fn a_name_is_one_of_a_stream_a_subject_and_a_deployment() {
        assert!(named("a").validate_cel().is_ok());
        assert!(named(&"a".repeat(40)).validate_cel().is_ok());
        for bad in ["a.b", "-a", "a-", "A", &"a".repeat(41)] {
            let refused = named(bad).validate_cel().err().map(|errors| errors.to_string());
            assert_says(refused, "a queue's name must have 1 to 40 of a-z, 0-9 and -");
        }
    }

    #[test]
    fn the_subjects_of_workers_and_gateways_are_not_a_queues() {
        let mut queue = named("asyncqueue");
        let refused_name = queue.validate_cel().err().map(|errors| errors.to_string());
        assert_says(refused_name, "needs a spec.stream.subject of its own");
        queue.spec.stream.subject = Some("jobs".to_owned());
        assert!(queue.validate_cel().is_ok());
        for reserved in ["asyncqueue", "asyncqueue.stats"] {
            let refused = refused(|spec| spec.stream.subject = Some(reserved.to_owned()));
            assert_says(refused, "choose another one");
        }
        assert_eq!(refused(|spec| spec.stream.subject = Some("asyncqueue2".to_owned())), None);
    }

    #[test]
    fn durations_have_bounds() {
        for good in [1, 60, 24 * 3600] {
            assert_eq!(refused(|spec| spec.timeout = seconds(good)), None);
        }
        assert_says(refused(|spec| spec.timeout = seconds(0)), "timeout must be a duration of more than 0s");
        assert_says(refused(|spec| spec.timeout = seconds(24 * 3600 + 1)), "at most 24h");
        assert_says(
            refused(|spec| spec.consumer.ack_wait = seconds(3601)),
            "ackWait must be a duration from 1s",
        );
        assert_says(refused(|spec| spec.stream.duplicate_window = seconds(0)), "duplicateWindow must be");
    }

    #[test]
    fn what_would_be_a_wildcard_or_an_inbox_is_no_subject() {
        for bad in ["a.*", "a.>", "a..b", ".a", "a b", "_INBOX.a"] {
            assert_says(
                refused(|spec| spec.stream.subject = Some(bad.to_owned())),
                "a subject must be tokens",
            );
        }
        assert_eq!(refused(|spec| spec.stream.subject = Some("jobs.slow-1.B_2".to_owned())), None);
        assert_says(refused(|spec| spec.stream.name = Some("a.b".to_owned())), "a name on JetStream");
        assert_says(
            refused(|spec| spec.consumer.durable_name = Some("a b".to_owned())),
            "a name on JetStream",
        );
    }

    #[test]
    fn a_nats_url_has_a_scheme_and_a_host() {
        for good in ["nats://a", "tls://u:p@a:4222", "nats://a:1,nats://b:2", "nats://a, nats://b/"] {
            assert_eq!(refused(|spec| spec.nats.url = Some(good.to_owned())), None, "{good}");
        }
        for bad in ["a", "http://a", "nats://", "nats://a;nats://b nats://c"] {
            assert_says(
                refused(|spec| spec.nats.url = Some(bad.to_owned())),
                "a NATS URL must be written as",
            );
        }
    }

    #[test]
    fn what_would_leave_calls_behind_cannot_be_changed() {
        let other = || Some("other".to_owned());
        assert_says(refused_change(|spec| spec.stream.name = other()), "spec.stream.name can't be changed");
        assert_says(
            refused_change(|spec| spec.stream.subject = other()),
            "spec.stream.subject can't be changed",
        );
        assert_says(
            refused_change(|spec| spec.consumer.durable_name = other()),
            "spec.consumer.durableName can't be changed",
        );
        assert_says(refused_change(|spec| spec.stream.storage = Storage::Memory), "storage can't be changed");
    }

    #[test]
    fn what_says_the_same_may_be_written_out() {
        let same = refused_change(|spec| {
            spec.stream.name = Some("slow-queue".to_owned());
            spec.stream.subject = Some("slow-queue".to_owned());
            spec.consumer.durable_name = Some("slow-queue-workers".to_owned());
        });
        assert_eq!(same, None);
    }

    #[test]
    fn all_else_may_be_changed() {
        let change = refused_change(|spec| {
            spec.max_inflight = 7;
            spec.timeout = seconds(7);
            spec.replicas = 0;
            spec.stream.replicas = 3;
            spec.stream.duplicate_window = seconds(7);
            spec.consumer.ack_wait = seconds(7);
            spec.nats.url = Some("nats://a".to_owned());
        });
        assert_eq!(change, None);
    }
}
