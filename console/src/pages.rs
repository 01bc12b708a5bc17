//! The pages, one module each.

use std::sync::Arc;

use async_nats::jetstream::Context;
use asyncqueue::{
    QueueName,
    call::{CallQuery, CallStatus, PendingCall},
    status::status_of_pending,
};
use axum::{
    Router,
    extract::{Path, State},
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use serde::Deserialize;

use crate::{actions::Actions, assets, letters::Letters, overview::Overview, sampler::Samples};

mod batch;
mod batches;
mod call;
mod cancel;
mod confirmed;
mod dead_letters;
mod error;
mod layout;
mod letter_action;
mod letter_target;
mod parameters;
mod queue;
mod queues;
#[cfg(test)]
mod tests;
mod timeline;

pub(crate) use error::{PageError, refusal};
use parameters::Parameters;

/// What the pages are rendered from.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) js: Context,
    pub(crate) samples: Samples,
    pub(crate) show_payloads: bool,
    pub(crate) letters: Letters,
    pub(crate) actions: Actions,
}

// === impl App ===

impl App {
    /// Returns the last sample of all queues.
    fn overview(&self) -> Result<Arc<Overview>, PageError> {
        self.samples.overview().ok_or_else(|| PageError::NoSample(self.samples.failure()))
    }

    /// Returns the status of a stored call. `others` are those stored with the same id.
    async fn pending_status(
        &self,
        query: &CallQuery,
        newest: &PendingCall,
        others: u64,
    ) -> Result<CallStatus, PageError> {
        let status = status_of_pending(&self.js, query, newest).await?;
        Ok(CallStatus { others: Some(others).filter(|others| *others > 0), ..status })
    }
}

/// Reads the name of a queue in a path.
fn parse_queue(name: &str) -> Result<QueueName, PageError> {
    name.parse().map_err(|error| PageError::name(&error))
}

/// What a page answers.
type Answer = Result<Response, PageError>;

/// Routes requests to the pages.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(queues::get))
        .route("/queues/{queue}", get(queue::get))
        .route("/queues/{queue}/dead", get(dead_letters::get))
        .route("/queues/{queue}/dead/{action}", get(letter_action::ask).post(letter_action::act))
        .route("/search", get(search))
        .route("/calls/{call}", get(call::get))
        .route("/calls/{call}/cancel", get(cancel::ask_call).post(cancel::cancel_call))
        .route("/batches", get(batches::get))
        .route("/batches/{batch}", get(batch::get))
        .route("/batches/{batch}/cancel", get(cancel::ask_batch).post(cancel::cancel_batch))
        .route("/assets/{name}", get(async |Path(name): Path<String>| assets::serve(&name)))
        .fallback(async || PageError::NoPage)
        .method_not_allowed_fallback(async || PageError::NoSuchMethod)
        .with_state(app)
}

#[derive(Debug, Deserialize)]
struct Search {
    #[serde(default)]
    id: String,
    #[serde(default)]
    kind: SearchKind,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SearchKind {
    #[default]
    Call,
    Batch,
}

/// Leads to the call or the batch with an id.
async fn search(State(_): State<Arc<App>>, Parameters(search): Parameters<Search>) -> Answer {
    let id = search.id.trim();
    let _: asyncqueue::CallId = id.parse().map_err(PageError::id(id))?;
    let folder = match search.kind {
        SearchKind::Call => "calls",
        SearchKind::Batch => "batches",
    };
    Ok(Redirect::to(&format!("/{folder}/{id}")).into_response())
}
