//! Counts how often a request has passed through this installation, by its `Via` header (RFC 9110,
//! 7.6.3).
//!
//! All replicas of an installation use the same pseudonym, so that a loop over several of them is
//! found. A request with few own entries is not rejected: a function may copy all headers of its
//! request to a request for another function, which is not a loop.

use http::{HeaderMap, HeaderValue, Version, header};

use crate::rejection::Rejection;

/// Pseudonym of the gateway in `Via`. Its namespace follows after a dot if it is known.
const PSEUDONYM: &str = "asyncqueue-gateway";

/// Counts and limits the passes of a request through this installation.
#[derive(Clone, Debug)]
pub struct HopLimit {
    pseudonym: String,
    max: usize,
}

// === impl HopLimit ===

impl HopLimit {
    /// Creates a limit of `max` passes through the installation in this namespace.
    #[must_use]
    pub fn new(namespace: Option<&str>, max: usize) -> Self {
        let namespace = namespace.map(|namespace| format!(".{namespace}")).unwrap_or_default();
        Self { pseudonym: format!("{PSEUDONYM}{namespace}"), max }
    }

    /// Adds this gateway to the `Via` header of a request that is passed on.
    ///
    /// # Errors
    ///
    /// The request has already passed through this installation `max` times.
    pub fn append_via(&self, headers: &mut HeaderMap, version: Version) -> Result<(), Rejection> {
        let hops = self.count(headers);
        if hops >= self.max {
            return Err(Rejection::TooManyHops { hops, max: self.max });
        }
        let version = match version {
            Version::HTTP_10 => "1.0",
            Version::HTTP_2 => "2",
            _ => "1.1",
        };
        if let Ok(entry) = HeaderValue::try_from(format!("{version} {}", self.pseudonym)) {
            headers.append(header::VIA, entry);
        }
        Ok(())
    }

    /// Returns how many entries are this installation's. Comments are not parsed: an unclosed one
    /// would hide all entries after it.
    fn count(&self, headers: &HeaderMap) -> usize {
        let values = headers.get_all(header::VIA).iter();
        let entries = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        entries.filter(|entry| self.is_own(entry)).count()
    }

    /// Returns whether an entry, `[protocol/]version pseudonym [comment]`, is this installation's.
    fn is_own(&self, entry: &[u8]) -> bool {
        let mut words = entry.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        words.nth(1).is_some_and(|name| name.eq_ignore_ascii_case(self.pseudonym.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hop_limit() -> HopLimit {
        HopLimit::new(Some("openfaas"), 3)
    }

    fn headers(via: &[&str]) -> HeaderMap {
        via.iter().map(|value| (header::VIA, value.parse().unwrap())).collect()
    }

    #[test]
    fn own_entries_are_counted_in_any_spelling() {
        for (via, count) in [
            (&[][..], 0),
            (&["1.1 asyncqueue-gateway.openfaas"], 1),
            (&["HTTP/1.1 asyncqueue-gateway.openfaas (a comment)"], 1),
            (&["1.0 fred, 1.1  ASYNCQUEUE-gateway.openfaas,1.1\tasyncqueue-gateway.openfaas"], 2),
            (&["1.1 fred (never closed", "1.1 asyncqueue-gateway.openfaas"], 1),
            (&["1.1 fred (never closed, 1.1 asyncqueue-gateway.openfaas"], 1),
            // Other proxies, and another installation.
            (&["1.1 fred, 1.1 asyncqueue-gateway.other, 1.1 asyncqueue-gateway", ",,", ""], 0),
        ] {
            assert_eq!(hop_limit().count(&headers(via)), count, "{via:?}");
        }
    }

    #[test]
    fn request_passes_up_to_the_limit() {
        let mut headers = headers(&["1.1 fred"]);
        for _ in 0..3 {
            hop_limit().append_via(&mut headers, Version::HTTP_11).unwrap();
        }
        let refused = hop_limit().append_via(&mut headers, Version::HTTP_11).unwrap_err();
        assert_eq!(refused.status(), 508);
        assert_eq!(headers.get_all(header::VIA).iter().count(), 4);
        assert_eq!(
            headers.get_all(header::VIA).iter().next_back().unwrap(),
            "1.1 asyncqueue-gateway.openfaas"
        );
    }

    proptest! {
        #[test]
        fn client_cannot_hide_a_pass(
            sent in proptest::collection::vec("[ -~]{0,40}", 0..4),
            joined: bool,
        ) {
            let mut headers: HeaderMap =
                sent.iter().filter_map(|value| Some((header::VIA, value.parse().ok()?))).collect();
            let before = hop_limit().count(&headers);
            let hop_limit = HopLimit { max: usize::MAX, ..hop_limit() };
            hop_limit.append_via(&mut headers, Version::HTTP_11).unwrap();
            if joined {
                // A proxy in between may join the values like this (RFC 9110, 5.3).
                let values = headers.get_all(header::VIA).iter();
                let values: Vec<_> = values.map(|value| value.to_str().unwrap()).collect();
                headers = [(header::VIA, values.join(", ").parse().unwrap())].into_iter().collect();
            }
            prop_assert_eq!(hop_limit.count(&headers), before + 1);
        }
    }
}
