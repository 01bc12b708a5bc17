//! The page of the dead letters of a queue.

use std::{collections::BTreeMap, sync::Arc};

use asyncqueue::{
    QueueName,
    dead_letters::{DeadLetter, DeadLetterKind, DeadLetters, LetterPage, OpenError},
};
use axum::{
    extract::{Path, State},
    response::IntoResponse,
};
use jiff::Timestamp;
use maud::{Markup, html};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::{
    Answer, App,
    error::PageError,
    layout::{self, count},
    parameters::Parameters,
};

/// Maximum number of letters that are read for a page, and about the maximum of their bytes: the
/// server sends each with its content.
const MAX_LETTERS: usize = 500;
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Maximum number of letters that are listed. The groups count all that were read.
const MAX_LISTED: usize = 100;

/// All subjects of the stream.
const ALL: &str = ">";

/// Which letters are shown.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Selection {
    /// The sequence of the first one.
    #[serde(default)]
    pub(super) from: u64,
    pub(super) function: Option<String>,
    pub(super) reason: Option<String>,
}

/// Letters of one function that died for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) function: String,
    pub(super) reason: String,
    pub(super) count: usize,
    pub(super) oldest: Timestamp,
    pub(super) newest: Timestamp,
}

pub(super) async fn get(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Parameters(selection): Parameters<Selection>,
) -> Answer {
    let queue: QueueName = name.parse().map_err(|error| PageError::name(&error))?;
    let letters = match DeadLetters::open(&app.js, &queue, &app.namespace).await {
        Ok(letters) => letters,
        Err(OpenError::NoStream { .. }) => {
            return Err(PageError::NotFound {
                what: format!("Queue {queue} keeps no dead letters."),
                remedy: "Check the name of the queue, and deadLetter.enabled in its AsyncQueue.",
            });
        }
        Err(OpenError::Nats(error)) => return Err(error.into()),
    };
    let page = letters.page(ALL, selection.from, MAX_LETTERS, MAX_BYTES).await?;
    Ok(render(&queue, letters.count(), &page, &selection).into_response())
}

/// Groups letters by function and reason, the largest group first.
pub(super) fn groups(letters: &[DeadLetter]) -> Vec<Group> {
    let mut groups: BTreeMap<(String, &str), Group> = BTreeMap::new();
    for letter in letters {
        let (function, reason) = (function(letter), reason(letter));
        let group = groups.entry((function.clone(), reason)).or_insert_with(|| Group {
            function,
            reason: reason.to_owned(),
            count: 0,
            oldest: letter.died_at,
            newest: letter.died_at,
        });
        group.count += 1;
        group.oldest = group.oldest.min(letter.died_at);
        group.newest = group.newest.max(letter.died_at);
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.count));
    groups
}

fn function(letter: &DeadLetter) -> String {
    letter.function.as_ref().map_or_else(|| "(unknown)".to_owned(), ToString::to_string)
}

fn reason(letter: &DeadLetter) -> &str {
    letter.unreadable.as_ref().unwrap_or(&letter.death.reason)
}

fn is_selected(letter: &DeadLetter, selection: &Selection) -> bool {
    selection.function.as_ref().is_none_or(|selected| *selected == function(letter))
        && selection.reason.as_ref().is_none_or(|selected| selected == reason(letter))
}

pub(super) fn render(
    queue: &QueueName,
    total: u64,
    page: &LetterPage,
    selection: &Selection,
) -> Markup {
    let LetterPage { letters, next } = page;
    let selected: Vec<_> = letters.iter().filter(|letter| is_selected(letter, selection)).collect();
    let title = format!("Dead letters of {queue}");
    let content = html! {
        h1 { "Dead letters of " a href=(format!("/queues/{queue}")) { (queue) } }
        @if letters.is_empty() {
            p { "No dead letters"
                @if selection.from > 0 { " from here on" }
                ". A call becomes one when its attempts are exhausted." }
        } @else {
            p { (count(total, "dead letter")) ". "
                @if next.is_some() || selection.from > 0 {
                    "This page groups " (letters.len()) " of them, beginning with the oldest. "
                }
                "To run them again: " code { "kubectl aq dead replay " (queue) " --all" } }
            (group_table(queue, letters, selection))
            h2 { "Calls" }
            @if selection.function.is_some() || selection.reason.is_some() {
                p { "Only " (selection.function.as_deref().unwrap_or("all functions")) ": "
                    (selection.reason.as_deref().unwrap_or("all reasons")) ". "
                    a href=(link(queue, selection.from, None)) { "Show all" } }
            }
            (letter_table(&selected))
        }
        @if let Some(next) = next {
            p { a href=(link(queue, *next, None)) { "Next dead letters" } }
        }
        @if selection.from > 0 {
            p { a href=(link(queue, 0, None)) { "First dead letters" } }
        }
    };
    layout::page(&title, &content)
}

fn group_table(queue: &QueueName, letters: &[DeadLetter], selection: &Selection) -> Markup {
    html! {
        div.table tabindex="0" role="region" aria-label="Groups" {
            table {
                caption { "By function and reason" }
                thead { tr {
                    th scope="col" { "Function" }
                    th scope="col" { "Reason" }
                    th scope="col" .number { "Letters" }
                    th scope="col" { "Oldest" }
                    th scope="col" { "Newest" }
                } }
                tbody {
                    @for group in groups(letters) {
                        tr {
                            th scope="row" { (group.function) }
                            td {
                                a href=(link(queue, selection.from, Some(&group))) {
                                    (group.reason)
                                }
                            }
                            td.number { (group.count) }
                            td { (layout::time(group.oldest)) }
                            td { (layout::time(group.newest)) }
                        }
                    }
                }
            }
        }
    }
}

fn letter_table(letters: &[&DeadLetter]) -> Markup {
    html! {
        div.table tabindex="0" role="region" aria-label="Calls" {
            table {
                caption {
                    (count(letters.len(), "call"))
                    @if letters.len() > MAX_LISTED { ", of which " (MAX_LISTED) " are shown" }
                }
                thead { tr {
                    th scope="col" { "Call" }
                    th scope="col" { "Function" }
                    th scope="col" { "Died" }
                    th scope="col" .number { "Attempts" }
                    th scope="col" .number { "Status" }
                    th scope="col" { "Reason" }
                } }
                tbody {
                    @for letter in letters.iter().take(MAX_LISTED) {
                        tr {
                            th scope="row" {
                                a href=(format!("/calls/{}", letter.call_id)) { (letter.call_id) }
                                @if letter.kind == DeadLetterKind::Callback { " (callback)" }
                            }
                            td { (function(letter)) }
                            td { (layout::time(letter.died_at)) }
                            td.number { (letter.death.attempts) }
                            td.number { (layout::known(letter.death.status)) }
                            td { (reason(letter)) }
                        }
                    }
                }
            }
        }
    }
}

fn link(queue: &QueueName, from: u64, group: Option<&Group>) -> String {
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let group = group.map(|group| {
        format!("&function={}&reason={}", encode(&group.function), encode(&group.reason))
    });
    format!("/queues/{queue}/dead?from={from}{}", group.unwrap_or_default())
}
