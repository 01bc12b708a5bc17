//! Adjusts the headers of a response of which only the beginning is kept.

use asyncqueue::headers::X_RESULT_TRUNCATED;
use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Headers that describe the whole body (RFC 9110, 8.8 and 14; RFC 9530; RFC 3230; RFC 2616,
/// 14.15).
static OF_THE_WHOLE: [HeaderName; 9] = [
    header::ETAG,
    header::LAST_MODIFIED,
    header::ACCEPT_RANGES,
    header::CONTENT_RANGE,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
    header::CONTENT_LENGTH,
];

/// Marks a result as truncated or not. Only the worker sets the mark: one that the function set is
/// removed.
pub(crate) fn mark(headers: &mut HeaderMap, is_truncated: bool) {
    headers.remove(X_RESULT_TRUNCATED);
    if is_truncated {
        for name in &OF_THE_WHOLE {
            headers.remove(name);
        }
        headers.insert(X_RESULT_TRUNCATED, HeaderValue::from_static("true"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        for name in [
            "etag",
            "digest",
            "content-digest",
            "repr-digest",
            "content-md5",
            "content-range",
            "accept-ranges",
            "last-modified",
            "content-type",
            "x-result-truncated",
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("a"));
        }
        headers
    }

    #[test]
    fn a_truncated_result_is_marked_and_loses_whole_body_headers() {
        let mut headers = headers();
        mark(&mut headers, true);
        let mut left: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        left.sort_unstable();
        assert_eq!(left, [("content-type", "a"), ("x-result-truncated", "true")]);
    }

    #[test]
    fn a_whole_result_keeps_its_headers() {
        let mut headers = headers();
        mark(&mut headers, false);
        assert_eq!(headers.len(), 9);
        assert!(!headers.contains_key(X_RESULT_TRUNCATED));
    }
}
