//! Reads the headers that a client may send once, and shortens what a response repeats of them.

use http::{HeaderMap, HeaderName};

use crate::rejection::Rejection;

/// Maximum number of characters of a client's value that a response repeats. It exceeds the longest
/// valid value, so that shortening never makes a value valid.
const MAX_SHOWN_CHARS: usize = 160;

/// Returns the value of a header that may occur at most once. An empty value counts as absent.
pub(crate) fn single<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    header: &'static str,
) -> Result<Option<&'a str>, Rejection> {
    Ok(single_or_empty(headers, name, header)?.filter(|text| !text.is_empty()))
}

/// Returns the value of a header that may occur at most once.
pub(crate) fn single_or_empty<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    header: &'static str,
) -> Result<Option<&'a str>, Rejection> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Rejection::RepeatedHeader(header));
    }
    str::from_utf8(value.as_bytes()).map(Some).map_err(|_| Rejection::HeaderNotText(header))
}

/// Shortens a client's value to what a response repeats.
pub(crate) fn shorten(text: &str) -> String {
    if text.len() <= MAX_SHOWN_CHARS {
        text.to_owned()
    } else {
        text.chars().take(MAX_SHOWN_CHARS).chain(['…']).collect()
    }
}
