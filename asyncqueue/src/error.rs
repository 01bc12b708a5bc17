//! Searches an error for its cause.

use std::error::Error;

/// Returns the first of an error and its causes that is a `T`.
#[must_use]
pub fn find_cause<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    std::iter::successors(Some(error), |&error| error.source())
        .find_map(|error| error.downcast_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::fmt::Error);

    #[test]
    fn an_error_or_what_caused_it_is_found_by_its_type() {
        let error = Outer(std::fmt::Error);
        assert!(find_cause::<Outer>(&error).is_some());
        assert!(find_cause::<std::fmt::Error>(&error).is_some());
        assert!(find_cause::<std::io::Error>(&error).is_none());
    }
}
