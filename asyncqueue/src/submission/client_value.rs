//! Reads the headers that a client may send once, and shortens what a response repeats of them.

use http::{HeaderMap, HeaderName};

use super::error::SubmissionError;
use crate::call_id::CallId;

/// Maximum number of characters of a client's value that a response repeats. It exceeds the longest
/// valid value, so that shortening never makes a value valid.
const MAX_SHOWN_CHARS: usize = 160;

/// Returns the value of a header that may occur at most once. An empty value counts as absent.
pub(super) fn single<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    header: &'static str,
) -> Result<Option<&'a str>, SubmissionError> {
    Ok(single_or_empty(headers, name, header)?.filter(|text| !text.is_empty()))
}

/// Returns the value of a header that may occur at most once.
pub(super) fn single_or_empty<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    header: &'static str,
) -> Result<Option<&'a str>, SubmissionError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(SubmissionError::RepeatedHeader(header));
    }
    str::from_utf8(value.as_bytes()).map(Some).map_err(|_| SubmissionError::HeaderNotText(header))
}

/// Shortens a client's value to what a response repeats.
#[must_use]
pub fn shorten(text: &str) -> String {
    if text.len() <= MAX_SHOWN_CHARS {
        text.to_owned()
    } else {
        text.chars().take(MAX_SHOWN_CHARS).chain(['…']).collect()
    }
}

/// Parses a call id. `field` says where it was found.
pub fn call_id(field: &'static str, text: &str) -> Result<CallId, SubmissionError> {
    shorten(text).parse().map_err(|error| SubmissionError::CallId { field, error })
}
