//! Whether a path that is passed on names the same to every server. The next one may read `/%61sync-function/f`,
//! `//async-function/f` or `/function/f/../../async-function/g` as a path of ours, and store a call on a queue of its own.
//! Pure.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use crate::resource::Resource;

/// By a proxy on the way, and by who answers.
const DECODED_TIMES: usize = 2;

/// Whether any server reads a path as this program does, as far as the function's name. What follows the name may be
/// written as the client likes, but not lead above the function. Calls are not passed on, and so may have any path.
#[must_use]
pub fn is_plain(path: &str) -> bool {
    let resource = Resource::of(path);
    if let Resource::Queue(_) = resource {
        return true;
    }
    (0..=DECODED_TIMES).all(|times| {
        let decoded = decode(path, times);
        [false, true].into_iter().all(|pops_empty| {
            let read = segments(&decoded, pops_empty);
            names_the_same(resource, &read, times)
        })
    })
}

/// Whether the segments that another server reads name what was read here.
fn names_the_same(resource: Resource<'_>, read: &[&[u8]], times: usize) -> bool {
    let Resource::Function(call) = resource else {
        return !matches!(read.first(), Some(&b"async-function" | &b"function"));
    };
    let name = decode(call.function, times);
    if name.iter().any(|byte| is_separator(*byte)) {
        return false;
    }
    match segments(&name, false)[..] {
        [] => call.function.is_empty() && read.first() == Some(&&b"function"[..]),
        [name] => read.starts_with(&[b"function", name]),
        _ => false,
    }
}

/// A path that was decoded so many times.
fn decode(path: &str, times: usize) -> Cow<'_, [u8]> {
    let mut decoded = Cow::Borrowed(path.as_bytes());
    for _ in 0..times {
        if decoded.contains(&b'%') {
            decoded = Cow::Owned(percent_decode(&decoded).collect());
        }
    }
    decoded
}

/// The segments of a path as other servers normalise it: also those that take `\` for `/`, and what follows `;` for no part
/// of the name. `pops_empty`: `..` takes an empty segment back (RFC 3986, 5.2.4), and not the last that is none (Go).
fn segments(path: &[u8], pops_empty: bool) -> Vec<&[u8]> {
    let mut segments = Vec::new();
    for segment in path.split(|byte| is_separator(*byte)) {
        let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
        // Also by who decodes nothing else.
        let dots = name.to_ascii_lowercase();
        match &str::from_utf8(&dots).unwrap_or_default().replace("%2e", ".")[..] {
            "." => {}
            "" if name.is_empty() && !pops_empty => {}
            ".." => {
                segments.pop();
            }
            _ => segments.push(name),
        }
    }
    segments.retain(|segment| !segment.is_empty());
    segments
}

fn is_separator(byte: u8) -> bool {
    matches!(byte, b'/' | b'\\')
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
        for path in ["/", "", "/system//a/../%2F%3F", "/ui/", "/async-functions/f", "/a/async-function/f"] {
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

    /// The path as Go's servers match it, decoded once and then cleaned.
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

    /// What paths are put together from.
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
