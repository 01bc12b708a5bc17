//! Recognises requests that pages of other sites send.

use http::{HeaderMap, Uri, header, uri::Authority};

/// Header in which a browser says which site has sent a request. Source: Fetch Metadata Request
/// Headers, <https://www.w3.org/TR/fetch-metadata/>.
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// Returns whether a page of this console has sent a request, as far as the browser says. Other
/// clients send neither header.
pub(crate) fn is_from_own_page(headers: &HeaderMap, authority: Option<&Authority>) -> bool {
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        return site == "same-origin";
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = authority.map(Authority::as_str).or(host);
    let origin: Option<Uri> = origin.to_str().ok().and_then(|origin| origin.parse().ok());
    let sender = origin.as_ref().and_then(Uri::authority).map(Authority::as_str);
    sender.zip(host).is_some_and(|(sender, host)| sender.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_own(lines: &[(&'static str, &str)]) -> bool {
        let headers = lines
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()));
        is_from_own_page(&headers.collect(), None)
    }

    #[test]
    fn browser_says_which_site_sends_a_request() {
        let host = ("host", "console.example:8084");
        assert!(is_own(&[host, ("sec-fetch-site", "same-origin"), ("origin", "https://proxy")]));
        for site in ["same-site", "cross-site", "none", ""] {
            assert!(!is_own(&[host, ("sec-fetch-site", site)]), "{site}");
        }
    }

    #[test]
    fn origin_is_compared_with_the_host_by_old_browsers() {
        let host = ("host", "console.example:8084");
        assert!(is_own(&[host]));
        assert!(is_own(&[host, ("origin", "http://CONSOLE.example:8084")]));
        for origin in ["http://evil.example", "http://console.example", "null", ""] {
            assert!(!is_own(&[host, ("origin", origin)]), "{origin}");
        }
        assert!(!is_own(&[("origin", "http://console.example:8084")]));
    }
}
