//! Readiness: a set of named conditions, all of which must hold. Warnings leave a program ready.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// The reason why each condition does not hold, by its name. `None` if the condition holds.
type Conditions = BTreeMap<&'static str, Option<String>>;

/// The readiness of a program. Clones share their state.
#[derive(Clone, Debug, Default)]
pub struct Health {
    conditions: Arc<Mutex<Conditions>>,
    warnings: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

// === impl Health ===

impl Health {
    /// Creates a state without conditions, which is ready.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition that does not hold yet. `reason` is shown until it does.
    pub fn register(&self, name: &'static str, reason: impl Into<String>) {
        self.not_ready(name, reason);
    }

    /// Records that the condition holds.
    pub fn ready(&self, name: &'static str) {
        self.set(name, None);
    }

    /// Records that the condition does not hold, and why.
    pub fn not_ready(&self, name: &'static str, reason: impl Into<String>) {
        self.set(name, Some(reason.into()));
    }

    /// Returns why a condition does not hold. Returns `None` if it holds, or is not registered.
    #[must_use]
    pub fn reason(&self, name: &str) -> Option<String> {
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner).get(name)?.clone()
    }

    /// Returns `Ok` if all conditions hold. Otherwise returns those that don't, with their reasons,
    /// ordered by name.
    pub fn report(&self) -> Result<(), Vec<(&'static str, String)>> {
        let conditions = self.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        let failing: Vec<_> =
            conditions.iter().filter_map(|(name, reason)| Some((*name, reason.clone()?))).collect();
        if failing.is_empty() { Ok(()) } else { Err(failing) }
    }

    /// Sets a warning about a problem that does not stop the program. `None` removes it.
    pub fn set_warning(&self, name: &'static str, warning: Option<String>) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        match warning {
            Some(warning) => warnings.insert(name, warning),
            None => warnings.remove(name),
        };
    }

    /// Returns the warnings, ordered by name.
    #[must_use]
    pub fn warnings(&self) -> Vec<(&'static str, String)> {
        let warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        warnings.iter().map(|(name, warning)| (*name, warning.clone())).collect()
    }

    fn set(&self, name: &'static str, reason: Option<String>) {
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner).insert(name, reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_ready_when_every_condition_holds() {
        let health = Health::new();
        assert_eq!(health.report(), Ok(()));
        health.register("nats", "waiting for NATS");
        health.register("directory", "not read yet");
        health.ready("directory");
        assert_eq!(health.report(), Err(vec![("nats", "waiting for NATS".to_owned())]));
        health.clone().ready("nats");
        assert_eq!(health.report(), Ok(()));
        assert_eq!((health.reason("nats"), health.reason("other")), (None, None));
        health.not_ready("nats", "disconnected");
        assert_eq!(health.reason("nats").as_deref(), Some("disconnected"));
        assert_eq!(health.report(), Err(vec![("nats", "disconnected".to_owned())]));
    }
}
