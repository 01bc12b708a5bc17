//! Cancels a call, or what is left of a batch.

use std::{sync::Arc, time::Duration};

use asyncqueue::{
    CallId, FunctionName,
    batch::{BatchId, BatchState, find_batch},
    call::{CallQuery, CallStatus, CandidateQueues, Lookup},
    cancel::{self, BatchCancelCounts, CancelOutcome},
    lookup::find_call,
};
use axum::{
    extract::{Path, State},
    response::{IntoResponse, Redirect},
};
use maud::html;
use serde::Deserialize;

use super::{
    Answer, App,
    confirmed::{Confirmed, Question, Viewer},
    error::PageError,
    layout::{self, count},
};
use crate::{actions::Outcome, auth::User, settings::AllowedActions};

/// Maximum time for the workers that have the calls to confirm that they do not start.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);

/// The actions as metrics and the log name them.
const CANCEL_CALL: &str = "cancel_call";
const CANCEL_BATCH: &str = "cancel_batch";

/// A form without fields of its own.
#[derive(Debug, Deserialize)]
pub(super) struct NoFields {}

pub(super) async fn ask_call(
    State(app): State<Arc<App>>,
    viewer: Viewer,
    Path(id): Path<String>,
) -> Answer {
    let (query, status, _) = call_to_cancel(&app, &id).await?;
    let CallStatus { queue, state, others, .. } = &status;
    let id = &query.id;
    let question = Question {
        title: format!("Cancel call {id}?"),
        button: "Cancel the call".to_owned(),
        explanation: html! {
            p { "The call of " (shown(query.function.as_ref())) " on queue " (queue) " is "
                (layout::text(&state.to_string())) "."
                @if let Some(others) = others {
                    " Stored with the same id, and cancelled with it if the function is the same: "
                    (count(*others, "more call")) "."
                }
            }
            p { "It does not start again. If it runs, its worker closes the connection to the "
                "function, which may have done its work. Its callback, if it has one, gets the "
                "status 499." }
        },
        is_final: true,
        typed: None,
        fields: Vec::new(),
        path: format!("/calls/{id}/cancel"),
        back: format!("/calls/{id}"),
    };
    Ok(question.render(&app, &viewer).into_response())
}

pub(super) async fn cancel_call(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Confirmed { user, form: NoFields {} }: Confirmed<NoFields>,
) -> Answer {
    let (query, _, queues) = call_to_cancel(&app, &id).await?;
    let target = format!("call {}", query.id);
    let back = format!("/calls/{}", query.id);
    let js = app.js.clone();
    let work = async move {
        let cancelled = cancel::cancel_calls(&js, &queues, &query, CONFIRM_TIMEOUT).await;
        after_call(&query.id, cancelled?)
    };
    finish(app, user, CANCEL_CALL, target, work).await?;
    Ok(Redirect::to(&back).into_response())
}

pub(super) async fn ask_batch(
    State(app): State<Arc<App>>,
    viewer: Viewer,
    Path(id): Path<String>,
) -> Answer {
    let (id, state) = batch_to_cancel(&app, &id).await?;
    let report = state.into_report();
    let question = Question {
        title: format!("Cancel what is left of batch {id}?"),
        button: "Cancel the calls".to_owned(),
        explanation: html! {
            p { "Of its " (count(report.total, "call")) ": " (report.counts) "." }
            p { "Those that have not ended do not start again. If one runs, its worker closes the "
                "connection to the function, which may have done its work." }
        },
        is_final: true,
        typed: None,
        fields: Vec::new(),
        path: format!("/batches/{id}/cancel"),
        back: format!("/batches/{id}"),
    };
    Ok(question.render(&app, &viewer).into_response())
}

pub(super) async fn cancel_batch(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Confirmed { user, form: NoFields {} }: Confirmed<NoFields>,
) -> Answer {
    let (id, _) = batch_to_cancel(&app, &id).await?;
    let (target, back) = (format!("batch {id}"), format!("/batches/{id}"));
    let js = app.js.clone();
    let work = async move {
        let cancelled = cancel::cancel_batch(&js, &id, CONFIRM_TIMEOUT).await?;
        after_batch(&id, cancelled.unwrap_or_default())
    };
    finish(app, user, CANCEL_BATCH, target, work).await?;
    Ok(Redirect::to(&back).into_response())
}

/// Returns a call that has not ended, if users may cancel it, and where it may be.
async fn call_to_cancel(
    app: &App,
    id: &str,
) -> Result<(CallQuery, CallStatus, CandidateQueues), PageError> {
    let id: CallId = id.parse().map_err(PageError::id(id))?;
    app.check_allowed([])?;
    let query = CallQuery { id, function: None };
    let queues = app.overview()?.inventory.candidate_queues(&query);
    let status = match find_call(&app.js, &queues, &query).await? {
        Lookup::Pending { newest, others } => app.pending_status(&query, &newest, others).await?,
        Lookup::Cancelling(status) => status,
        Lookup::Ended(status) => {
            return Err(has_ended(&query.id, &status.state.to_string()));
        }
        Lookup::NotFound => return Err(not_stored(&query.id)),
    };
    let function = function_of(&status);
    app.check_allowed([function.as_ref()])?;
    Ok((CallQuery { function, ..query }, status, queues))
}

/// Returns a batch that has not ended, if users may cancel all of its calls.
async fn batch_to_cancel(app: &App, id: &str) -> Result<(BatchId, BatchState), PageError> {
    let id: BatchId = id.parse().map_err(PageError::id(id))?;
    app.check_allowed([])?;
    match find_batch(&app.js, &id).await? {
        None => Err(super::batch::not_found(&id)),
        Some(BatchState::Ended(_)) => Err(PageError::Conflict {
            what: format!("All calls of batch {id} have ended."),
            remedy: "Nothing is left to cancel.",
        }),
        Some(state) => {
            if let BatchState::Open { record, .. } = &state {
                app.check_allowed(record.calls.iter().map(|call| Some(&call.function)))?;
            }
            Ok((id, state))
        }
    }
}

/// Does something to its end, even if the user does not wait for it, and records it.
async fn finish(
    app: Arc<App>,
    user: User,
    action: &'static str,
    target: String,
    work: impl Future<Output = Result<(), PageError>> + Send + 'static,
) -> Result<(), PageError> {
    let task = tokio::spawn(async move {
        let done = work.await;
        let why = done.as_ref().err().map(PageError::what);
        let outcome = why.as_deref().map_or(Outcome::Success, Outcome::Failure);
        app.actions.record(&user, action, &target, outcome);
        done
    });
    task.await.unwrap_or(Err(PageError::TimedOut))
}

fn after_call(id: &CallId, outcome: CancelOutcome) -> Result<(), PageError> {
    match outcome {
        CancelOutcome::Cancelled(_) => Ok(()),
        CancelOutcome::Unconfirmed => Err(PageError::NotCertain(format!(
            "Call {id} may still start: a worker that has it does not respond."
        ))),
        CancelOutcome::Ended { end, status } => {
            Err(has_ended(id, &status.map_or(end.to_string(), |status| status.state.to_string())))
        }
        CancelOutcome::NotFound => Err(not_stored(id)),
    }
}

fn after_batch(id: &BatchId, counts: BatchCancelCounts) -> Result<(), PageError> {
    match counts.unconfirmed {
        0 => Ok(()),
        unconfirmed => Err(PageError::NotCertain(format!(
            "Of batch {id}, {} may still start: workers that have them do not respond.",
            count(unconfirmed, "call")
        ))),
    }
}

fn has_ended(id: &CallId, how: &str) -> PageError {
    PageError::Conflict {
        what: format!("Call {id} has ended: {how}."),
        remedy: "Nothing is left to cancel.",
    }
}

fn not_stored(id: &CallId) -> PageError {
    PageError::NotFound {
        what: format!("No call {id} waits or runs."),
        remedy: "Nothing is left to cancel. The page of the call says what is known of it.",
    }
}

/// Returns the function of a call; `None` if it is not known.
pub(super) fn function_of(status: &CallStatus) -> Option<FunctionName> {
    let (name, namespace) = status.function.as_ref()?.rsplit_once('.')?;
    FunctionName::new(name, namespace).ok()
}

/// Returns whether a call can be cancelled, and users may do it.
pub(super) fn is_cancellable(status: &CallStatus, allowed: &AllowedActions) -> bool {
    status.state.end().is_none() && allowed.permits(function_of(status).as_ref())
}

fn shown(function: Option<&FunctionName>) -> String {
    function.map_or_else(|| "an unknown function".to_owned(), ToString::to_string)
}
