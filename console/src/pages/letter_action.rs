//! Replays and deletes dead letters: one, a group, or all of a queue.

use std::{sync::Arc, time::Duration};

use asyncqueue::{
    FunctionName, QueueName,
    dead_letters::{DeadLetterKind, DeadLetters},
    directory::QueueEntry,
};
use axum::{
    extract::{Path, State},
    response::{IntoResponse, Redirect},
};
use maud::{Markup, html};
use serde::Deserialize;
use tokio::time::timeout;

use super::{
    Answer, App,
    confirmed::{Confirmed, Question, Typed, Viewer},
    error::PageError,
    layout::count,
    letter_target::{Target, action_path, path, read},
    parameters::Parameters,
    parse_queue,
};
use crate::{
    actions::{LetterAction, Outcome, Work},
    letters::{Filter, LetterIndex, QueueLetters},
};

/// How long the page after an action waits for its end.
const END_WAIT: Duration = Duration::from_secs(3);

/// What a user has confirmed.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Confirmation {
    /// The newest letter that was counted. Later ones stay.
    up_to: u64,
    /// The name of the queue, if more than one letter is deleted.
    #[serde(default)]
    typed: String,
    sequence: Option<u64>,
    #[serde(flatten)]
    filter: Filter,
}

/// The letters that an action concerns.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) sequences: Vec<u64>,
    /// Number of callbacks among them.
    pub(super) callbacks: usize,
    /// Callbacks that are left out since their calls run again.
    pub(super) redundant: usize,
    /// Letters that the settings do not allow to change.
    pub(super) others: usize,
}

pub(super) async fn ask(
    State(app): State<Arc<App>>,
    viewer: Viewer,
    Path((queue, action)): Path<(String, String)>,
    Parameters(target): Parameters<Target>,
) -> Answer {
    let (queue, action) = (parse_queue(&queue)?, parse_action(&action)?);
    app.check_allowed([])?;
    let (opened, letters) = read(&app, &queue).await?;
    let (chosen, up_to) = choose(&app, action, &target, &opened, &letters, u64::MAX).await?;
    let question = question(&queue, action, &target, &chosen, up_to);
    Ok(question.render(&app, &viewer).into_response())
}

pub(super) async fn act(
    State(app): State<Arc<App>>,
    Path((queue, action)): Path<(String, String)>,
    Confirmed { user, form }: Confirmed<Confirmation>,
) -> Answer {
    let (queue, action) = (parse_queue(&queue)?, parse_action(&action)?);
    let Confirmation { up_to, typed, sequence, filter } = form;
    let target = Target { sequence, filter };
    if target.needs_name(action) && typed.trim() != queue.as_str() {
        return Err(PageError::NotValid(format!(
            "Nothing was deleted: what you typed is not the name of the queue, {queue}."
        )));
    }
    let (opened, letters) = read(&app, &queue).await?;
    let (chosen, _) = choose(&app, action, &target, &opened, &letters, up_to).await?;
    let entry = entry(&app, &queue, action, &chosen)?;
    let Chosen { sequences, .. } = chosen;
    let work = Work { queue: queue.clone(), entry, store: opened, letters, sequences };
    match app.actions.jobs.start(action, user.clone(), work) {
        Ok(job) => {
            let _ = timeout(END_WAIT, job).await;
            Ok(Redirect::to(&path(&queue)).into_response())
        }
        Err(busy) => {
            let (what, target) = (busy.to_string(), format!("dead letters of {queue}"));
            app.actions.record(&user, action.name(), &target, Outcome::Refused(&what));
            Err(PageError::Conflict { what, remedy: "Do it again when that has ended." })
        }
    }
}

/// Chooses the letters up to a sequence that an action concerns. Returns the last one that was
/// considered as well.
async fn choose(
    app: &App,
    action: LetterAction,
    target: &Target,
    opened: &DeadLetters,
    letters: &QueueLetters,
    up_to: u64,
) -> Result<(Chosen, u64), PageError> {
    if let Some(sequence) = target.sequence {
        let letter = opened.letter(sequence).await?.ok_or_else(nothing)?;
        app.check_allowed([letter.function.as_ref()])?;
        let callbacks = usize::from(letter.kind == DeadLetterKind::Callback);
        let chosen = Chosen { sequences: vec![sequence], callbacks, redundant: 0, others: 0 };
        return Ok((chosen, sequence));
    }
    let permits = |function: Option<&FunctionName>| app.actions.allowed.permits(function);
    letters.with(|index| {
        if index.is_reading() && index.newest() < up_to.min(opened.last_sequence()) {
            return Err(PageError::Conflict {
                what: format!(
                    "The dead letters are still being read: {} of {}.",
                    index.len(),
                    index.total
                ),
                remedy: "Reload the page in a few seconds.",
            });
        }
        let chosen = choose_among(index, action, &target.filter, up_to, permits);
        let newest = index.newest().min(up_to);
        if chosen.sequences.is_empty() { Err(nothing()) } else { Ok((chosen, newest)) }
    })
}

fn choose_among(
    index: &LetterIndex,
    action: LetterAction,
    filter: &Filter,
    up_to: u64,
    permits: impl Fn(Option<&FunctionName>) -> bool,
) -> Chosen {
    let counted = index.select(filter).take_while(|(sequence, _)| *sequence <= up_to);
    let (allowed, others): (Vec<_>, Vec<_>) =
        counted.partition(|(_, letter)| permits(letter.group.function.as_ref()));
    let chosen = match action {
        LetterAction::Replay => LetterIndex::to_replay(&allowed, filter.kind),
        LetterAction::Delete => allowed.clone(),
    };
    Chosen {
        callbacks: chosen.iter().filter(|(_, letter)| letter.is_callback()).count(),
        redundant: allowed.len() - chosen.len(),
        others: others.len(),
        sequences: chosen.into_iter().map(|(sequence, _)| sequence).collect(),
    }
}

pub(super) fn question(
    queue: &QueueName,
    action: LetterAction,
    target: &Target,
    chosen: &Chosen,
    up_to: u64,
) -> Question {
    let number = count(chosen.sequences.len(), "dead letter");
    let (verb, is_final) = match action {
        LetterAction::Replay => ("Replay", false),
        LetterAction::Delete => ("Delete", true),
    };
    let typed = Typed { field: "typed", label: "the name of the queue", text: queue.to_string() };
    let mut fields = target.fields();
    fields.push(("up_to", up_to.to_string()));
    Question {
        title: format!("{verb} {number} of {queue}?"),
        button: format!("{verb} {number}"),
        explanation: explanation(action, target, chosen),
        is_final,
        typed: target.needs_name(action).then_some(typed),
        fields,
        path: action_path(queue, action),
        back: path(queue),
    }
}

fn explanation(action: LetterAction, target: &Target, chosen: &Chosen) -> Markup {
    let Chosen { sequences, callbacks, redundant, others } = chosen;
    let calls = sequences.len() - callbacks;
    html! {
        @if let Filter { function: Some(function), reason: Some(reason), .. } = &target.filter {
            p { "Those of " (function) ": " (reason) }
        }
        @match action {
            LetterAction::Replay => {
                @if calls > 0 {
                    p { (count(calls, "call")) ": run again, with the same id and all attempts. "
                        "What the function has done in the attempts before stays done." }
                }
                @if *callbacks > 0 {
                    p { (count(*callbacks, "callback")) ": sent again, with the result as it was." }
                }
                @if *redundant > 0 {
                    p { (count(*redundant, "callback")) ": left out, since the call runs again "
                        "and has a new result." }
                }
                p { "A call that was replayed can be cancelled while it waits or runs." }
            }
            LetterAction::Delete => {
                p { (count(calls, "call"))
                    @if *callbacks > 0 { " and " (count(*callbacks, "callback")) }
                    ", with all of the content." }
            }
        }
        @if *others > 0 {
            p { (count(*others, "dead letter")) ": left out, since the console may not change "
                "those of their functions." }
        }
        p { "Dead letters that are stored after this page was made stay." }
    }
}

/// Returns where the calls of a queue go. Callbacks alone, and deletions, do not need it.
fn entry(
    app: &App,
    queue: &QueueName,
    action: LetterAction,
    chosen: &Chosen,
) -> Result<QueueEntry, PageError> {
    if action == LetterAction::Delete || chosen.callbacks == chosen.sequences.len() {
        return Ok(QueueEntry::with_default_names(queue));
    }
    let overview = app.overview()?;
    overview.inventory.queues.get(queue).cloned().flatten().ok_or_else(|| PageError::NotFound {
        what: format!("There is no queue {queue} that could run the calls."),
        remedy: "Create its AsyncQueue again, or delete the dead letters.",
    })
}

fn nothing() -> PageError {
    PageError::Conflict {
        what: "There is no such dead letter any more.".to_owned(),
        remedy: "It was replayed or deleted. The page of the dead letters shows the others.",
    }
}

fn parse_action(name: &str) -> Result<LetterAction, PageError> {
    let all = [LetterAction::Replay, LetterAction::Delete];
    all.into_iter().find(|action| action.name() == name).ok_or(PageError::NoPage)
}
