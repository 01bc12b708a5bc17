//! Names of lanes: `<queue>-fn-<namespace>=<function>`, and `<queue>-fn-=<number>` for a lane that
//! functions share.
//!
//! A `=` separates namespace and function, because names of both may contain dashes.

use crate::names::{FunctionName, QueueName};

/// Returns the name of the lane of a function.
///
/// ```
/// use asyncqueue::{FunctionName, lanes::lane_name};
///
/// let function = FunctionName::parse("figlet", "openfaas-fn")?;
/// assert_eq!(lane_name(&"slow-queue".parse()?, &function), "slow-queue-fn-openfaas-fn=figlet");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn lane_name(queue: &QueueName, function: &FunctionName) -> String {
    format!("{}{}={}", prefix(queue), function.namespace(), function.name())
}

/// Returns the name of a lane that functions share.
pub(super) fn group_name(queue: &QueueName, number: usize) -> String {
    format!("{}={number}", prefix(queue))
}

/// Returns whether a consumer of a queue's stream is a lane.
#[must_use]
pub fn is_lane(queue: &QueueName, consumer: &str) -> bool {
    consumer.strip_prefix(&prefix(queue)).is_some_and(|rest| rest.contains('='))
}

/// Returns whether a consumer of a queue's stream is a lane that functions share.
pub(crate) fn is_group(queue: &QueueName, consumer: &str) -> bool {
    consumer.strip_prefix(&prefix(queue)).is_some_and(|rest| rest.starts_with('='))
}

/// Returns the function of a lane; `None` for other consumers, and for a lane that functions share.
#[must_use]
pub fn function_of_lane(queue: &QueueName, consumer: &str) -> Option<FunctionName> {
    let (namespace, name) = consumer.strip_prefix(&prefix(queue))?.split_once('=')?;
    FunctionName::new(name, namespace).ok()
}

fn prefix(queue: &QueueName) -> String {
    format!("{queue}-fn-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_with_dashes_have_different_lanes() {
        let queue = "jobs".parse().unwrap();
        let name =
            |namespace, name| lane_name(&queue, &FunctionName::new(name, namespace).unwrap());
        assert_eq!(name("a-b", "c"), "jobs-fn-a-b=c");
        assert_ne!(name("a-b", "c"), name("a", "b-c"));
    }

    #[test]
    fn a_lane_differs_from_other_consumers() {
        let queue = "jobs".parse().unwrap();
        assert!(is_lane(&queue, "jobs-fn-ns=figlet") && !is_group(&queue, "jobs-fn-ns=figlet"));
        let group = group_name(&queue, 2);
        assert!(is_lane(&queue, &group) && is_group(&queue, &group), "{group}");
        let figlet = FunctionName::new("figlet", "ns").unwrap();
        assert_eq!(function_of_lane(&queue, &lane_name(&queue, &figlet)), Some(figlet));
        assert_eq!(function_of_lane(&queue, &group), None);
        assert_eq!(function_of_lane(&queue, "jobs-workers"), None);
        for other in ["jobs-workers", "jobs-fn-", "jobs-fn-ns", "jobs2-fn-ns=figlet", "=", ""] {
            assert!(!is_lane(&queue, other) && !is_group(&queue, other), "{other}");
        }
    }
}
