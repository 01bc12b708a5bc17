//! What users may change: cancel calls, and replay and delete dead letters.

use std::sync::Arc;

use crate::{auth::User, metrics::Metrics, settings::AllowedActions};

mod form_token;
mod jobs;
mod origin;

pub(crate) use form_token::FormTokens;
pub(crate) use jobs::{Job, Jobs, LetterAction, Progress, Work};
pub(crate) use origin::is_from_own_page;

/// What the pages need for actions.
#[derive(Debug)]
pub(crate) struct Actions {
    pub(crate) allowed: AllowedActions,
    pub(crate) tokens: FormTokens,
    pub(crate) jobs: Arc<Jobs>,
    metrics: Metrics,
}

// === impl Actions ===

impl Actions {
    /// Creates the actions that a setting allows.
    pub(crate) fn new(allowed: AllowedActions, metrics: Metrics) -> Self {
        let jobs = Jobs::new(metrics.clone()).into();
        Self { allowed, tokens: FormTokens::default(), jobs, metrics }
    }

    /// Logs and counts what a user has done, or has tried to do.
    pub(crate) fn record(
        &self,
        user: &User,
        action: &'static str,
        target: &str,
        outcome: Outcome<'_>,
    ) {
        self.metrics.acted(action, outcome.name());
        match outcome {
            Outcome::Success => tracing::info!(%user, action, target, "done"),
            Outcome::Failure(why) => tracing::warn!(%user, action, target, "failed: {why}"),
            Outcome::Refused(why) => tracing::warn!(%user, action, target, "refused: {why}"),
        }
    }
}

/// How an action ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome<'a> {
    Success,
    Failure(&'a str),
    Refused(&'a str),
}

// === impl Outcome ===

impl Outcome<'_> {
    fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure(_) => "failure",
            Self::Refused(_) => "refused",
        }
    }
}
