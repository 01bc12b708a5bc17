//! The lines of a batch.

use bytes::Bytes;

use super::{
    function::{self, function_name},
    plan::{PlannedBatch, PlannedCall},
};
use crate::history::call_ids::own_id;

/// The body of a submission.
#[must_use]
pub fn lines(batch: &PlannedBatch) -> Bytes {
    batch.calls.iter().map(|call| line(call) + "\n").collect::<String>().into()
}

fn line(call: &PlannedCall) -> String {
    let line = serde_json::json!({
        "function": function_name(call.queue, call.function),
        "query": function::query(call.number),
        "callId": own_id(call.number),
        "body": "x".repeat(call.bytes),
    });
    line.to_string()
}
