//! `kubectl aq status`

use asyncqueue::{
    CallId, QueueName,
    call::{CallStatus, Lookup},
    status,
};
use clap::Args;

use crate::{
    lookup,
    output::{self, Format},
    session::Session,
    table,
};

/// Shows the status of a call
///
/// A call that is done and has neither a callback on its way nor a kept result is known for up to
/// 10 minutes, and only while its worker runs.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  kubectl aq status 01234567-89ab-7cde-8f01-23456789abcd")]
pub(crate) struct StatusArgs {
    /// Id of the call
    #[arg(value_name = "CALL-ID")]
    call_id: CallId,

    /// Queue of the call. Default: all queues that may have the call
    #[arg(long)]
    queue: Option<QueueName>,

    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(crate) async fn run(session: &Session, arguments: &StatusArgs) -> anyhow::Result<()> {
    let StatusArgs { call_id, queue, output } = arguments;
    let status = match lookup::look_up(&session.js, queue.as_ref(), call_id).await? {
        Lookup::Pending { newest, others } => {
            let mut status =
                status::status_of_pending(&session.js, &lookup::query(call_id), &newest).await?;
            status.others = Some(others).filter(|others| *others > 0);
            status
        }
        Lookup::Ended(ended) | Lookup::Cancelling(ended) => ended,
        Lookup::NotFound => return Err(lookup::not_found(call_id, queue.as_ref())),
    };
    output::print_value(*output, &status, || render(&status))
}

fn render(status: &CallStatus) -> String {
    let mut fields = vec![("Call ID", status.call_id.clone()), ("Queue", status.queue.to_string())];
    fields.extend(status.function.clone().map(|function| ("Function", function)));
    fields.push(("State", status.state.to_string()));
    fields.extend(
        status.others.map(|others| ("Others", format!("{others} more calls with this id"))),
    );
    fields.extend(status.submitted_at.map(|at| ("Submitted", format!("{at:.0}"))));
    table::fields(&fields)
}

#[cfg(test)]
mod tests {
    use asyncqueue::call::CallState;

    use super::*;

    #[test]
    fn status_is_rendered_as_text() {
        let status = CallStatus {
            call_id: "id-1".to_owned(),
            function: Some("figlet.dev".to_owned()),
            queue: "jobs".parse().unwrap(),
            state: CallState::Running {
                worker: "w-1".to_owned(),
                attempt: 2,
                max_attempts: 10,
                since: "2026-11-24T10:00:00.5Z".parse().unwrap(),
                blocked: None,
            },
            submitted_at: "2026-11-24T09:59:00.123456789Z".parse().ok(),
            others: None,
            age: None,
        };
        assert_eq!(
            render(&status),
            "Call ID:     id-1\nQueue:       jobs\nFunction:    figlet.dev\n\
             State:       running on w-1 since 2026-11-24T10:00:00Z, attempt 2 of 10\n\
             Submitted:   2026-11-24T09:59:00Z\n"
        );
    }
}
