//! Reads the names of streams, consumers and subjects that a user chose, for a setting.

use crate::names::{NameError, is_name_byte};

/// Maximum length of the name of a new stream.
pub const MAX_STREAM_NAME: usize = 64;

/// Maximum length of the subject of a new stream.
pub const MAX_SUBJECT: usize = 128;

/// Reads the name of a stream that a user chose, for a setting.
pub fn parse_stream(text: &str) -> Result<String, NameError> {
    jetstream_name("stream", text)
}

/// Reads the name of a durable consumer that a user chose, for a setting.
pub fn parse_durable(text: &str) -> Result<String, NameError> {
    jetstream_name("consumer", text)
}

fn jetstream_name(kind: &'static str, text: &str) -> Result<String, NameError> {
    if text.is_empty() || text.contains(|c: char| c.is_whitespace() || ".*>/\\".contains(c)) {
        let rule = "use no spaces and none of . * > / \\";
        return Err(NameError { kind, value: text.to_owned(), rule });
    }
    Ok(text.to_owned())
}

/// Reads a subject that a user chose, for a setting.
pub fn parse_subject(text: &str) -> Result<String, NameError> {
    let is_token = |token: &str| {
        !token.is_empty() && !token.contains(|c: char| c.is_whitespace() || "*>".contains(c))
    };
    if text.split('.').all(is_token) {
        return Ok(text.to_owned());
    }
    let rule = "use tokens separated by single dots, without spaces, * and >";
    Err(NameError { kind: "subject", value: text.to_owned(), rule })
}

/// Reads the name of a stream to be created, by the rule of the CRD of `AsyncQueue`.
pub fn parse_new_stream(text: &str) -> Result<String, NameError> {
    if (1..=MAX_STREAM_NAME).contains(&text.len()) && text.bytes().all(is_name_byte) {
        return Ok(text.to_owned());
    }
    let rule = "use 1 to 64 of A-Z, a-z, 0-9, - and _";
    Err(NameError { kind: "stream", value: text.to_owned(), rule })
}

/// Reads the subject of a stream to be created, by the rule of the CRD of `AsyncQueue`.
pub fn parse_new_subject(text: &str) -> Result<String, NameError> {
    let is_token = |token: &str| !token.is_empty() && token.bytes().all(is_name_byte);
    if text.len() <= MAX_SUBJECT && !text.starts_with('_') && text.split('.').all(is_token) {
        return Ok(text.to_owned());
    }
    let rule = "use tokens of A-Z, a-z, 0-9, - and _ separated by single dots, such as jobs.slow, \
                at most 128 characters, not beginning with _";
    Err(NameError { kind: "subject", value: text.to_owned(), rule })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jetstream_names_of_users_are_validated() {
        assert_eq!(parse_stream("SLOW-1").as_deref(), Ok("SLOW-1"));
        assert_eq!(parse_subject("jobs.slow").as_deref(), Ok("jobs.slow"));
        for bad in ["", "a.b", "a b", "a*", "a/b", "a\\b"] {
            assert!(parse_stream(bad).is_err() && parse_durable(bad).is_err(), "{bad}");
        }
        for bad in ["", ".", "a..b", "a.", "a.>", "*.a", "a b"] {
            assert!(parse_subject(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_of_a_new_stream_is_narrower() {
        assert!(parse_new_stream("A_b-1").is_ok() && parse_new_subject("jobs.A_b-1").is_ok());
        for bad in ["", "a.b", "ä", "a b", "$a", &"a".repeat(65)] {
            assert!(parse_new_stream(bad).is_err(), "{bad}");
        }
        for bad in ["", ".", "a..b", "_a", "a.>", "$a", "ä", &"a".repeat(129)] {
            assert!(parse_new_subject(bad).is_err(), "{bad}");
        }
    }
}
