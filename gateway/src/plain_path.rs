//! Checks whether a path that is passed on means the same to every server.
//!
//! The next server may read `/%61sync-function/f`, `//async-function/f` or
//! `/function/f/../../async-function/g` as a path of ours, and store a call on a queue of its own.
//! Pure.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use crate::route::Resource;

/// How often a path may be decoded: by a proxy on the way, and by the server that answers.
const DECODED_TIMES: usize = 2;

/// Returns whether every server reads a path as this program does, as far as the function's name.
/// What follows the name may be written in any way, but must not lead above the function. Calls are
/// not passed on, and so may have any path.
///
/// Servers differ in what they decode, in what separates segments, and in what `..` removes. So
/// this function does not normalise as one of them does, but assumes the worst of each.
#[must_use]
pub fn is_plain(path: &str) -> bool {
    match Resource::of(path) {
        Resource::Queue(_) => true,
        Resource::Function(call) => {
            (call.function.is_empty() || is_name(call.function)) && stays_below(call.path)
        }
        Resource::Other => names_no_root(path),
    }
}

/// Returns whether a segment is a single name to every server.
fn is_name(segment: &str) -> bool {
    matches!(parts(&decode(segment))[..], [Part::Name(_)])
}

/// Returns whether no `..` of a path leads above its beginning.
fn stays_below(path: &str) -> bool {
    // The minimum depth, over all ways to read the path.
    let mut depth = 0_usize;
    for segment in path.split('/') {
        let decoded = decode(segment);
        let parts = parts(&decoded);
        let ups = parts.iter().filter(|part| **part == Part::Up).count();
        match depth.checked_sub(ups) {
            Some(rest) => depth = rest,
            None => return false,
        }
        // A segment with an escaped separator may be one name or several, and counts as one. With a
        // `..` in it, it adds no depth.
        if ups == 0 && parts.iter().any(|part| matches!(part, Part::Name(_))) {
            depth += 1;
        }
    }
    true
}

/// Returns whether a path that does not begin with one of our roots contains none that `..` or an
/// empty segment could move to its beginning.
fn names_no_root(path: &str) -> bool {
    let decoded = decode(path);
    let parts = parts(&decoded);
    let is_root = |part: &Part<'_>| matches!(part, Part::Name(b"async-function" | b"function"));
    let first = parts.iter().find(|part| matches!(part, Part::Name(_)));
    let has_up = parts.contains(&Part::Up);
    let may_come_first =
        if has_up { parts.iter().any(is_root) } else { first.is_some_and(is_root) };
    !may_come_first
}

/// A part of a path between two separators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part<'a> {
    /// Nothing, or `.`.
    None,
    /// `..`
    Up,
    /// Anything else.
    Name(&'a [u8]),
}

/// Splits a path into its parts. As some servers do, it also takes `\` for `/`, and does not count
/// what follows `;` as part of the name.
fn parts(path: &[u8]) -> Vec<Part<'_>> {
    let segments = path.split(|byte| matches!(byte, b'/' | b'\\'));
    let named =
        segments.map(|segment| segment.split(|byte| *byte == b';').next().unwrap_or_default());
    named
        .map(|name| match name {
            b"" | b"." => Part::None,
            b".." => Part::Up,
            name => Part::Name(name),
        })
        .collect()
}

/// Decodes a path as often as other servers do at most.
fn decode(path: &str) -> Cow<'_, [u8]> {
    let mut decoded = Cow::Borrowed(path.as_bytes());
    for _ in 0..DECODED_TIMES {
        if decoded.contains(&b'%') {
            decoded = Cow::Owned(percent_decode(&decoded).collect());
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_function_may_have_any_path_below_it() {
        for path in [
            "/function/f",
            "/function/f.ns/",
            "/function/f//a/../%2F%3f;x",
            "/function/f/%2fa/%2e%2e/b%zz",
            "/function",
            "/function/",
            "/function//p",
            "/function/fig%2dlet",
            "/async-function/f/../../function/g",
        ] {
            assert!(is_plain(path), "{path}");
        }
        for path in
            ["/", "", "/system//a/../%2F%3F", "/ui/", "/async-functions/f", "/a/async-function/f"]
        {
            assert!(is_plain(path), "{path}");
        }
    }

    #[test]
    fn a_path_that_another_server_reads_as_another_is_not_plain() {
        for path in [
            "/%61sync-function/f",
            "/%2561sync-function/f",
            "//async-function/f",
            "/./async-function/f",
            "/x/../async-function/f",
            "/%2e/async-function/f",
            "/async-function%2Ff",
            "/async-function;x/f",
            "/function/../function/f",
            "/function//../async-function/f",
            "/function//a/../../async-function/f",
            "/function//..%2fasync-function/f",
            "/function/./f",
            "/function/f%2Fg",
            "/function/f/..",
            "/function/f/../g",
            "/function/f/..;/..;/system",
            "/function/f/..%2f..%2fasync-function/g",
            "/function/f/..\\g",
            "/function/f\\..\\g",
            "//async-function/f//../..",
            "/function/f/a%2Fb/../../d",
            "/function/f/../../async-function/g",
            "/function/../async-function/g",
            "//function/f",
            "\\async-function/f",
        ] {
            assert!(!is_plain(path), "{path}");
        }
    }

    /// Returns the path as Go's servers match it: decoded once and then cleaned.
    fn go(path: &str) -> Vec<String> {
        let mut cleaned = Vec::new();
        for segment in percent_decode(path.as_bytes()).decode_utf8_lossy().split('/') {
            match segment {
                "" | "." => {}
                ".." => drop(cleaned.pop()),
                name => cleaned.push(name.to_owned()),
            }
        }
        cleaned
    }

    proptest! {
        #[test]
        fn no_path_is_passed_on_that_go_reads_as_a_call(
            parts in prop::collection::vec(prop::sample::select(PARTS), 0..12)
        ) {
            let path = format!("/{}", parts.concat());
            let is_call = matches!(Resource::of(&path), Resource::Queue(_));
            let read = go(&path);
            if !is_call && is_plain(&path) {
                prop_assert_ne!(read.first().map(String::as_str), Some("async-function"), "{}", path);
            }
        }
    }

    /// The parts from which test paths are combined.
    const PARTS: &[&str] = &[
        "/",
        "/",
        "/",
        ".",
        "..",
        "%2e",
        "%2F",
        "%5c",
        "\\",
        ";x",
        "%61sync-function",
        "async-function",
        "function",
        "f",
        "%25",
        "%252e",
        "a",
    ];
}
