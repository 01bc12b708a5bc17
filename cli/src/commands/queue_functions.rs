//! `kubectl aq queues --functions`

use asyncqueue::lanes::FunctionSummary;

use crate::table;

pub(super) fn render(functions: &[FunctionSummary]) -> String {
    let heading = ["QUEUE", "FUNCTION", "PENDING", "UNACKNOWLEDGED", "LIMIT", "REFUSED"];
    table::render(
        heading,
        functions.iter().map(|function| {
            [
                function.queue.to_string(),
                function.function.to_string(),
                table::cell_or_empty(function.pending),
                table::cell_or_empty(function.unacknowledged),
                table::cell_or_empty(function.limit),
                table::cell_or_empty(function.refused),
            ]
        }),
    )
}

#[cfg(test)]
mod tests {
    use async_nats::jetstream::consumer;
    use asyncqueue::{FunctionName, lanes::summarize_functions, stats::LimitedFunction};

    use super::*;
    use crate::reference::assert_fields_documented;

    fn consumer(name: &str, pending: u64, unacknowledged: usize) -> consumer::Info {
        serde_json::from_value(serde_json::json!({
            "stream_name": "jobs", "name": name, "created": "2026-11-24T10:00:00Z",
            "config": {
                "deliver_policy": "all", "ack_policy": "explicit", "replay_policy": "instant",
                "durable_name": name,
            },
            "delivered": {"consumer_seq": 0, "stream_seq": 0},
            "ack_floor": {"consumer_seq": 0, "stream_seq": 0},
            "num_ack_pending": unacknowledged, "num_redelivered": 0, "num_waiting": 0,
            "num_pending": pending,
        }))
        .unwrap()
    }

    #[test]
    fn functions_are_listed_with_lanes_and_limits() {
        let queue = "jobs".parse().unwrap();
        let consumers = [
            consumer("jobs-workers", 9, 9),
            consumer("jobs-fn-ns=b", 4, 1),
            consumer("jobs-fn-ns=a", 0, 0),
            consumer("jobs-fn-=1", 7, 7),
        ];
        let limited = |name, limit, refused| {
            let function = FunctionName::new(name, "ns").unwrap();
            LimitedFunction { function, limit, refused }
        };
        let functions = summarize_functions(
            &queue,
            &consumers,
            &[limited("b", 3, 12), limited("shares", 1, 5)],
        );
        assert_fields_documented("`queues --functions`", &functions);
        let lines = render(&functions);
        let lines: Vec<Vec<&str>> =
            lines.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["jobs", "a.ns", "0", "0", "-", "-"]);
        assert_eq!(lines[2], ["jobs", "b.ns", "4", "1", "3", "12"]);
        assert_eq!(lines[3], ["jobs", "shares.ns", "-", "-", "1", "5"]);
        assert_eq!(lines.len(), 4);
        let json = serde_json::to_value(&functions).unwrap();
        assert_eq!((&json[1]["function"], &json[1]["limit"]), (&"b.ns".into(), &3.into()));
        assert!(json[0]["refused"].is_null(), "{json}");
    }
}
