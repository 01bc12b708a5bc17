//! Checks whether every server reads a path that is passed on in the same way.
//!
//! The next server may read `/%61sync-function/f`, `//async-function/f` or
//! `/function/f/../../async-function/g` as a path of `/async-function`, and store a call on a queue
//! of its own. Pure.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use crate::route::{FunctionPath, Route};

/// Maximum number of times that a path is decoded: by a proxy in between, and by the server that
/// answers.
const MAX_DECODINGS: usize = 2;

/// Returns whether every server finds the same function in a path, which has this route here. What
/// follows the function's name may be written in any way, but must not lead above the function.
/// Calls are not passed on, and so may have any path.
///
/// Servers differ in what they decode, in what separates segments, and in what `..` removes. This
/// function does not normalise like one of them, but assumes the worst case of each.
#[must_use]
pub fn is_unambiguous(route: Route<'_>, path: &str) -> bool {
    match route {
        Route::AsyncFunction(_) | Route::AsyncBatch(_) => true,
        Route::Function(FunctionPath { function, path }) => {
            (function.is_empty() || is_name(function)) && stays_below(path)
        }
        Route::Other => has_no_root(path),
    }
}

/// Returns whether every server reads a segment as a single name.
fn is_name(segment: &str) -> bool {
    matches!(segments(&decode(segment))[..], [Segment::Name(_)])
}

/// Returns whether no `..` of a path leads above its beginning.
fn stays_below(path: &str) -> bool {
    // The minimum depth, over all ways to read the path.
    let mut depth = 0_usize;
    for segment in path.split('/') {
        let decoded = decode(segment);
        let segments = segments(&decoded);
        let parents = segments.iter().filter(|segment| **segment == Segment::Parent).count();
        match depth.checked_sub(parents) {
            Some(rest) => depth = rest,
            None => return false,
        }
        // A segment with an escaped separator may be one name or several, and counts as one. With a
        // `..` in it, it adds no depth.
        if parents == 0 && segments.iter().any(|segment| matches!(segment, Segment::Name(_))) {
            depth += 1;
        }
    }
    true
}

/// Returns whether a path that begins with none of `/async-function`, `/async-batch` and
/// `/function` contains no such segment that `..` or an empty segment could move to its beginning.
fn has_no_root(path: &str) -> bool {
    let decoded = decode(path);
    let segments = segments(&decoded);
    let is_root = |segment: &Segment<'_>| {
        matches!(segment, Segment::Name(b"async-function" | b"async-batch" | b"function"))
    };
    let first = segments.iter().find(|segment| matches!(segment, Segment::Name(_)));
    let has_parent = segments.contains(&Segment::Parent);
    let may_come_first =
        if has_parent { segments.iter().any(is_root) } else { first.is_some_and(is_root) };
    !may_come_first
}

/// A segment of a path between two separators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Segment<'a> {
    /// Nothing, or `.`.
    Empty,
    /// `..`
    Parent,
    /// Anything else.
    Name(&'a [u8]),
}

/// Splits a path into its segments. Like some servers, it treats `\` as `/`, and ignores what
/// follows `;` in a segment.
fn segments(path: &[u8]) -> Vec<Segment<'_>> {
    let segments = path.split(|byte| matches!(byte, b'/' | b'\\'));
    let names =
        segments.map(|segment| segment.split(|byte| *byte == b';').next().unwrap_or_default());
    names
        .map(|name| match name {
            b"" | b"." => Segment::Empty,
            b".." => Segment::Parent,
            name => Segment::Name(name),
        })
        .collect()
}

/// Decodes a path as often as other servers may do.
fn decode(path: &str) -> Cow<'_, [u8]> {
    let mut decoded = Cow::Borrowed(path.as_bytes());
    for _ in 0..MAX_DECODINGS {
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
    fn function_may_have_any_path_below_it() {
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
            assert!(is_unambiguous(Route::parse(path), path), "{path}");
        }
        for path in
            ["/", "", "/system//a/../%2F%3F", "/ui/", "/async-functions/f", "/a/async-function/f"]
        {
            assert!(is_unambiguous(Route::parse(path), path), "{path}");
        }
    }

    #[test]
    fn path_that_servers_read_differently_is_rejected() {
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
            assert!(!is_unambiguous(Route::parse(path), path), "{path}");
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
        fn passed_path_is_not_a_call_for_a_go_server(
            segments in prop::collection::vec(prop::sample::select(SEGMENTS), 0..12)
        ) {
            let path = format!("/{}", segments.concat());
            let is_call = matches!(Route::parse(&path), Route::AsyncFunction(_));
            let read = go(&path);
            if !is_call && is_unambiguous(Route::parse(&path), &path) {
                let first = read.first().map(String::as_str);
                prop_assert_ne!(first, Some("async-function"), "{}", path);
            }
        }
    }

    /// The segments from which test paths are combined.
    const SEGMENTS: &[&str] = &[
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
