//! The page of all batches.

use std::sync::Arc;

use asyncqueue::batch::{BatchId, ListedBatches, list_batches};
use axum::{extract::State, response::IntoResponse};
use maud::{Markup, html};
use serde::Deserialize;

use super::{Answer, App, layout, parameters::Parameters};
use crate::paging::Page;

#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct Selection {
    pub(super) page: Option<usize>,
}

pub(super) async fn get(
    State(app): State<Arc<App>>,
    Parameters(selection): Parameters<Selection>,
) -> Answer {
    Ok(render(&list_batches(&app.js).await?, selection).into_response())
}

pub(super) fn render(listed: &ListedBatches, selection: Selection) -> Markup {
    let mut rows: Vec<(&BatchId, &str)> = listed.open.iter().map(|id| (id, "pending")).collect();
    rows.extend(listed.ended.iter().map(|id| (id, "ended")));
    // Generated ids begin with their time: the newest are first.
    rows.sort_by(|(a_id, a_state), (b_id, b_state)| {
        b_state.cmp(a_state).then_with(|| b_id.as_str().cmp(a_id.as_str()))
    });
    let page = Page::new(selection.page, rows.len());
    let path = |number: usize| format!("/batches?page={number}");
    let content = html! {
        h1 { "Batches" }
        form action="/search" role="search" {
            label for="batch" { "Batch id" }
            input #batch name="id" required maxlength="128" size="36" autocomplete="off"
                spellcheck="false";
            input type="hidden" name="kind" value="batch";
            button { "Find" }
        }
        @if rows.is_empty() {
            p { "No batches. A client submits one with POST /async-batch at the gateway; it is "
                "listed until a day after its last call has ended." }
        } @else {
            div.table tabindex="0" role="region" aria-label="Batches" {
                table {
                    caption { (listed.open.len()) " pending, " (listed.ended.len()) " ended" }
                    thead { tr { th scope="col" { "Batch" } th scope="col" { "State" } } }
                    tbody {
                        @for (id, state) in page.select(&rows) {
                            tr {
                                th scope="row" { a href=(format!("/batches/{id}")) { (id) } }
                                td { (state) }
                            }
                        }
                    }
                }
            }
            (layout::pages(page, path))
        }
    };
    layout::live("Batches", &path(page.number), &content)
}
