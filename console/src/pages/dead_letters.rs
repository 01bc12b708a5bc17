//! The page of the dead letters of a queue.

use std::sync::Arc;

use asyncqueue::{QueueName, dead_letters::DeadLetterKind};
use axum::{
    extract::{Path, State},
    response::IntoResponse,
};
use jiff::Timestamp;
use maud::{Markup, html};
use serde::{Deserialize, Serialize};

use super::{
    Answer, App,
    layout::{self, count},
    letter_target::{Target, links, path, read},
    parameters::Parameters,
    parse_queue,
};
use crate::{
    actions::{Job, Progress},
    letters::{Filter, Group, IndexedLetter, LetterIndex},
    paging::Page,
    settings::AllowedActions,
};

/// Maximum number of groups that are listed. The largest are first.
const MAX_LISTED_GROUPS: usize = 100;

/// How long the last action is shown after its end, in seconds.
const SHOW_ACTION: i64 = 3600;

/// Which letters are listed.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Selection {
    #[serde(flatten)]
    pub(super) filter: Filter,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) page: Option<usize>,
}

/// What the page is rendered from.
#[derive(Debug)]
pub(super) struct Details<'a> {
    pub(super) queue: &'a QueueName,
    pub(super) letters: &'a LetterIndex,
    pub(super) selection: Selection,
    pub(super) allowed: &'a AllowedActions,
    /// The action that runs or has run last.
    pub(super) job: Option<&'a Job>,
}

pub(super) async fn get(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Parameters(selection): Parameters<Selection>,
) -> Answer {
    let queue = parse_queue(&name)?;
    let (_, letters) = read(&app, &queue).await?;
    let job = app.actions.jobs.of(&queue);
    let (job, allowed) = (job.as_deref(), &app.actions.allowed);
    let page = letters
        .with(|letters| render(&Details { queue: &queue, letters, selection, allowed, job }));
    Ok(page.into_response())
}

pub(super) fn render(details: &Details<'_>) -> Markup {
    let Details { queue, letters, selection, allowed, job } = details;
    let filter = &selection.filter;
    let selected: Vec<_> = letters.select(filter).collect();
    let page = Page::new(selection.page, selected.len());
    let content = html! {
        h1 { "Dead letters of " a href=(format!("/queues/{queue}")) { (queue) } }
        @if let Some(job) = job { (action_section(job, Timestamp::now())) }
        @if letters.total == 0 {
            p { "No dead letters. A call becomes one when its attempts are exhausted." }
        } @else {
            (summary(queue, letters, allowed))
            (group_table(queue, &letters.groups(), allowed))
            h2 { "Letters" }
            @if !filter.is_all() {
                p { "Only " (filter.function.as_deref().unwrap_or("all functions")) ": "
                    (filter.reason.as_deref().unwrap_or("all reasons")) ". "
                    a href=(link(queue, &Filter::default(), None)) { "Show all" } }
            }
            (letter_table(queue, selected.len(), page.select(&selected), allowed))
            (layout::pages(page, |number| link(queue, filter, Some(number))))
        }
    };
    let title = format!("Dead letters of {queue}");
    layout::live(&title, &link(queue, filter, Some(page.number)), &content)
}

fn summary(queue: &QueueName, letters: &LetterIndex, allowed: &AllowedActions) -> Markup {
    let read = letters.len() as u64;
    html! {
        p { (count(letters.total, "dead letter")) ". "
            @if letters.is_reading() {
                "Still reading: so far, this page groups " (read) ", beginning with the oldest. "
            } @else if read < letters.total {
                "This page groups the oldest " (read) ". "
            }
            @if allowed.is_off() {
                "To run them again: " code { "kubectl aq dead replay " (queue) " --all" }
            } @else {
                (links(queue, &Target::all()))
            }
        }
    }
}

/// Says what the last action is doing or has done.
fn action_section(job: &Job, now: Timestamp) -> Markup {
    let Progress { done, gone, failed, error, ended } = job.progress();
    if ended.is_some_and(|ended| now.as_second() - ended.as_second() > SHOW_ACTION) {
        return Markup::default();
    }
    let left = job.total - done - gone - failed;
    html! {
        section aria-label="Last action" role="status" {
            p {
                strong { (job.user) }
                @match ended {
                    Some(ended) => { " " (job.action.participle()) " "
                        (count(done, "dead letter")) ", ended " (layout::time(ended)) "." }
                    None => { " has " (job.action.participle()) " " (done) " of "
                        (count(job.total, "dead letter")) " since " (layout::time(job.began))
                        ", and goes on." }
                }
                @if gone > 0 { " " (gone) " were gone." }
                @if failed > 0 { " " (failed) " failed." }
                @if ended.is_some() && left > 0 { " " (left) " were not tried." }
            }
            @if let Some(error) = error { p.problem { (error) } }
        }
    }
}

fn group_table(queue: &QueueName, groups: &[Group], allowed: &AllowedActions) -> Markup {
    html! {
        div.table tabindex="0" role="region" aria-label="Groups" {
            table {
                caption {
                    "By function and reason"
                    @if groups.len() > MAX_LISTED_GROUPS {
                        ": the largest " (MAX_LISTED_GROUPS) " of " (groups.len())
                    }
                }
                thead { tr {
                    th scope="col" { "Function" }
                    th scope="col" { "Reason" }
                    th scope="col" .number { "Letters" }
                    th scope="col" { "Oldest" }
                    th scope="col" { "Newest" }
                    @if !allowed.is_off() { th scope="col" { "Actions" } }
                } }
                tbody {
                    @for group in groups.iter().take(MAX_LISTED_GROUPS) {
                        (group_row(queue, group, allowed))
                    }
                }
            }
        }
    }
}

fn group_row(queue: &QueueName, group: &Group, allowed: &AllowedActions) -> Markup {
    let filter = Filter::of(&group.key);
    html! {
        tr {
            th scope="row" { (group.key.function()) }
            td {
                a href=(link(queue, &filter, None)) { (group.key.reason) }
                (callback_mark(group.key.kind))
            }
            td.number { (group.count) }
            td { (layout::time(group.oldest)) }
            td { (layout::time(group.newest)) }
            @if !allowed.is_off() {
                td.actions {
                    @if allowed.permits(group.key.function.as_ref()) {
                        (links(queue, &Target::group(filter)))
                    }
                }
            }
        }
    }
}

fn letter_table(
    queue: &QueueName,
    number: usize,
    letters: &[(u64, &IndexedLetter)],
    allowed: &AllowedActions,
) -> Markup {
    html! {
        div.table tabindex="0" role="region" aria-label="Letters" {
            table {
                caption { (count(number, "dead letter")) ", oldest first" }
                thead { tr {
                    th scope="col" { "Call" }
                    th scope="col" { "Function" }
                    th scope="col" { "Died" }
                    th scope="col" .number { "Attempts" }
                    th scope="col" .number { "Status" }
                    th scope="col" { "Reason" }
                    @if !allowed.is_off() { th scope="col" { "Actions" } }
                } }
                tbody {
                    @for (sequence, letter) in letters {
                        (letter_row(queue, *sequence, letter, allowed))
                    }
                }
            }
        }
    }
}

fn letter_row(
    queue: &QueueName,
    sequence: u64,
    letter: &IndexedLetter,
    allowed: &AllowedActions,
) -> Markup {
    html! {
        tr {
            th scope="row" {
                a href=(format!("/calls/{}", letter.call_id)) { (letter.call_id) }
                (callback_mark(letter.group.kind))
            }
            td { (letter.group.function()) }
            td { (layout::time(letter.died_at)) }
            td.number { (letter.attempts) }
            td.number { (layout::known(letter.status)) }
            td { (letter.group.reason) }
            @if !allowed.is_off() {
                td.actions {
                    @if allowed.permits(letter.group.function.as_ref()) {
                        (links(queue, &Target::one(sequence)))
                    }
                }
            }
        }
    }
}

fn callback_mark(kind: DeadLetterKind) -> &'static str {
    match kind {
        DeadLetterKind::Call => "",
        DeadLetterKind::Callback => " (callback)",
    }
}

fn link(queue: &QueueName, filter: &Filter, page: Option<usize>) -> String {
    layout::with_query(&path(queue), &Selection { filter: filter.clone(), page })
}
