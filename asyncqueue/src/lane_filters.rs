//! The filters of lanes: which consumer takes which subject.
//!
//! No two consumers of a work queue may take the same subject, and together they take each subject
//! of the stream.

use crate::names::FunctionName;

/// Returns the filters of the consumer that takes what is no call of a function: each number of
/// tokens below the queue's subject but three.
pub(crate) fn rest_filters(subject: &str) -> Vec<String> {
    ["", ".*", ".*.*", ".*.*.*.>"].map(|below| format!("{subject}{below}")).into()
}

/// Returns whether a queue has lanes, by the filters of its consumer of calls.
#[must_use]
pub fn has_lanes(filters: &[String]) -> bool {
    filters.first().is_some_and(|subject| *filters == rest_filters(subject))
}

/// Returns the filter for all calls of all functions.
pub(crate) fn all_calls(subject: &str) -> String {
    format!("{subject}.*.*.*")
}

/// Returns the filter of a function's lane.
pub(crate) fn lane_filter(subject: &str, function: &FunctionName) -> String {
    format!("{subject}.{}.{}.*", function.namespace(), function.name())
}

/// Returns the filter of the lane to which the message on a subject belongs; `None` for a subject
/// that is not of a call.
pub(crate) fn filter_of(subject: &str, queue_subject: &str) -> Option<String> {
    let below = subject.strip_prefix(queue_subject)?.strip_prefix('.')?;
    let (function, id) = below.rsplit_once('.')?;
    let is_call = function.split('.').count() == 2 && !id.is_empty();
    is_call.then(|| format!("{queue_subject}.{function}.*"))
}

/// Returns the function of a lane's filter; `None` if no function can have such a name, or the
/// filter is not of a lane.
#[must_use]
pub fn function_of(filter: &str, queue_subject: &str) -> Option<FunctionName> {
    let below = filter.strip_prefix(queue_subject)?.strip_prefix('.')?.strip_suffix(".*")?;
    let (namespace, name) = below.split_once('.')?;
    FunctionName::new(name, namespace).ok()
}

/// Returns whether a filter of a consumer takes a subject.
#[must_use]
pub fn matches_filter(filter: &str, subject: &str) -> bool {
    let (mut filter, mut subject) = (filter.split('.'), subject.split('.'));
    loop {
        match (filter.next(), subject.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some(wanted), Some(token)) if wanted == "*" || wanted == token => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_subject_has_exactly_one_consumer() {
        let function = FunctionName::new("figlet", "ns").unwrap();
        let lane = lane_filter("jobs.slow", &function);
        assert_eq!(lane, "jobs.slow.ns.figlet.*");
        for (subject, is_call) in [
            ("jobs.slow", false),
            ("jobs.slow.a", false),
            ("jobs.slow.a.b", false),
            ("jobs.slow.ns.figlet.id", true),
            ("jobs.slow.ns.figlet.id.x", false),
            ("jobs.slow.ns.figlet.id.x.y", false),
        ] {
            let rest = rest_filters("jobs.slow");
            let taken_by_rest =
                rest.iter().filter(|filter| matches_filter(filter, subject)).count();
            assert_eq!(taken_by_rest, usize::from(!is_call), "{subject}");
            assert_eq!(matches_filter(&lane, subject), is_call, "{subject}");
            assert_eq!(matches_filter(&all_calls("jobs.slow"), subject), is_call, "{subject}");
            assert_eq!(filter_of(subject, "jobs.slow").is_some(), is_call, "{subject}");
        }
    }

    #[test]
    fn filters_of_other_programs_are_no_lanes() {
        assert!(has_lanes(&rest_filters("jobs.slow")));
        for filters in [&[][..], &["jobs".to_owned()], &["jobs.>".to_owned()]] {
            assert!(!has_lanes(filters), "{filters:?}");
        }
    }

    #[test]
    fn a_filter_names_the_function_of_its_calls() {
        let filter = filter_of("jobs.ns.figlet.id-1", "jobs").unwrap();
        assert_eq!(filter, "jobs.ns.figlet.*");
        assert_eq!(function_of(&filter, "jobs"), FunctionName::new("figlet", "ns").ok());
        assert_eq!(function_of("jobs.n:s.figlet.*", "jobs"), None);
        assert_eq!(filter_of("other.ns.figlet.id", "jobs"), None);
    }
}
