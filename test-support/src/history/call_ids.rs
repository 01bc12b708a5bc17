//! The ids that clients give their own calls.

use super::event::CallNumber;

const PREFIX: &str = "client-";

/// The id that a client gives a call of its own.
#[must_use]
pub fn own_id(number: CallNumber) -> String {
    format!("{PREFIX}{number}")
}

/// The number of a call that has an id of its client's.
#[must_use]
pub fn number_of(id: &str) -> Option<CallNumber> {
    id.strip_prefix(PREFIX)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_a_client_has_the_number_of_its_call() {
        assert_eq!(number_of(&own_id(7)), Some(7));
        assert_eq!(number_of("shared-0-7"), None);
    }
}
