//! The page of all queues.

use std::sync::Arc;

use asyncqueue::QueueName;
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use maud::{Markup, html};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::{
    Answer, App,
    layout::{self, age, count, known},
    parameters::Parameters,
};
use crate::{
    history::millis,
    overview::{Overview, QueueState, SortBy},
    paging::Page,
};

/// What is shown, and in which order.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Selection {
    #[serde(default)]
    pub(super) filter: String,
    #[serde(default)]
    pub(super) sort: SortBy,
    pub(super) page: Option<usize>,
}

const COLUMNS: [(SortBy, &str, &str); 8] = [
    (SortBy::Name, "name", "Queue"),
    (SortBy::Waiting, "waiting", "Waiting"),
    (SortBy::Running, "running", "Running"),
    (SortBy::Scheduled, "scheduled", "Scheduled"),
    (SortBy::Dead, "dead", "Dead"),
    (SortBy::Workers, "workers", "Workers"),
    (SortBy::Oldest, "oldest", "Oldest call"),
    (SortBy::Duration, "duration", "Duration (p95)"),
];

pub(super) async fn get(
    State(app): State<Arc<App>>,
    Parameters(selection): Parameters<Selection>,
) -> Answer {
    let failure = app.samples.failure();
    let overview = app.overview()?;
    Ok(answer(&overview, &selection, failure.as_deref()))
}

fn answer(overview: &Overview, selection: &Selection, failure: Option<&str>) -> Response {
    render(overview, selection, failure).into_response()
}

pub(super) fn render(overview: &Overview, selection: &Selection, failure: Option<&str>) -> Markup {
    let rows = overview.select(&selection.filter, selection.sort);
    let page = Page::new(selection.page, rows.len());
    let now = Timestamp::now();
    let content = html! {
        h1 { "Queues" }
        (stale(overview, failure))
        form action="/" role="search" {
            label for="filter" { "Name contains" }
            input #filter name="filter" value=(selection.filter) maxlength="40" spellcheck="false";
            input type="hidden" name="sort" value=(sort_name(selection.sort));
            button { "Filter" }
        }
        @if overview.queues.is_empty() {
            p { "There are no queues. Create an AsyncQueue, or check that the console is connected "
                "to the NATS account of the gateway." }
        } @else if rows.is_empty() {
            p { "No queue has this in its name. " a href="/" { "Show all queues" } }
        } @else {
            div.table tabindex="0" role="region" aria-label="Queues" {
                table {
                    caption { (count(page.rows, "queue")) ", at " (layout::time(overview.at)) }
                    thead { tr {
                        @for (sort, name, title) in COLUMNS {
                            th scope="col" .number[sort != SortBy::Name]
                                aria-sort=[(sort == selection.sort).then_some(order(sort))] {
                                a href=(link(selection, name, None)) { (title) }
                            }
                        }
                    } }
                    tbody {
                        @for (queue, state) in page.select(&rows) { (row(queue, state, now)) }
                    }
                }
            }
            (layout::pages(page, |number| {
                link(selection, sort_name(selection.sort), Some(number))
            }))
        }
    };
    let path = link(selection, sort_name(selection.sort), selection.page);
    layout::live("Queues", &path, &content)
}

/// Says that the sample is old, and why.
pub(super) fn stale(overview: &Overview, failure: Option<&str>) -> Markup {
    html! {
        @if let Some(why) = failure {
            p.problem role="status" {
                "The queues can't be read now, and this is what was there at "
                (layout::time(overview.at)) ": " (why)
            }
        }
    }
}

/// Returns the order of a column that is sorted by: names from A on, numbers and ages from the
/// largest on.
fn order(sort: SortBy) -> &'static str {
    if sort == SortBy::Name { "ascending" } else { "descending" }
}

fn row(queue: &QueueName, state: &QueueState, now: Timestamp) -> Markup {
    html! {
        tr {
            th scope="row" {
                a href=(format!("/queues/{queue}")) { (queue) }
                @if let Some(problem) = state.problem() {
                    " " span.note title=(problem) { "⚠ " (problem) }
                }
            }
            td.number { (state.waiting) }
            td.number { (known(state.running)) }
            td.number { (state.scheduled) }
            td.number {
                @if state.dead > 0 { a href=(format!("/queues/{queue}/dead")) { (state.dead) } }
                @else { "0" }
            }
            td.number { (known(state.workers)) }
            td.number { (known(state.oldest.map(|oldest| age(oldest, now)))) }
            td.number { (known(state.durations.map(|durations| millis(durations.p95.get())))) }
        }
    }
}

fn sort_name(sort: SortBy) -> &'static str {
    COLUMNS.iter().find(|(column, ..)| *column == sort).map_or("name", |(_, name, _)| name)
}

fn link(selection: &Selection, sort: &str, page: Option<usize>) -> String {
    let filter = utf8_percent_encode(&selection.filter, NON_ALPHANUMERIC);
    let page = page.map(|page| format!("&page={page}")).unwrap_or_default();
    format!("/?filter={filter}&sort={sort}{page}")
}
