//! Publishes events, which `kubectl describe` shows: one for each change.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tracing::debug;

use crate::labels::OPERATOR_NAME;

/// Maximum length of a note that the API server accepts, in bytes.
const MAX_NOTE_BYTES: usize = 1024;

/// Publishes events.
#[derive(Clone)]
pub(crate) struct Events {
    client: Client,
    reporter: Reporter,
}

// === impl Events ===

impl Events {
    pub(crate) fn new(client: Client, pod: Option<String>) -> Self {
        let reporter = Reporter { controller: OPERATOR_NAME.to_owned(), instance: pod };
        Self { client, reporter }
    }

    /// Publishes an event for information.
    pub(crate) async fn normal(
        &self,
        object: &ObjectReference,
        reason: &str,
        note: impl Into<String>,
    ) {
        self.publish(EventType::Normal, object, reason, note.into()).await;
    }

    /// Publishes an event that needs attention.
    pub(crate) async fn warning(
        &self,
        object: &ObjectReference,
        reason: &str,
        note: impl Into<String>,
    ) {
        self.publish(EventType::Warning, object, reason, note.into()).await;
    }

    /// Publishes an event. A failure is not an error: conditions say the same.
    async fn publish(
        &self,
        type_: EventType,
        object: &ObjectReference,
        reason: &str,
        note: String,
    ) {
        let note = Some(truncate_note(note));
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note,
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        // The recorder is created each time: it would remember its events, to count repeated ones,
        // and search all of them each time. The operator does not repeat events.
        let recorder = Recorder::new(self.client.clone(), self.reporter.clone());
        if let Err(error) = recorder.publish(&event, object).await {
            debug!(%error, reason, "failed to publish an event");
        }
    }
}

/// Shortens a note to the length that the API server accepts.
fn truncate_note(mut note: String) -> String {
    const ELLIPSIS: &str = "…";
    if note.len() > MAX_NOTE_BYTES {
        let room = MAX_NOTE_BYTES - ELLIPSIS.len();
        let end = (0..=room).rev().find(|end| note.is_char_boundary(*end)).unwrap_or_default();
        note.truncate(end);
        note.push_str(ELLIPSIS);
    }
    note
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_note_is_shortened_between_characters() {
        assert_eq!(truncate_note("short".to_owned()), "short");
        let long = truncate_note("ä".repeat(1000));
        assert!(long.len() <= MAX_NOTE_BYTES && long.ends_with('…'), "{}", long.len());
    }
}
