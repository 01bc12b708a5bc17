//! The streams of other programs that `AsyncQueues` may take over.

use std::{fmt, str::FromStr};

/// Wildcard for any number of characters, including zero.
const WILDCARD: char = '*';

/// Names of streams and subjects, comma-separated, in which `*` matches any characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedStreams(Vec<String>);

/// A text that is not a valid list of streams.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not valid: write names of streams and subjects, of A-Z, a-z, 0-9, -, _ and dots, \
     with * for any characters"
)]
pub struct AllowedStreamsError(String);

// === impl AllowedStreams ===

impl AllowedStreams {
    /// Returns whether a name is in the list.
    pub(crate) fn contain(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| matches(pattern, name))
    }
}

impl FromStr for AllowedStreams {
    type Err = AllowedStreamsError;

    fn from_str(text: &str) -> Result<Self, AllowedStreamsError> {
        let is_name =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | WILDCARD);
        let patterns = text.split(',').map(str::trim).filter(|pattern| !pattern.is_empty());
        let read = patterns.map(|pattern| {
            let is_valid = pattern.chars().all(is_name);
            is_valid
                .then(|| pattern.to_owned())
                .ok_or_else(|| AllowedStreamsError(pattern.to_owned()))
        });
        read.collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for AllowedStreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

/// Returns whether a name matches a pattern. It must begin with the first part, end with the last,
/// and have the others in between in their order.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once(WILDCARD) else { return pattern == name };
    let (middle, last) = rest.rsplit_once(WILDCARD).unwrap_or(("", rest));
    let Some(name) = name.strip_prefix(first).and_then(|name| name.strip_suffix(last)) else {
        return false;
    };
    let mut left = name;
    middle.split(WILDCARD).all(|part| match left.split_once(part) {
        Some((_, after)) => {
            left = after;
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, good, bad) in [
            ("orders", &["orders"][..], &["order", "orders2", "my-orders", ""][..]),
            ("faas-*", &["faas-", "faas-request"], &["faas", "my-faas-request"]),
            ("*-queue", &["slow-queue", "-queue"], &["slow-queue-2"]),
            ("a*b*c", &["abc", "a1b2c", "abbc"], &["ab", "acb", "a1c", "xabc"]),
            ("jobs.*", &["jobs.slow", "jobs.a.b"], &["jobs"]),
            ("*", &["", "orders"], &[]),
            // The first part and the last do not overlap.
            ("ab*ba", &["abba", "ab-ba"], &["aba"]),
        ] {
            let allowed: AllowedStreams = pattern.parse().unwrap();
            for name in good {
                assert!(allowed.contain(name), "{pattern}: {name}");
            }
            for name in bad {
                assert!(!allowed.contain(name), "{pattern}: {name}");
            }
        }
    }

    #[test]
    fn a_list_is_comma_separated_and_empty_allows_none() {
        let allowed: AllowedStreams = "faas-*, orders,".parse().unwrap();
        assert!(
            allowed.contain("orders") && allowed.contain("faas-request") && !allowed.contain("x")
        );
        assert_eq!(allowed.to_string(), "faas-*,orders");
        assert!(!"".parse::<AllowedStreams>().unwrap().contain(""));
        for bad in ["a b", "a>", "a/b", "é"] {
            assert!(bad.parse::<AllowedStreams>().unwrap_err().to_string().contains(bad), "{bad}");
        }
    }
}
