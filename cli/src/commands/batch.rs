//! `kubectl aq batch`

use std::path::PathBuf;

use anyhow::Context as _;
use asyncqueue::{
    CallId, CallbackUrl, Invocation,
    batch::{BatchId, BatchReport, OnFailure, find_batch},
    directory::QueueRoute,
    submission::{BatchCalls, BatchLine, Submission, parse_batch},
    submit::{BatchOutcome, NewBatch, Submitter},
};
use asyncqueue_runtime::program::UsageError;
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    input,
    output::{self, Format},
    routing::{Router, RoutingArgs},
    session::{NATS_TIMEOUT, Session},
    table,
};

/// Shows a batch: how many of its calls have ended, and how. With --submit, stores one
///
/// A batch is known until a day after its last call has ended. `kubectl aq cancel --batch` cancels
/// the calls that have not ended.
///
/// With --submit, the calls of a file are stored together or not at all. The file has one JSON
/// object a line, as the body of POST /async-batch. Prints the id of the batch.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubectl aq batch report-7 -o json
  kubectl aq batch report-7 --submit calls.ndjson --callback-url http://example.com/done
  echo '{\"function\":\"figlet\",\"body\":\"hi\"}' | kubectl aq batch --submit -")]
pub(crate) struct BatchArgs {
    /// Id of the batch. With --submit, a repeat with the same id and content stores nothing.
    /// Default: generated
    #[arg(value_name = "BATCH-ID", required_unless_present = "submit")]
    batch_id: Option<BatchId>,

    /// Output format. JSON is that of GET or POST /async-batch
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    submission: SubmissionArgs,
}

/// The options of a batch that is submitted.
#[derive(Debug, Args)]
struct SubmissionArgs {
    /// Store the calls of this file, or of the standard input if it is `-`
    #[arg(long, value_name = "FILE")]
    submit: Option<PathBuf>,

    /// URL that gets the report when the last call has ended
    #[arg(long, value_name = "URL", requires = "submit", value_parser = CallbackUrl::parse)]
    callback_url: Option<CallbackUrl>,

    /// Cancel the calls that have not ended when one fails
    #[arg(long, requires = "submit")]
    cancel_on_failure: bool,

    #[command(flatten)]
    routing: RoutingArgs,
}

/// A stored batch as JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StoredJson<'a> {
    batch_id: &'a str,
    calls: &'a [String],
}

pub(crate) async fn run(session: &Session, arguments: &BatchArgs) -> anyhow::Result<()> {
    let BatchArgs { batch_id, output, submission } = arguments;
    match (&submission.submit, batch_id) {
        (Some(file), id) => {
            let lines = parse_batch(&input::read(file)?).map_err(|e| UsageError(e.to_string()))?;
            submit(session, id.clone(), lines, submission, *output).await
        }
        (None, Some(id)) => show(session, id, *output).await,
        (None, None) => Err(UsageError("name a batch, or use --submit".to_owned()).into()),
    }
}

async fn show(session: &Session, id: &BatchId, format: Format) -> anyhow::Result<()> {
    let found = find_batch(&session.js, id).await?;
    let report = found.ok_or_else(|| not_found(id))?.into_report();
    output::print_value(format, &report, || render(&report))
}

/// Stores the calls of a batch with the checks of a gateway.
async fn submit(
    session: &Session,
    named: Option<BatchId>,
    lines: Vec<BatchLine>,
    arguments: &SubmissionArgs,
    format: Format,
) -> anyhow::Result<()> {
    let router = Router::open(&session.js, &arguments.routing).await?;
    let now = Timestamp::now();
    let admit = |line: BatchLine| -> anyhow::Result<(Invocation, QueueRoute)> {
        let BatchLine { function, path, query, headers, call_id, body } = line;
        let namespace = &arguments.routing.function_namespace;
        let query = query.as_deref();
        let submission = Submission::parse(&function, &path, query, &headers, namespace)?;
        let (submission, route) = router.admit(submission, now, body.len())?;
        let call_id = call_id.unwrap_or_else(|| CallId::generate(&route.queue));
        Ok((submission.into_invocation(call_id, now, headers, body), route))
    };
    let BatchCalls { calls, route, own_ids } = BatchCalls::from_lines(lines, |number, line| {
        admit(line).with_context(|| format!("line {number}"))
    })?;
    let id = named.clone().unwrap_or_else(|| CallId::generate(&route.queue));
    let SubmissionArgs { callback_url, cancel_on_failure, .. } = arguments;
    let batch = NewBatch {
        id: id.clone(),
        is_named: named.is_some(),
        calls,
        callback_url: callback_url.clone(),
        on_failure: if *cancel_on_failure { OnFailure::Cancel } else { OnFailure::Continue },
        submitted_at: now,
        depth: 0,
        own_ids,
    };
    let submitter = Submitter::new(session.js.clone(), NATS_TIMEOUT);
    let BatchOutcome { is_duplicate, calls } = submitter.submit_batch(batch, &route).await?;
    submitter.wait_for_lanes().await;
    if is_duplicate {
        output::print_error(&format!("batch `{id}` was stored before: nothing is stored"));
    }
    let stored = StoredJson { batch_id: id.as_str(), calls: &calls };
    output::print_value(format, &stored, || format!("{id}\n"))
}

/// Returns the error for a batch that is not found.
pub(super) fn not_found(batch_id: &BatchId) -> anyhow::Error {
    anyhow::anyhow!("batch `{batch_id}` not found: unknown id, or it ended more than a day ago")
}

fn render(report: &BatchReport) -> String {
    let fields = table::fields(&[
        ("Batch ID", report.batch_id.clone()),
        ("Queue", report.queue.to_string()),
        ("State", report.state.clone()),
        ("Calls", format!("{}: {}", report.total, report.counts)),
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
    use crate::reference::assert_fields_documented;

    #[test]
    fn fields_of_a_stored_batch_are_documented() {
        let stored = StoredJson { batch_id: "b-1", calls: &["id-1".to_owned()] };
        assert_fields_documented("`batch --submit`", [stored]);
    }

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
