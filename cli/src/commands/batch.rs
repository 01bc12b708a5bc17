//! `kubectl aq batch`

use asyncqueue::batch::{BatchId, BatchReport, find_batch};
use clap::Args;

use crate::{
    output::{self, Format},
    session::Session,
    table,
};

/// Shows a batch: how many of its calls have ended, and how
///
/// Known until a day after its last call has ended. `kubectl aq cancel --batch` cancels the calls
/// that have not ended.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  kubectl aq batch report-7 -o json")]
pub(crate) struct BatchArgs {
    /// Id of the batch
    #[arg(value_name = "BATCH-ID")]
    batch_id: BatchId,

    /// Output format. JSON is that of GET /async-batch/ID
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(crate) async fn run(session: &Session, arguments: &BatchArgs) -> anyhow::Result<()> {
    let BatchArgs { batch_id, output } = arguments;
    let found = find_batch(&session.js, batch_id).await?;
    let report = found.ok_or_else(|| not_found(batch_id))?.into_report();
    match output {
        Format::Table => output::print(&render(&report))?,
        Format::Json => output::print_json(&report)?,
    }
    Ok(())
}

/// Returns the error for a batch that is not found.
pub(super) fn not_found(batch_id: &BatchId) -> anyhow::Error {
    anyhow::anyhow!("batch `{batch_id}` not found: unknown id, or it ended more than a day ago")
}

fn render(report: &BatchReport) -> String {
    let counts = &report.counts;
    let counts = [
        ("pending", counts.pending),
        ("done", counts.done),
        ("failed", counts.failed),
        ("dead", counts.dead),
        ("cancelled", counts.cancelled),
        ("expired", counts.expired),
        ("unknown", counts.unknown),
    ];
    let counts = counts.iter().filter(|(_, count)| *count > 0);
    let counts: Vec<_> = counts.map(|(state, count)| format!("{count} {state}")).collect();
    let fields = table::fields(&[
        ("Batch ID", report.batch_id.clone()),
        ("Queue", report.queue.to_string()),
        ("State", report.state.clone()),
        ("Calls", format!("{}: {}", report.total, counts.join(", "))),
        ("Submitted", format!("{:.0}", report.submitted_at)),
    ]);
    let Some(calls) = &report.calls else { return fields };
    let rows = calls.iter().map(|report| {
        let status = table::cell_or_empty(report.status);
        let call = &report.call;
        [call.call_id.clone(), report.state.clone(), status, call.function.to_string()]
    });
    format!("{fields}\n{}", table::render(["CALL ID", "STATE", "STATUS", "FUNCTION"], rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_is_rendered_with_its_calls() {
        let report = serde_json::json!({
            "batchId": "report-7", "queue": "jobs", "state": "pending", "total": 2,
            "counts": {"pending": 1, "done": 0, "failed": 1, "dead": 0, "cancelled": 0,
                       "expired": 0, "unknown": 0},
            "submittedAt": "2026-11-29T10:11:12.5Z",
            "calls": [
                {"callId": "order-7", "function": "figlet.dev", "state": "pending"},
                {"callId": "o-8", "function": "figlet.dev", "state": "failed", "status": 404},
            ],
        });
        let mut report: BatchReport = serde_json::from_value(report).unwrap();
        let fields = "Batch ID:    report-7\nQueue:       jobs\nState:       pending\n\
                      Calls:       2: 1 pending, 1 failed\nSubmitted:   2026-11-29T10:11:12Z\n";
        assert_eq!(
            render(&report),
            format!(
                "{fields}\nCALL ID   STATE     STATUS   FUNCTION\n\
                 order-7   pending   -        figlet.dev\n\
                 o-8       failed    404      figlet.dev\n"
            )
        );
        report.calls = None;
        assert_eq!(render(&report), fields);
    }
}
