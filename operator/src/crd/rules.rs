//! The CEL rules with which the API server validates a queue. Each message states what is allowed;
//! the API server adds the field and its value.

use asyncqueue::{function_namespaces, retry::policy};
use asyncqueue_runtime::contract::setting;
use kube::core::{Message, Rule};

use crate::labels::RESERVED_LABELS;

/// A duration as Go writes it, in the units that make sense here. Part of the schema and of each
/// rule on a duration: CEL's `duration()` fails on anything else, with an unhelpful message.
pub(super) const DURATION: &str = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$";

/// A name on `JetStream`: one subject token, and a file name everywhere.
pub(super) const JETSTREAM_NAME: &str = "^[A-Za-z0-9_-]+$";

/// Tokens separated by dots, the first of which does not begin with `_`: those subjects are the
/// inboxes of NATS's clients.
pub(super) const SUBJECT: &str = r"^[A-Za-z0-9-][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*$";

/// Names of the streams of the reserve.
const RESERVE: &str = "^asyncqueue-reserve(-[0-9]+)?$";

/// Servers that a NATS client can connect to.
pub(super) const NATS_URL: &str =
    r"^((nats|tls|ws|wss)://[^\s,/]+/?)(\s*,\s*(nats|tls|ws|wss)://[^\s,/]+/?)*$";

/// Returns the names of the variables that the operator sets on its workers: with other values, a
/// worker would be another queue's, or could not be reached. In alphabetical order.
pub(crate) fn operator_variables() -> Vec<&'static str> {
    let mut names: Vec<_> = setting::SET_BY_OPERATOR
        .into_iter()
        .chain(policy::SETTINGS)
        .chain([function_namespaces::SETTING])
        .collect();
    names.sort_unstable_by_key(|name| name.to_lowercase());
    names
}

pub(super) fn queue_name() -> Rule {
    rule(
        "size(self.metadata.name) <= 40 && \
         self.metadata.name.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')",
        "a queue's name must have 1 to 40 of a-z, 0-9 and -, and begin and end with a letter or \
         digit: its stream, its subject and its workers are named after it",
    )
}

pub(super) fn reserved_name() -> Rule {
    rule(
        "self.metadata.name != 'asyncqueue' || has(self.spec.stream.subject)",
        "a queue named asyncqueue needs a spec.stream.subject of its own: the subjects below \
         asyncqueue are what workers and gateways talk on",
    )
}

pub(super) fn name_of_the_reserve() -> Rule {
    rule(
        format!("!self.metadata.name.matches('{RESERVE}')"),
        "the streams asyncqueue-reserve keep room for what ends calls: give the queue another name",
    )
}

pub(super) fn reserved_stream() -> Rule {
    rule(
        format!("!self.matches('{RESERVE}') && !self.startsWith('KV_asyncqueue-')"),
        "the streams asyncqueue-reserve and KV_asyncqueue-... are shared by all queues: choose \
         another one",
    )
}

pub(super) fn stream_is_immutable() -> Rule {
    unchanged(
        "spec.stream.name",
        "self.metadata.name",
        "the calls that are stored would stay behind",
    )
}

pub(super) fn subject_is_immutable() -> Rule {
    unchanged(
        "spec.stream.subject",
        "self.metadata.name",
        "calls that are being sent would get lost",
    )
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
        "storage can't be changed, since JetStream can't move a stream: create another queue, send \
         the functions' calls there, and delete this one when it is empty",
    )
}

pub(super) fn timeout() -> Rule {
    positive("timeout", "24h")
}

pub(super) fn callback_timeout() -> Rule {
    positive("timeout of a callback", "1h")
}

pub(super) fn ack_wait() -> Rule {
    between("ackWait", "1s", "1h")
}

pub(super) fn duplicate_window() -> Rule {
    between("duplicateWindow", "1s", "24h")
}

pub(super) fn backoff(field: &str) -> Rule {
    between(field, "0s", "24h")
}

pub(super) fn max_age() -> Rule {
    between("maxAge", "1s", "87600h")
}

pub(super) fn max_delay() -> Rule {
    between("maxDelay", "0s", "87600h")
}

pub(super) fn retention() -> Rule {
    between("retention of results", "0s", "87600h")
}

/// At least one second: JetStream counts in seconds.
pub(super) fn max_retention() -> Rule {
    between("maxRetention", "1s", "87600h")
}

pub(super) fn retentions() -> Rule {
    in_order(
        "self.retention",
        "self.maxRetention",
        "retention must not be more than maxRetention: raise that too, it is for all results",
    )
}

/// At least one minute: people inspect dead letters.
pub(super) fn dead_letter_max_age() -> Rule {
    between("maxAge of dead letters", "1m", "87600h")
}

pub(super) fn backoffs() -> Rule {
    in_order(
        "self.minBackoff",
        "self.maxBackoff",
        "minBackoff must not be more than maxBackoff: it is the first wait, and that the longest",
    )
}

pub(super) fn duplicates_are_known() -> Rule {
    let order = in_order(
        "self.spec.stream.duplicateWindow",
        "self.spec.limits.maxAge",
        "limits.maxAge must not be less than stream.duplicateWindow: JetStream does not remember \
         the id of a call for longer than it keeps calls",
    );
    Rule { rule: format!("!has(self.spec.limits.maxAge) || {}", order.rule), ..order }
        .field_path(".spec.limits.maxAge")
}

pub(super) fn termination_grace_period() -> Rule {
    between("terminationGracePeriod", "15s", "25h")
}

pub(super) fn timeout_fits_grace_period() -> Rule {
    let (timeout, grace) = ("self.spec.timeout", "self.spec.worker.terminationGracePeriod");
    let fits = format!("duration({timeout}) + duration('15s') <= duration({grace})");
    rule(
        format!("!has({grace}) || {} || {} || {fits}", no_duration(timeout), no_duration(grace)),
        "worker.terminationGracePeriod must be at least timeout plus 15s, so that a worker can \
         finish its calls: raise it too, or remove it",
    )
    .field_path(".spec.worker.terminationGracePeriod")
}

pub(super) fn limits_of_functions_need_lanes() -> Rule {
    rule(
        "!has(self.spec.perFunction) || self.spec.fairness == 'Function'",
        "perFunction needs fairness: Function: without it, a function at its limit would delay the \
         calls of all others",
    )
    .field_path(".spec.perFunction")
}

pub(super) fn allowed_hosts() -> Rule {
    rule(
        concat!(
            r"self.all(host, host.contains('/') ? isCIDR(host) : isIP(host) ",
            r"|| host.matches('^(\\*\\.)?[A-Za-z0-9._-]+$'))",
        ),
        "allowedHosts must hold host names, *.suffix, addresses, or networks as 10.0.0.0/8",
    )
}

pub(super) fn gateway_url_is_used() -> Rule {
    rule(
        "!has(self.gatewayUrl) || (has(self.via) && self.via == 'Gateway')",
        "gatewayUrl needs via: Gateway too: a call that goes straight to its function passes \
         no gateway",
    )
}

pub(super) fn reserved_variables() -> Rule {
    let names: Vec<_> = operator_variables().iter().map(|name| format!("'{name}'")).collect();
    let names = names.join(", ");
    rule(
        format!("self.all(variable, !(variable.name in [{names}]))"),
        "the operator sets this variable from the fields of the spec: set the field instead. See \
         kubectl explain asyncqueue.spec; variables for the rest of asyncqueue-worker --help may \
         be set here",
    )
}

pub(super) fn reserved_labels() -> Rule {
    let labels = RESERVED_LABELS.map(|label| format!("'{label}'")).join(", ");
    rule(
        format!("![{labels}].exists(label, label in self)"),
        "podLabels can't set the labels by which the operator knows its workers: \
         asyncqueue.io/queue and app.kubernetes.io/name, instance, component, part-of and \
         managed-by",
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
        "a subject must be tokens of A-Z, a-z, 0-9, - and _ separated by single dots, such as \
         jobs.slow, without wildcards, and not begin with _",
    )
}

pub(super) fn reserved_subject() -> Rule {
    let reserve = escaped(r"^asyncqueue-reserve(-[0-9]+)?(\.|$)");
    rule(
        format!(
            "self != 'asyncqueue' && !self.startsWith('asyncqueue.') && !self.matches('{reserve}')"
        ),
        "subjects below asyncqueue and asyncqueue-reserve are what workers, gateways and the \
         reserve use: choose another one",
    )
}

pub(super) fn nats_url() -> Rule {
    rule(
        format!("self.matches('{}')", escaped(NATS_URL)),
        "a NATS URL must be written as nats://host:4222 or tls://host:4222, several of them \
         separated by commas",
    )
}

pub(super) fn nats_url_without_credentials() -> Rule {
    rule(
        "!self.contains('@')",
        "a NATS URL must hold no credentials, which all may read who may see this object: put \
         them, as USER:PASSWORD or a token, into a Secret in this namespace, and name that in \
         credentialsSecretRef",
    )
}

fn rule(rule: impl Into<String>, message: impl Into<String>) -> Rule {
    Rule::new(rule).message(Message::Message(message.into()))
}

/// Requires a duration greater than zero.
fn positive(field: &str, most: &str) -> Rule {
    let bounds = format!("duration(self) > duration('0s') && duration(self) <= duration('{most}')");
    duration(field, &bounds, &format!("of more than 0s and at most {most}"))
}

fn between(field: &str, least: &str, most: &str) -> Rule {
    let bounds =
        format!("duration(self) >= duration('{least}') && duration(self) <= duration('{most}')");
    duration(field, &bounds, &format!("from {least} to {most}"))
}

fn duration(field: &str, bounds: &str, allowed: &str) -> Rule {
    rule(
        format!("self.matches('{}') && {bounds}", escaped(DURATION)),
        format!("{field} must be a duration {allowed}, written as 200ms, 90s, 15m or 1h30m"),
    )
}

/// Requires that one duration is not greater than another. The rule on the field itself refuses a
/// value that is not a duration.
fn in_order(lesser: &str, greater: &str, message: &str) -> Rule {
    rule(
        format!(
            "{} || {} || duration({lesser}) <= duration({greater})",
            no_duration(lesser),
            no_duration(greater)
        ),
        message,
    )
}

/// Returns the expression that a field is not a duration.
fn no_duration(field: &str) -> String {
    format!("!{field}.matches('{}')", escaped(DURATION))
}

/// Requires that a field keeps its value. An absent field has the value `default`, so it may be
/// added or removed with that value.
fn unchanged(field: &str, default: &str, why: &str) -> Rule {
    let value = |of: &str| {
        let default = default.replace("self.", &format!("{of}."));
        format!("(has({of}.{field}) ? {of}.{field} : {default})")
    };
    rule(
        format!("{} == {}", value("self"), value("oldSelf")),
        format!(
            "{field} can't be changed, {why}: create another queue, and delete this one when it is \
             empty"
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

    use asyncqueue::{GoDuration, lanes::Fairness};
    use k8s_openapi::api::core::v1::EnvVar;

    use crate::{
        crd::{AsyncQueue, AsyncQueueSpec, PerFunctionSpec, Storage, Via},
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
    fn a_name_is_valid_for_a_stream_and_a_deployment() {
        assert!(named("a").validate_cel().is_ok());
        assert!(named(&"a".repeat(40)).validate_cel().is_ok());
        for bad in ["a.b", "-a", "a-", "A", &"a".repeat(41)] {
            let refused = named(bad).validate_cel().err().map(|errors| errors.to_string());
            assert_says(refused, "a queue's name must have 1 to 40 of a-z, 0-9 and -");
        }
    }

    #[test]
    fn subjects_of_workers_and_gateways_are_refused() {
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
    fn shared_streams_are_refused() {
        for name in ["asyncqueue-reserve", "asyncqueue-reserve-2"] {
            let refused_name = named(name).validate_cel().err().map(|errors| errors.to_string());
            assert_says(refused_name, "give the queue another name");
            assert_says(
                refused(|spec| spec.stream.name = Some(name.to_owned())),
                "shared by all queues",
            );
            let subject = format!("{name}.x");
            assert_says(refused(|spec| spec.stream.subject = Some(subject)), "choose another one");
        }
        let bucket = || Some("KV_asyncqueue-directory".to_owned());
        assert_says(refused(|spec| spec.stream.name = bucket()), "shared by all queues");
        assert!(named("asyncqueue-reserved").validate_cel().is_ok());
    }

    #[test]
    fn limits_of_functions_need_a_fair_queue() {
        let limits = Some(PerFunctionSpec { max_inflight: Some(10), adaptive: false });
        assert_says(refused(|spec| spec.per_function = limits), "needs fairness: Function");
        let with_lanes = refused(|spec| {
            spec.fairness = Fairness::Function;
            spec.per_function = limits;
        });
        assert_eq!(with_lanes, None);
    }

    #[test]
    fn results_are_kept_within_bounds() {
        let kept = |retention, max_retention| {
            refused(|spec| {
                spec.results.retention = seconds(retention);
                spec.results.max_retention = seconds(max_retention);
            })
        };
        assert_eq!(kept(0, 1), None);
        assert_eq!(kept(60, 60), None);
        assert_says(kept(61, 60), "must not be more than maxRetention");
        assert_says(kept(0, 0), "from 1s");
    }

    #[test]
    fn durations_have_bounds() {
        for good in [1, 60, 24 * 3600] {
            assert_eq!(refused(|spec| spec.timeout = seconds(good)), None);
        }
        assert_says(
            refused(|spec| spec.timeout = seconds(0)),
            "timeout must be a duration of more than 0s",
        );
        assert_says(refused(|spec| spec.timeout = seconds(24 * 3600 + 1)), "at most 24h");
        let graces = |timeout, grace| {
            refused(|spec| {
                spec.timeout = seconds(timeout);
                spec.worker.termination_grace_period = Some(seconds(grace));
            })
        };
        assert_eq!(graces(60, 75), None);
        assert_eq!(graces(24 * 3600, 25 * 3600), None);
        assert_says(graces(61, 75), "must be at least timeout plus 15s");
        assert_says(graces(1, 25 * 3600 + 1), "terminationGracePeriod must be a duration from 15s");
        assert_says(
            refused(|spec| spec.consumer.ack_wait = seconds(3601)),
            "ackWait must be a duration from 1s",
        );
        assert_says(
            refused(|spec| spec.stream.duplicate_window = seconds(0)),
            "duplicateWindow must be",
        );
    }

    #[test]
    fn wildcards_and_inboxes_are_refused_as_subjects() {
        for bad in ["a.*", "a.>", "a..b", ".a", "a b", "_INBOX.a"] {
            assert_says(
                refused(|spec| spec.stream.subject = Some(bad.to_owned())),
                "a subject must be tokens",
            );
        }
        assert_eq!(refused(|spec| spec.stream.subject = Some("jobs.slow-1.B_2".to_owned())), None);
        assert_says(
            refused(|spec| spec.stream.name = Some("a.b".to_owned())),
            "a name on JetStream",
        );
        assert_says(
            refused(|spec| spec.consumer.durable_name = Some("a b".to_owned())),
            "a name on JetStream",
        );
    }

    #[test]
    fn a_nats_url_has_a_scheme_and_a_host() {
        for good in ["nats://a", "tls://a:4222", "nats://a:1,nats://b:2", "nats://a, nats://b/"] {
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
    fn a_nats_url_holds_no_credentials() {
        for bad in ["tls://u:p@a:4222", "nats://a,nats://token@b"] {
            assert_says(
                refused(|spec| spec.nats.url = Some(bad.to_owned())),
                "must hold no credentials",
            );
        }
    }

    #[test]
    fn the_first_wait_is_not_more_than_the_longest() {
        let backoffs = |min, max| {
            refused(|spec| {
                (spec.retry.min_backoff, spec.retry.max_backoff) = (seconds(min), seconds(max));
            })
        };
        assert_eq!(backoffs(0, 0), None);
        assert_eq!(backoffs(60, 60), None);
        assert_says(backoffs(61, 60), "minBackoff must not be more than maxBackoff");
        assert_says(backoffs(1, 24 * 3600 + 1), "maxBackoff must be a duration from 0s to 24h");
    }

    #[test]
    fn the_duplicate_window_is_not_longer_than_the_max_age() {
        let ages = |max_age| refused(|spec| spec.limits.max_age = Some(seconds(max_age)));
        assert_eq!(ages(120), None);
        assert_says(ages(119), "limits.maxAge must not be less than stream.duplicateWindow");
        assert_says(ages(0), "maxAge must be a duration from 1s");
        let delay = refused(|spec| spec.limits.max_delay = seconds(87_601 * 3600));
        assert_says(delay, "maxDelay must be a duration from 0s to 87600h");
    }

    #[test]
    fn callbacks_go_to_hosts_and_networks() {
        let hosts =
            |host: &str| refused(|spec| spec.callback.allowed_hosts = vec![host.to_owned()]);
        for good in
            ["a.example.com", "*.example.com", "10.0.0.1", "10.0.0.0/8", "fd00::/8", "fd00::1"]
        {
            assert_eq!(hosts(good), None, "{good}");
        }
        for bad in ["http://a", "a,b", "a:80", "10.0.0.0/99", "a/b", "*"] {
            assert_says(hosts(bad), "allowedHosts must hold");
        }
        assert_says(
            refused(|spec| spec.callback.timeout = seconds(0)),
            "timeout of a callback must be",
        );
    }

    #[test]
    fn a_gateway_url_needs_via_gateway() {
        let gateway = |via| {
            refused(|spec| {
                spec.invoke.via = via;
                spec.invoke.gateway_url = Some("http://gateway:8080".to_owned());
            })
        };
        assert_eq!(gateway(Some(Via::Gateway)), None);
        assert_says(gateway(Some(Via::Direct)), "gatewayUrl needs via: Gateway");
        assert_says(gateway(None), "gatewayUrl needs via: Gateway");
    }

    #[test]
    fn variables_and_labels_of_the_operator_are_refused() {
        let variable = |name: &str| {
            refused(|spec| {
                spec.worker.env = vec![EnvVar { name: name.to_owned(), ..EnvVar::default() }];
            })
        };
        assert_eq!(variable("max_response_bytes"), None);
        assert_says(variable("queue_name"), "the operator sets this variable");
        let label = |label: &str| {
            refused(|spec| spec.worker.pod_labels = [(label.to_owned(), "x".to_owned())].into())
        };
        assert_eq!(label("team"), None);
        assert_says(label("asyncqueue.io/queue"), "podLabels can't set the labels");
    }

    #[test]
    fn dead_letters_are_kept_for_a_while() {
        assert_says(
            refused(|spec| spec.dead_letter.max_age = seconds(59)),
            "maxAge of dead letters must be a duration from 1m",
        );
    }

    #[test]
    fn a_change_that_would_leave_calls_behind_is_refused() {
        let other = || Some("other".to_owned());
        assert_says(
            refused_change(|spec| spec.stream.name = other()),
            "spec.stream.name can't be changed",
        );
        assert_says(
            refused_change(|spec| spec.stream.subject = other()),
            "spec.stream.subject can't be changed",
        );
        assert_says(
            refused_change(|spec| spec.consumer.durable_name = other()),
            "spec.consumer.durableName can't be changed",
        );
        assert_says(
            refused_change(|spec| spec.stream.storage = Storage::Memory),
            "storage can't be changed",
        );
    }

    #[test]
    fn a_default_may_be_written_out() {
        let same = refused_change(|spec| {
            spec.stream.name = Some("slow-queue".to_owned());
            spec.stream.subject = Some("slow-queue".to_owned());
            spec.consumer.durable_name = Some("slow-queue-workers".to_owned());
        });
        assert_eq!(same, None);
    }

    #[test]
    fn all_other_fields_may_be_changed() {
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
