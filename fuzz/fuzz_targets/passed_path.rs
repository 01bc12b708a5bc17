//! The path of a request that the gateway passes on: however the next server normalises it, it is
//! no call of this gateway, and names the same function. That is tried with what Go's servers do,
//! and with what browsers do.
#![no_main]

use asyncqueue_gateway::fuzzing::{Route, is_unambiguous};
use http::Uri;
use libfuzzer_sys::fuzz_target;
use percent_encoding::percent_decode_str;
use url::Url;

fuzz_target!(|target: &str| {
    let Ok(uri) = target.parse::<Uri>() else { return };
    let path = uri.path();
    let passed_on = match Route::parse(path) {
        route @ Route::AsyncFunction(_) => {
            assert!(is_unambiguous(route, path), "a call may have any path");
            return;
        }
        route => route,
    };
    if !is_unambiguous(passed_on, path) {
        return;
    }
    let mut read = vec![go(path)];
    if path.starts_with('/') {
        let url = Url::parse(&format!("http://gateway{path}")).expect("a URL");
        read.push(segments(url.path()));
    }
    for segments in read {
        let first = segments.first().map(String::as_str);
        assert_ne!(first, Some("async-function"), "{path}");
        match passed_on {
            Route::Function(call) if !call.function.is_empty() => {
                assert_eq!(first, Some("function"), "{path}");
                let name = percent_decode_str(call.function).decode_utf8_lossy();
                assert_eq!(segments.get(1).map(String::as_str), Some(&*name), "{path}");
            }
            Route::Other => assert_ne!(first, Some("function"), "{path}"),
            _ => {}
        }
    }
});

/// The path as Go's servers match it: decoded once, then cleaned.
fn go(path: &str) -> Vec<String> {
    let mut cleaned = Vec::new();
    for segment in percent_decode_str(path).decode_utf8_lossy().split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(cleaned.pop()),
            name => cleaned.push(name.to_owned()),
        }
    }
    cleaned
}

/// The names in a path that is normalised but not decoded.
fn segments(path: &str) -> Vec<String> {
    let names = path.split('/').filter(|segment| !segment.is_empty());
    names.map(|name| percent_decode_str(name).decode_utf8_lossy().into_owned()).collect()
}
