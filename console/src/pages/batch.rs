//! The page of one batch.

use std::sync::Arc;

use asyncqueue::batch::{BatchId, BatchReport, BatchState, find_batch};
use axum::{
    extract::{Path, State},
    response::IntoResponse,
};
use maud::{Markup, html};

use super::{Answer, App, batches::Selection, error::PageError, layout, parameters::Parameters};
use crate::paging::Page;

pub(super) async fn get(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Parameters(selection): Parameters<Selection>,
) -> Answer {
    let id: BatchId = id.parse().map_err(PageError::id(&id))?;
    let state = find_batch(&app.js, &id).await?.ok_or_else(|| not_found(&id))?;
    let may_cancel = match &state {
        BatchState::Open { record, .. } => {
            let functions = record.calls.iter().map(|call| Some(&call.function));
            app.check_allowed(functions).is_ok()
        }
        BatchState::Ended(_) => false,
    };
    Ok(render(&state.into_report(), selection, may_cancel).into_response())
}

pub(super) fn not_found(id: &BatchId) -> PageError {
    PageError::NotFound {
        what: format!("There is no batch {id}."),
        remedy: "A batch is known until a day after its last call has ended.",
    }
}

pub(super) fn render(report: &BatchReport, selection: Selection, may_cancel: bool) -> Markup {
    let BatchReport { batch_id, queue, state, total, counts, submitted_at, calls } = report;
    let calls = calls.as_deref().unwrap_or_default();
    let page = Page::new(selection.page, calls.len());
    let path = |number: usize| format!("/batches/{batch_id}?page={number}");
    let content = html! {
        h1 { "Batch " (batch_id) }
        (layout::fields(&[
            ("State", html! { span.state { (state) } }),
            ("Queue", html! { a href=(format!("/queues/{queue}")) { (queue) } }),
            ("Submitted", layout::time(*submitted_at)),
            ("Calls", html! { (total) ": " (counts) }),
        ]))
        @if may_cancel {
            p { a.action href=(format!("/batches/{batch_id}/cancel")) { "Cancel what is left" } }
        }
        @if calls.is_empty() {
            p { "The calls are not listed: they do not fit into the report of the batch." }
        } @else {
            div.table tabindex="0" role="region" aria-label="Calls" {
                table {
                    caption { (layout::count(calls.len(), "call")) }
                    thead { tr {
                        th scope="col" { "Call" }
                        th scope="col" { "Function" }
                        th scope="col" { "State" }
                        th scope="col" .number { "Status" }
                    } }
                    tbody {
                        @for call in page.select(calls) {
                            tr {
                                th scope="row" {
                                    a href=(format!("/calls/{}", call.call.call_id)) {
                                        (call.call.call_id)
                                    }
                                }
                                td { (call.call.function) }
                                td { (call.state) }
                                td.number { (layout::known(call.status)) }
                            }
                        }
                    }
                }
            }
            (layout::pages(page, path))
        }
    };
    layout::live(&format!("Batch {batch_id}"), &path(page.number), &content)
}
