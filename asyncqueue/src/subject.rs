//! Subjects: the stream itself is the index of its messages.
//!
//! Each call has a separate subject, `<subject>.<namespace>.<function>.<call-id>`. Depth per
//! function, purge per function, cancel and status by call id are then subject filters, without a
//! database.

use crate::{
    call_id::CallId,
    names::{FunctionName, QueueName},
};

/// Returns the subjects that a queue's stream listens on: its own (where existing `OpenFaaS`
/// gateways publish) and all below it.
#[must_use]
pub fn stream_subjects(subject: &str) -> Vec<String> {
    vec![subject.to_owned(), format!("{subject}.>")]
}

/// Returns the subject of one call, below its queue's `subject`. On the streams of callbacks and
/// dead letters, it is below the name of that stream.
#[must_use]
pub fn call_subject(subject: &str, function: &FunctionName, call_id: &CallId) -> String {
    [subject, function.namespace(), function.name(), call_id.as_str()].join(".")
}

/// Returns the subject of the result of a call, on its queue's stream of callbacks: one for each
/// call, even if several share an id.
#[must_use]
pub fn result_subject(
    queue: &QueueName,
    function: &FunctionName,
    call_id: &CallId,
    sequence: u64,
) -> String {
    format!("{}.{sequence}", call_subject(&queue.callback_stream(), function, call_id))
}

/// Returns the subject of the kept result of a call: one for each call, even if several share an
/// id.
#[must_use]
pub fn kept_result_subject(
    queue: &QueueName,
    function: &FunctionName,
    call_id: &CallId,
    sequence: u64,
) -> String {
    format!("{}.{sequence}", call_subject(&queue.results_stream(), function, call_id))
}

/// Returns the filter for the calls with an id, below a queue's `subject`: those of one function,
/// or of any.
#[must_use]
pub fn call_filter(subject: &str, function: Option<&FunctionName>, call_id: &CallId) -> String {
    match function {
        Some(function) => call_subject(subject, function, call_id),
        None => format!("{subject}.*.*.{call_id}"),
    }
}

/// Returns the filter for the calls below a queue's `subject`: those of one function, or of any.
#[must_use]
pub fn function_filter(subject: &str, function: Option<&FunctionName>) -> String {
    match function {
        Some(function) => format!("{subject}.{}.{}.*", function.namespace(), function.name()),
        None => format!("{subject}.*.*.*"),
    }
}

/// Returns the call id with which a subject ends; `None` on the queue's own subject.
#[must_use]
pub fn parse_call_id(subject: &str, queue_subject: &str) -> Option<CallId> {
    let rest = subject.strip_prefix(queue_subject)?.strip_prefix('.')?;
    let mut tokens = rest.split('.');
    let (_namespace, _function, id) = (tokens.next()?, tokens.next()?, tokens.next()?);
    if tokens.next().is_some() { None } else { id.parse().ok() }
}

/// Returns the function in a call's subject; `None` on a subject that is not of one call.
#[must_use]
pub fn parse_function(subject: &str) -> Option<FunctionName> {
    let mut tokens = subject.rsplit('.');
    let (_id, name, namespace) = (tokens.next()?, tokens.next()?, tokens.next()?);
    tokens.next()?;
    FunctionName::new(name, namespace).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_calls_subject_names_function_and_id() {
        let function = FunctionName::new("figlet", "openfaas-fn").unwrap();
        let subject = call_subject("slow.queue", &function, &"id-1".parse().unwrap());
        assert_eq!(subject, "slow.queue.openfaas-fn.figlet.id-1");
        assert_eq!(parse_call_id(&subject, "slow.queue").unwrap().as_str(), "id-1");
        let filter = function_filter("slow.queue", Some(&function));
        assert_eq!(filter, "slow.queue.openfaas-fn.figlet.*");
        assert_eq!(function_filter("slow.queue", None), "slow.queue.*.*.*");
        assert_eq!(parse_function(&subject), Some(function));
        assert_eq!(parse_function("slow.queue"), None);
        assert_eq!(parse_call_id("slow.queue", "slow.queue"), None);
        assert_eq!(parse_call_id("slow.queue.a.b", "slow.queue"), None);
        assert_eq!(parse_call_id("slow.queue.a.b.c.d", "slow.queue"), None);
        assert_eq!(parse_call_id("slow.queuex.a.b.c", "slow.queue"), None);
    }
}
