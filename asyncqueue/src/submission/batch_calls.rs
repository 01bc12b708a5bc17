//! The calls of a batch: all of one queue.

use std::collections::HashSet;

use super::{batch_lines::BatchLine, error::SubmissionError};
use crate::{directory::QueueRoute, invocation::Invocation};

/// The calls of a batch, and where they go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchCalls {
    /// The calls, in the order of the lines.
    pub calls: Vec<Invocation>,
    /// The route of their queue.
    pub route: QueueRoute,
    /// The calls, by their index, whose ids the client chose.
    pub own_ids: HashSet<usize>,
}

// === impl BatchCalls ===

impl BatchCalls {
    /// Creates the calls of the lines of a batch. `admit` returns the call of the line with a
    /// number, from 1, and the route of its queue.
    ///
    /// # Errors
    ///
    /// Those of `admit`, and if there is no call or if the calls belong to several queues.
    pub fn from_lines<E: From<SubmissionError>>(
        lines: Vec<BatchLine>,
        mut admit: impl FnMut(usize, BatchLine) -> Result<(Invocation, QueueRoute), E>,
    ) -> Result<Self, E> {
        let (mut calls, mut own_ids) = (Vec::with_capacity(lines.len()), HashSet::new());
        let mut first = None::<QueueRoute>;
        for (index, line) in lines.into_iter().enumerate() {
            if line.call_id.is_some() {
                own_ids.insert(index);
            }
            let number = index + 1;
            let (call, route) = admit(number, line)?;
            match &first {
                Some(first) if first.queue != route.queue => {
                    let (queue, other) = (first.queue.clone(), route.queue);
                    return Err(SubmissionError::BatchQueues { queue, other }
                        .in_line(number)
                        .into());
                }
                Some(_) => {}
                None => first = Some(route),
            }
            calls.push(call);
        }
        let route = first.ok_or(SubmissionError::BatchEmpty)?;
        Ok(Self { calls, route, own_ids })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{call_id::CallId, names::FunctionName, submission::parse_batch};

    fn calls(lines: &str) -> Result<BatchCalls, SubmissionError> {
        BatchCalls::from_lines(parse_batch(lines.as_bytes())?, |number, line| {
            // The name of the function is that of its queue.
            let route = QueueRoute::with_default_names(line.function.parse().unwrap());
            let function = FunctionName::new(&line.function, "ns").map_err(SubmissionError::from);
            let id = line.call_id.unwrap_or_else(|| CallId::generate(&route.queue));
            let function = function.map_err(|error| error.in_line(number))?;
            Ok((Invocation::new(id, function, line.body), route))
        })
    }

    #[test]
    fn calls_of_a_batch_have_one_queue() {
        let line = r#"{"function":"a"}"#;
        let named = r#"{"function":"a","callId":"c-1"}"#;
        let batch = calls(&format!("{line}\n{named}\n{line}")).unwrap();
        assert_eq!((batch.calls.len(), batch.route.queue.as_str()), (3, "a"));
        assert_eq!((batch.own_ids, batch.calls[1].call_id.as_str()), ([1].into(), "c-1"));
        let error = calls(&format!("{line}\n{}", r#"{"function":"b"}"#)).unwrap_err().to_string();
        assert!(error.starts_with("line 2: ") && error.contains("queue `b`"), "{error}");
    }
}
