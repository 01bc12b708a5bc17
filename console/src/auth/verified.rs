//! Remembers logins that were checked, since the check of a password takes long on purpose.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};

/// How long a login is not checked again. A user who was removed has access for as long.
const KEEP_VERIFIED: Duration = Duration::from_secs(60);

/// Maximum number of logins that are remembered.
const MAX_LOGINS: usize = 1_000;

/// The logins, by a digest that only this process can compute.
#[derive(Debug)]
pub(super) struct VerifiedLogins {
    key: [u8; 32],
    logins: HashMap<[u8; 32], Instant>,
}

// === impl VerifiedLogins ===

impl VerifiedLogins {
    /// Returns whether a login was checked a short time ago.
    pub(super) fn contains(&self, user: &str, password: &str, now: Instant) -> bool {
        let at = self.logins.get(&self.digest(user, password));
        at.is_some_and(|at| now.duration_since(*at) < KEEP_VERIFIED)
    }

    /// Remembers a login.
    pub(super) fn insert(&mut self, user: &str, password: &str, now: Instant) {
        self.logins.retain(|_, at| now.duration_since(*at) < KEEP_VERIFIED);
        if self.logins.len() < MAX_LOGINS {
            self.logins.insert(self.digest(user, password), now);
        }
    }

    fn digest(&self, user: &str, password: &str) -> [u8; 32] {
        let mut digest = Sha256::new_with_prefix(self.key);
        digest.update(user.len().to_be_bytes());
        digest.update(user);
        digest.update(password);
        digest.finalize().into()
    }
}

impl Default for VerifiedLogins {
    fn default() -> Self {
        Self { key: rand::random(), logins: HashMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn login_is_remembered_for_a_while_and_with_its_password() {
        let (now, mut verified) = (Instant::now(), VerifiedLogins::default());
        verified.insert("ada", "right", now);
        assert!(verified.contains("ada", "right", now));
        assert!(!verified.contains("ada", "wrong", now));
        assert!(!verified.contains("adar", "ight", now));
        assert!(!verified.contains("ada", "right", now + KEEP_VERIFIED));
    }
}
