//! Hides credentials in what is shown of calls and results.

use http::{HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;

/// What is shown instead of a credential.
pub(crate) const HIDDEN: &str = "(hidden)";

/// Parts of the names of headers and query parameters whose values are credentials.
const SECRET_NAMES: [&str; 13] = [
    "auth",
    "cookie",
    "credential",
    "jwt",
    "key",
    "passphrase",
    "passwd",
    "password",
    "pwd",
    "secret",
    "session",
    "sig",
    "token",
];

/// A name with such a part whose value is no credential.
const PUBLIC_NAME: &str = "idempotency-key";

/// Maximum length of a body that is shown, in bytes.
const MAX_SHOWN_BODY: usize = 64 * 1024;

/// A body as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ShownBody {
    /// No body.
    Empty,
    /// Text, and the number of bytes that are left out.
    Text(String, usize),
    /// Number of bytes of what is no text.
    Binary(usize),
}

/// Returns whether the value of a header or query parameter is hidden.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name != PUBLIC_NAME && SECRET_NAMES.iter().any(|part| name.contains(part))
}

/// Returns a text in which each character is seen: those that control a terminal, or the order of
/// the text around them, are replaced.
fn visible(text: &str) -> String {
    let is_hidden = |c: char| {
        (c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.replace(is_hidden, "\u{fffd}")
}

/// Returns the headers, sorted by name, with credentials hidden.
pub(crate) fn headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let show = |(name, value): (&HeaderName, &http::HeaderValue)| {
        let value = if is_secret(name.as_str()) {
            HIDDEN.to_owned()
        } else {
            visible(&String::from_utf8_lossy(value.as_bytes()))
        };
        (name.to_string(), value)
    };
    let mut shown: Vec<_> = headers.iter().map(show).collect();
    shown.sort();
    shown
}

/// Returns a path with its query, with credentials hidden in the query.
pub(crate) fn path(path: &str, query: Option<&str>) -> String {
    let Some(query) = query else { return path.to_owned() };
    let parameters: Vec<String> = query
        .split('&')
        .map(|parameter| match parameter.split_once('=') {
            Some((name, _)) if is_secret(&percent_decode_str(name).decode_utf8_lossy()) => {
                format!("{name}={HIDDEN}")
            }
            _ => parameter.to_owned(),
        })
        .collect();
    format!("{path}?{}", parameters.join("&"))
}

/// Returns a URL without user, password and fragment, with credentials hidden in its query.
pub(crate) fn url(url: &str) -> String {
    let url = url.split('#').next().unwrap_or_default();
    let (before, query) = url.split_once('?').map_or((url, None), |(path, q)| (path, Some(q)));
    let shown = match before.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, target) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}{target}")
        }
        None => before.to_owned(),
    };
    path(&shown, query)
}

/// Returns a body as text, if it is text.
pub(crate) fn body(body: &[u8]) -> ShownBody {
    let shown = &body[..body.len().min(MAX_SHOWN_BODY)];
    match std::str::from_utf8(shown) {
        Ok("") => ShownBody::Empty,
        Ok(text) => ShownBody::Text(visible(text), body.len() - shown.len()),
        // The last character may be cut.
        Err(error) if shown.len() < body.len() && error.valid_up_to() + 4 > shown.len() => {
            let text = visible(&String::from_utf8_lossy(&shown[..error.valid_up_to()]));
            ShownBody::Text(text, body.len() - error.valid_up_to())
        }
        Err(_) => ShownBody::Binary(body.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_hide_or_reorder_a_text_are_seen() {
        let text = "a\u{202e}b\u{1b}[31m\u{0}\u{2066}c\n\td";
        let seen = "a\u{fffd}b\u{fffd}[31m\u{fffd}\u{fffd}c\n\td";
        assert_eq!(body(text.as_bytes()), ShownBody::Text(seen.to_owned(), 0));
    }

    #[test]
    fn credentials_in_headers_are_hidden() {
        let mut map = HeaderMap::new();
        let secret = [
            "authorization",
            "proxy-authorization",
            "cookie",
            "set-cookie",
            "x-api-key",
            "x-hub-signature-256",
            "webhook-signature",
            "x-csrf-token",
            "x-amz-security-token",
        ];
        for name in secret {
            map.insert(HeaderName::from_static(name), "topsecret".parse().unwrap());
        }
        map.insert("content-type", "text/plain".parse().unwrap());
        map.insert("idempotency-key", "order-7".parse().unwrap());
        let shown = headers(&map);
        assert_eq!(shown.len(), secret.len() + 2);
        assert!(shown.iter().all(|(_, value)| value != "topsecret"), "{shown:?}");
        assert!(shown.contains(&("content-type".into(), "text/plain".into())));
        assert!(shown.contains(&("idempotency-key".into(), "order-7".into())));
    }

    #[test]
    fn credentials_in_queries_and_urls_are_hidden() {
        assert_eq!(path("/p", Some("a=1&api_key=x&Toke%6E=y&b")), {
            format!("/p?a=1&api_key={HIDDEN}&Toke%6E={HIDDEN}&b")
        });
        assert_eq!(path("/p", None), "/p");
        assert_eq!(url("https://u:p@h:1/x?sig=1#f"), format!("https://h:1/x?sig={HIDDEN}"));
        assert_eq!(url("https://a@b:c@host"), "https://host");
    }

    #[test]
    fn body_is_shown_as_text_within_a_limit() {
        assert_eq!(body(b""), ShownBody::Empty);
        assert_eq!(body(b"<b>"), ShownBody::Text("<b>".into(), 0));
        assert_eq!(body(&[0xff, 0x00]), ShownBody::Binary(2));
        // The limit is in the middle of a character.
        let long = format!("a{}", "ä".repeat(MAX_SHOWN_BODY));
        let shown = MAX_SHOWN_BODY - 1;
        let expected = ShownBody::Text(long[..shown].to_owned(), long.len() - shown);
        assert_eq!(body(long.as_bytes()), expected);
    }
}
