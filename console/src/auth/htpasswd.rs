//! Reads a file of users and the hashes of their passwords.

use std::{collections::HashMap, path::Path};

use anyhow::Context as _;

/// Maximum cost of a hash. One more doubles the time of each login.
const MAX_COST: u32 = 14;

/// Maximum length of a password that bcrypt distinguishes, in bytes.
const MAX_PASSWORD: usize = 72;

/// A hash of no password, with the cost that `htpasswd -B` uses: a user who does not exist takes as
/// long as one who does.
const NO_USER: &str = "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";

/// The hashes of passwords, by user.
#[derive(Debug)]
pub(super) struct Passwords(HashMap<String, String>);

// === impl Passwords ===

impl Passwords {
    /// Reads a file.
    pub(super) fn read(file: &Path) -> anyhow::Result<Self> {
        let shown = file.display();
        let text =
            std::fs::read_to_string(file).with_context(|| format!("`{shown}` can't be read"))?;
        Self::parse(&text).with_context(|| format!("`{shown}` is not valid"))
    }

    /// Returns the number of users.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether a password is that of the user. Takes up to a second.
    pub(super) fn verify(&self, user: &str, password: &str) -> bool {
        let hash = self.0.get(user).map_or(NO_USER, String::as_str);
        let is_right = bcrypt::verify(password, hash).unwrap_or(false);
        is_right && self.0.contains_key(user) && password.len() <= MAX_PASSWORD
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut passwords = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let (number, line) = (index + 1, line.trim());
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (user, hash) = line.split_once(':').unwrap_or_default();
            if user.is_empty() || !has_valid_cost(hash) {
                anyhow::bail!(
                    "line {number} is not USER:HASH with a bcrypt hash of cost 4 to {MAX_COST}; \
                     write it with `htpasswd -nB USER`"
                );
            }
            passwords.insert(user.to_owned(), hash.to_owned());
        }
        anyhow::ensure!(!passwords.is_empty(), "it has no users; add one with `htpasswd -nB USER`");
        Ok(Self(passwords))
    }
}

/// Returns whether a text is a bcrypt hash that takes no longer than allowed.
fn has_valid_cost(hash: &str) -> bool {
    let parts: Option<bcrypt::HashParts> = hash.parse().ok();
    parts.is_some_and(|parts| (4..=MAX_COST).contains(&parts.get_cost()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_of_no_user_is_valid() {
        assert!(has_valid_cost(NO_USER));
        assert!(bcrypt::verify("x", NO_USER).is_ok());
    }

    #[test]
    fn passwords_are_checked_by_user() {
        let hash = bcrypt::hash("right", 4).unwrap();
        let apache = hash.replacen("$2b$", "$2y$", 1);
        let passwords = Passwords::parse(&format!("# team\n\nada:{hash}\neve:{apache}\n")).unwrap();
        assert_eq!(passwords.len(), 2);
        assert!(passwords.verify("ada", "right") && passwords.verify("eve", "right"));
        assert!(!passwords.verify("ada", "wrong") && !passwords.verify("bob", "right"));
        let long = "a".repeat(MAX_PASSWORD);
        let cut = format!("ada:{}", bcrypt::hash(&long, 4).unwrap());
        assert!(Passwords::parse(&cut).unwrap().verify("ada", &long));
        assert!(!Passwords::parse(&cut).unwrap().verify("ada", &format!("{long}b")));
    }

    #[test]
    fn file_that_is_not_valid_is_refused_with_its_line() {
        for bad in ["ada", "ada:plain", ":x", "ada:$apr1$x$y", "ada:{SHA}x"] {
            let error = Passwords::parse(&format!("\n{bad}\n")).unwrap_err().to_string();
            assert!(error.contains("line 2") && error.contains("htpasswd -nB"), "{error}");
        }
        let slow = bcrypt::hash("x", 4).unwrap().replacen("$04$", "$15$", 1);
        assert!(Passwords::parse(&format!("ada:{slow}")).is_err());
        assert!(Passwords::parse("# no users\n").unwrap_err().to_string().contains("no users"));
    }
}
