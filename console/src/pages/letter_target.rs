//! Which dead letters an action concerns, and the links that lead there.

use std::sync::Arc;

use asyncqueue::{
    QueueName,
    dead_letters::{DeadLetters, OpenError},
};
use maud::{Markup, html};
use serde::{Deserialize, Serialize};

use super::{App, error::PageError, layout};
use crate::{
    actions::LetterAction,
    letters::{Filter, QueueLetters},
};

/// Which letters an action concerns, in links and forms: one, those of a filter, or all.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Target {
    /// The sequence of one letter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sequence: Option<u64>,
    #[serde(flatten)]
    pub(super) filter: Filter,
}

/// Reads the dead letters of a queue, for a second at most.
pub(super) async fn read(
    app: &App,
    queue: &QueueName,
) -> Result<(DeadLetters, Arc<QueueLetters>), PageError> {
    let opened = match app.letters.open(queue).await {
        Ok(opened) => opened,
        Err(OpenError::NoStream { .. }) => {
            return Err(PageError::NotFound {
                what: format!("Queue {queue} keeps no dead letters."),
                remedy: "Check the name of the queue, and deadLetter.enabled in its AsyncQueue.",
            });
        }
        Err(OpenError::Nats(error)) => return Err(error.into()),
    };
    let letters = app.letters.read(queue, &opened).await?;
    Ok((opened, letters))
}

// === impl Target ===

impl Target {
    /// All letters of the queue.
    pub(super) fn all() -> Self {
        Self::default()
    }

    /// The letter at a sequence.
    pub(super) fn one(sequence: u64) -> Self {
        Self { sequence: Some(sequence), ..Self::default() }
    }

    /// The letters of a group.
    pub(super) fn group(filter: Filter) -> Self {
        Self { sequence: None, filter }
    }

    /// What the links to an action are about, for those who hear them one by one.
    fn label(&self) -> String {
        match (self.sequence, &self.filter) {
            (Some(sequence), _) => format!("dead letter {sequence}"),
            (None, Filter { function: Some(function), reason: Some(reason), .. }) => {
                format!("{function}: {reason}")
            }
            _ => "all dead letters".to_owned(),
        }
    }

    /// Returns whether the name of the queue has to be typed.
    pub(super) fn needs_name(&self, action: LetterAction) -> bool {
        action == LetterAction::Delete && self.sequence.is_none()
    }

    /// The fields of a form.
    pub(super) fn fields(&self) -> Vec<(&'static str, String)> {
        let Self { sequence, filter: Filter { function, reason, kind } } = self;
        let fields = [
            ("sequence", sequence.map(|sequence| sequence.to_string())),
            ("function", function.clone()),
            ("reason", reason.clone()),
            ("kind", kind.map(|kind| kind.name().to_owned())),
        ];
        fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// Renders the links that lead to the questions.
pub(super) fn links(queue: &QueueName, target: &Target) -> Markup {
    let link = |action: LetterAction, verb: &str| {
        let to = layout::with_query(&action_path(queue, action), target);
        let label = format!("{verb} {}", target.label());
        let all = if target.fields().is_empty() { " all" } else { "" };
        html! { a.action href=(to) aria-label=(label) { (verb) (all) } }
    };
    html! { (link(LetterAction::Replay, "Replay")) " " (link(LetterAction::Delete, "Delete")) }
}

/// Returns the path of the page.
pub(super) fn path(queue: &QueueName) -> String {
    format!("/queues/{queue}/dead")
}

/// Returns the path of an action.
pub(super) fn action_path(queue: &QueueName, action: LetterAction) -> String {
    format!("{}/{}", path(queue), action.name())
}
