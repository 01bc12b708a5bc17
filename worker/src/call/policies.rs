//! Returns the retry policy that applies to a call now.

use std::sync::Arc;

use asyncqueue::{Invocation, directory::Directory};
use tokio::sync::watch;

use crate::{live_settings::LiveSettings, retry::outcome::RetryPolicy};

/// The policy of the queue, and the overrides of its functions. Both change while calls run.
#[derive(Clone, Debug)]
pub(crate) struct RetryPolicies {
    pub(crate) settings: watch::Receiver<LiveSettings>,
    pub(crate) directory: watch::Receiver<Option<Arc<Directory>>>,
}

// === impl RetryPolicies ===

impl RetryPolicies {
    /// Returns the policy for a call. The overrides of its function in the directory take
    /// precedence over those in its message.
    pub(crate) fn for_call(&self, invocation: &Invocation) -> Arc<RetryPolicy> {
        let policy = self.settings.borrow().policy.clone();
        let directory = self.directory.borrow();
        let entry =
            directory.as_ref().and_then(|directory| directory.functions.get(&invocation.function));
        let overrides = entry.map(|function| function.retry.clone()).unwrap_or_default();
        let overrides = overrides.or(&invocation.retry);
        // Nearly always there are no overrides, and nothing is copied.
        if overrides.is_empty() { policy } else { Arc::new(policy.with_overrides(&overrides)) }
    }
}
