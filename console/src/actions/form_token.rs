//! Proves that a form comes from a page that this console has shown to the same user.

use std::time::Duration;

use hmac::{Hmac, Mac};
use jiff::Timestamp;
use sha2::Sha256;

use crate::auth::User;

/// How long a form may be sent.
const VALID_FOR: Duration = Duration::from_secs(30 * 60);

/// Makes and checks tokens, with a key that only this process has.
#[derive(Debug)]
pub(crate) struct FormTokens {
    key: [u8; 32],
}

// === impl FormTokens ===

impl FormTokens {
    /// Returns a token for the form that a user sends to a path.
    pub(crate) fn issue(&self, user: &User, path: &str, now: Timestamp) -> String {
        let expiry = (now + VALID_FOR).as_second();
        let mac = self.mac(user, path, expiry).finalize().into_bytes();
        format!("{expiry}.{}", hex::encode(mac))
    }

    /// Returns whether a token was issued for this user and path, and has not expired.
    pub(crate) fn is_valid(&self, token: &str, user: &User, path: &str, now: Timestamp) -> bool {
        let Some((expiry, mac)) = token.split_once('.') else { return false };
        let (Ok(expiry), Ok(mac)) = (expiry.parse(), hex::decode(mac)) else { return false };
        self.mac(user, path, expiry).verify_slice(&mac).is_ok() && now.as_second() < expiry
    }

    fn mac(&self, User(user): &User, path: &str, expiry: i64) -> Hmac<Sha256> {
        let mut mac = keyed(&self.key);
        mac.update(&user.len().to_be_bytes());
        mac.update(user.as_bytes());
        mac.update(&expiry.to_be_bytes());
        mac.update(path.as_bytes());
        mac
    }
}

impl Default for FormTokens {
    fn default() -> Self {
        Self { key: rand::random() }
    }
}

fn keyed(key: &[u8; 32]) -> Hmac<Sha256> {
    // A key of the size of a block of SHA-256 is used as it is; a shorter one is padded by zeros.
    let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
    block[..key.len()].copy_from_slice(key);
    hmac::digest::KeyInit::new(&block)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> User {
        User(name.to_owned())
    }

    #[test]
    fn token_is_of_its_user_path_time_and_process() {
        let (tokens, now) = (FormTokens::default(), Timestamp::UNIX_EPOCH);
        let token = tokens.issue(&user("ada"), "/calls/a/cancel", now);
        let valid = |token: &str, name: &str, path: &str, after: Duration| {
            tokens.is_valid(token, &user(name), path, now + after)
        };
        let soon = Duration::from_secs(1);
        assert!(valid(&token, "ada", "/calls/a/cancel", soon));
        assert!(!valid(&token, "eve", "/calls/a/cancel", soon));
        assert!(!valid(&token, "ada", "/calls/b/cancel", soon));
        assert!(!valid(&token, "ada", "/calls/a/cancel", VALID_FOR));
        assert!(!FormTokens::default().is_valid(&token, &user("ada"), "/calls/a/cancel", now));
        let (expiry, mac) = token.split_once('.').unwrap();
        let later = expiry.parse::<i64>().unwrap() + 1;
        for forged in
            [format!("{later}.{mac}"), format!("{expiry}."), mac.to_owned(), String::new()]
        {
            assert!(!valid(&forged, "ada", "/calls/a/cancel", soon), "{forged}");
        }
    }

    #[test]
    fn user_and_path_are_not_mixed_up() {
        let (tokens, now) = (FormTokens::default(), Timestamp::UNIX_EPOCH);
        let token = tokens.issue(&user("ada"), "/x", now);
        assert!(!tokens.is_valid(&token, &user("ad"), "a/x", now));
    }
}
