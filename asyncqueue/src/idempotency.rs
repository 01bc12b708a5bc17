//! Implements idempotency keys (`draft-ietf-httpapi-idempotency-key-header`). A client that repeats
//! a submission with its key stores one call of a function, while the call is pending and within
//! the duplicate window.

use std::{fmt, str::FromStr};

use crate::{
    call_id::{CallId, queue_hash},
    message::digest::{sha256, shorten},
    names::{FunctionName, QueueName},
};

/// Maximum length of a key, in bytes.
pub const MAX_KEY: usize = 255;

/// Prefix of the message id of a call that has a key and a call id of its client. No call id
/// contains a `.`, so this is never the message id of a call without a key: see
/// [`crate::message::digest::message_id`].
const MESSAGE_ID_PREFIX: &str = "k.";

/// A key of a client: 1 to 255 bytes of printable ASCII.
///
/// ```
/// use asyncqueue::IdempotencyKey;
///
/// let key: IdempotencyKey = "payment 2026-11-29/17".parse()?;
/// assert!("".parse::<IdempotencyKey>().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

/// A text is not an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdempotencyKeyError {
    /// The key is empty or too long.
    #[error("it has {0} bytes")]
    Length(usize),
    /// The key has a character that is not allowed in a string of a header field.
    #[error("it holds a character that is not printable ASCII")]
    Character,
    /// The key begins with a quote, and is not a string as in RFC 8941.
    #[error("it begins with a quote and is not a string of RFC 8941")]
    String,
}

// === impl IdempotencyKey ===

impl IdempotencyKey {
    /// Returns the id of a function's call whose client sent this key and no call id. It is the
    /// same for each repeat.
    #[must_use]
    pub fn call_id(&self, queue: &QueueName, function: &FunctionName) -> CallId {
        CallId::from_hash(&self.hash(function), queue_hash(queue))
    }

    /// Returns whether an id is that of a function's call whose client sent this key and no call
    /// id.
    #[must_use]
    pub(crate) fn is_id(&self, function: &FunctionName, id: &CallId) -> bool {
        id.queue_hash().is_some_and(|queue| CallId::from_hash(&self.hash(function), queue) == *id)
    }

    /// Returns the `Nats-Msg-Id` of a function's call whose client sent this key and a call id.
    #[doc(hidden)]
    #[must_use]
    pub fn message_id(&self, function: &FunctionName) -> String {
        [MESSAGE_ID_PREFIX, &shorten(&self.hash(function))].concat()
    }

    /// Returns the key itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn hash(&self, function: &FunctionName) -> [u8; 32] {
        sha256([function.to_string().as_bytes(), self.0.as_bytes()])
    }
}

impl FromStr for IdempotencyKey {
    type Err = IdempotencyKeyError;

    /// Reads the value of [`IDEMPOTENCY_KEY`](crate::headers::IDEMPOTENCY_KEY): the key itself, or
    /// a string as in RFC 8941. Both forms of a key are the same key.
    fn from_str(text: &str) -> Result<Self, IdempotencyKeyError> {
        if !text.bytes().all(|b| matches!(b, b' '..=b'~')) {
            return Err(IdempotencyKeyError::Character);
        }
        let key = match text.strip_prefix('"') {
            Some(rest) => unquote(rest).ok_or(IdempotencyKeyError::String)?,
            None => text.to_owned(),
        };
        match key.len() {
            1..=MAX_KEY => Ok(Self(key)),
            length => Err(IdempotencyKeyError::Length(length)),
        }
    }
}

/// Returns the value of a string of RFC 8941, read after its first quote; `None` if it does not end
/// with the second.
fn unquote(text: &str) -> Option<String> {
    let (mut value, mut chars) = (String::with_capacity(text.len()), text.chars());
    loop {
        match chars.next()? {
            '"' => break,
            '\\' => value.push(chars.next().filter(|c| matches!(c, '"' | '\\'))?),
            c => value.push(c),
        }
    }
    chars.next().is_none().then_some(value)
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn function(name: &str) -> FunctionName {
        FunctionName::new(name, "openfaas-fn").unwrap()
    }

    #[test]
    fn a_key_is_bare_or_a_string_of_rfc_8941() {
        let longest = "x".repeat(255);
        for (text, key) in [
            ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
            ("\"8e03978e\"", "8e03978e"),
            (r#""a \"b\" \\ c""#, r#"a "b" \ c"#),
            (r#"a\"b"#, r#"a\"b"#),
            (&longest, &longest),
            (&format!("\"{longest}\""), &longest),
        ] {
            assert_eq!(text.parse::<IdempotencyKey>().unwrap().as_str(), key, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_key_and_its_string_are_one_key(key in "[!#-~][ -~]{0,254}") {
            let quoted = format!("\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""));
            let parsed = key.parse::<IdempotencyKey>().unwrap();
            prop_assert_eq!(parsed.as_str(), key.as_str());
            prop_assert_eq!(quoted.parse::<IdempotencyKey>().unwrap(), parsed);
        }

        #[test]
        fn parsing_never_panics(text in "\\PC*") {
            let _ = text.parse::<IdempotencyKey>();
        }
    }

    #[test]
    fn invalid_key_is_refused_with_the_rule() {
        for (text, expected) in [
            ("", "0 bytes"),
            ("\"\"", "0 bytes"),
            (&*"x".repeat(256), "256 bytes"),
            ("\"a", "RFC 8941"),
            ("\"", "RFC 8941"),
            ("\"a\"b", "RFC 8941"),
            ("\"a\";v=1", "RFC 8941"),
            (r#""a\b""#, "RFC 8941"),
            (r#""a\"#, "RFC 8941"),
            ("caf\u{e9}", "printable ASCII"),
            ("a\tb", "printable ASCII"),
        ] {
            let error = text.parse::<IdempotencyKey>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn ids_of_a_key_are_a_contract_between_gateways() {
        let (key, queue) = ("order-7".parse::<IdempotencyKey>().unwrap(), "jobs".parse().unwrap());
        assert_eq!(
            key.call_id(&queue, &function("figlet")).as_str(),
            "8bc12407-1c72-8b0b-993c-adbb827e5d9a"
        );
        assert_eq!(key.message_id(&function("figlet")), "k.i8EkBxxymwsZPK27gn5-uQ");
    }

    #[test]
    fn ids_of_a_key_are_those_of_one_function() {
        let (key, queue) = ("order-7".parse::<IdempotencyKey>().unwrap(), "jobs".parse().unwrap());
        let id = key.call_id(&queue, &function("figlet"));
        assert_eq!(id.queue_hash(), Some(queue_hash(&queue)));
        assert!(key.is_id(&function("figlet"), &id));
        assert!(key.is_id(
            &function("figlet"),
            &key.call_id(&"other".parse().unwrap(), &function("figlet"))
        ));
        for (key, name) in [("order-7", "cows"), ("order-8", "figlet")] {
            let other = key.parse::<IdempotencyKey>().unwrap();
            assert!(!other.is_id(&function(name), &id), "{key} {name}");
            assert_ne!(
                other.message_id(&function(name)),
                key.parse::<IdempotencyKey>().unwrap().as_str()
            );
        }
        assert!(!key.is_id(&function("figlet"), &"order-7".parse().unwrap()));
        assert!(!key.is_id(&function("figlet"), &CallId::generate(&queue)));
    }
}
