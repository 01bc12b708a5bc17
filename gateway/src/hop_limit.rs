//! Counts how often a request has come through this installation, by its `Via` header (RFC 9110,
//! 7.6.3).
//!
//! All replicas of an installation use the same pseudonym, so that a loop over several of them is
//! found. Own entries are counted, and a request with one is not refused at once: a function that
//! passes all headers of its request on to another function is no loop.

use http::{HeaderMap, HeaderValue, Version, header};

use crate::rejection::Refusal;

/// Pseudonym of the gateway in `Via`. Its namespace follows after a dot if it is known.
const PSEUDONYM: &str = "asyncqueue-gateway";

/// Counts and limits the passes of a request through this installation.
#[derive(Clone, Debug)]
pub struct Hops {
    pseudonym: String,
    max: usize,
}

// === impl Hops ===

impl Hops {
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
    /// The request has already come through this installation `max` times.
    pub fn pass(&self, headers: &mut HeaderMap, version: Version) -> Result<(), Refusal> {
        let hops = self.count(headers);
        if hops >= self.max {
            return Err(Refusal::Loop { hops, max: self.max });
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

    fn hops() -> Hops {
        Hops::new(Some("openfaas"), 3)
    }

    fn headers(via: &[&str]) -> HeaderMap {
        via.iter().map(|value| (header::VIA, value.parse().unwrap())).collect()
    }

    #[test]
    fn own_entries_are_counted_however_they_are_written() {
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
            assert_eq!(hops().count(&headers(via)), count, "{via:?}");
        }
    }

    #[test]
    fn a_request_passes_as_often_as_it_may() {
        let mut headers = headers(&["1.1 fred"]);
        for _ in 0..3 {
            hops().pass(&mut headers, Version::HTTP_11).unwrap();
        }
        let refused = hops().pass(&mut headers, Version::HTTP_11).unwrap_err();
        assert_eq!(refused.status(), 508);
        assert_eq!(headers.get_all(header::VIA).iter().count(), 4);
        assert_eq!(
            headers.get_all(header::VIA).iter().next_back().unwrap(),
            "1.1 asyncqueue-gateway.openfaas"
        );
    }

    proptest! {
        #[test]
        fn no_via_of_a_client_hides_a_pass(sent in proptest::collection::vec("[ -~]{0,40}", 0..4), joined: bool) {
            let mut headers: HeaderMap =
                sent.iter().filter_map(|value| Some((header::VIA, value.parse().ok()?))).collect();
            let before = hops().count(&headers);
            let hops = Hops { max: usize::MAX, ..hops() };
            hops.pass(&mut headers, Version::HTTP_11).unwrap();
            if joined {
                // A proxy in between may join the values like this (RFC 9110, 5.3).
                let values: Vec<_> =
                    headers.get_all(header::VIA).iter().map(|value| value.to_str().unwrap()).collect();
                headers = [(header::VIA, values.join(", ").parse().unwrap())].into_iter().collect();
            }
            prop_assert_eq!(hops.count(&headers), before + 1);
        }
    }
}
