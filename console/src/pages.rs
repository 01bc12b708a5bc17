//! The pages, one module each.

use std::sync::Arc;

use async_nats::jetstream::Context;
use axum::{
    Router,
    extract::{Path, State},
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use serde::Deserialize;

use crate::{assets, sampler::Samples};

mod batch;
mod batches;
mod call;
mod dead_letters;
mod error;
mod layout;
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
    /// Namespace of functions that are named without one.
    pub(crate) namespace: String,
}

/// What a page answers.
type Answer = Result<Response, PageError>;

/// Routes requests to the pages.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(queues::get))
        .route("/queues/{queue}", get(queue::get))
        .route("/queues/{queue}/dead", get(dead_letters::get))
        .route("/search", get(search))
        .route("/calls/{call}", get(call::get))
        .route("/batches", get(batches::get))
        .route("/batches/{batch}", get(batch::get))
        .route("/assets/{name}", get(async |Path(name): Path<String>| assets::serve(&name)))
        .fallback(async || PageError::NoPage)
        .method_not_allowed_fallback(async || PageError::ReadOnly)
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
