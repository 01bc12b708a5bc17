//! Formats errors as text.

use std::{error::Error, fmt::Write};

/// Formats an error and its causes in one line. A cause is left out if the text before it already
/// contains it, as in many libraries.
#[must_use]
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            // Writing to a string does not fail.
            let _ = write!(text, ": {message}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_said_once() {
        let error = anyhow::anyhow!("refused")
            .context("IO error: refused")
            .context("the directory can't be read");
        assert_eq!(error_chain(error.as_ref()), "the directory can't be read: IO error: refused");
    }
}
