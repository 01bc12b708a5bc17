//! Remembers the callbacks that arrived.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use http::{HeaderMap, Method};
use serde_json::{Value, json};

/// Maximum number of callbacks that are remembered; the oldest are forgotten.
const MAX_CALLBACKS: usize = 1_000;

/// Maximum size of a callback's body that is remembered, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// The callbacks, each as a line of JSON, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Callbacks(Mutex<VecDeque<String>>);

// === impl Callbacks ===

impl Callbacks {
    /// Remembers a callback.
    pub(crate) fn record(&self, path: &str, headers: &HeaderMap, body: &[u8]) {
        let body = String::from_utf8_lossy(&body[..body.len().min(MAX_BODY)]);
        let line =
            json!({ "path": path, "headers": headers_json(headers), "body": body }).to_string();
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == MAX_CALLBACKS {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// Returns all callbacks, one per line.
    pub(crate) fn lines(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }
}

/// Encodes a request as JSON: method, path, query, headers and body.
pub(crate) fn request_json(
    method: &Method,
    path: &str,
    query: Option<&str>,
    headers: &HeaderMap,
    body: &[u8],
) -> Value {
    json!({
        "method": method.as_str(),
        "path": path,
        "query": query,
        "headers": headers_json(headers),
        "body": String::from_utf8_lossy(body),
    })
}

/// Encodes headers as JSON: a text for each name, or a list if there are several values.
fn headers_json(headers: &HeaderMap) -> Value {
    let text = |value: &http::HeaderValue| Value::from(String::from_utf8_lossy(value.as_bytes()));
    headers
        .keys()
        .map(|name| {
            let mut values: Vec<Value> = headers.get_all(name).iter().map(text).collect();
            let value = if values.len() == 1 { values.remove(0) } else { Value::from(values) };
            (name.to_string(), value)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callbacks_are_listed_in_order_and_the_oldest_are_forgotten() {
        let callbacks = Callbacks::default();
        let mut headers = HeaderMap::new();
        headers.insert("x-function-status", "200".parse().unwrap());
        for n in 0..=MAX_CALLBACKS {
            callbacks.record("/callback/a", &headers, format!("body {n}").as_bytes());
        }
        let lines = callbacks.lines();
        let lines: Vec<Value> =
            lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), MAX_CALLBACKS);
        assert_eq!(lines[0]["body"], "body 1");
        assert_eq!(lines[0]["headers"]["x-function-status"], "200");
    }

    #[test]
    fn a_large_body_is_cut() {
        let callbacks = Callbacks::default();
        callbacks.record("/callback/a", &HeaderMap::new(), &vec![b'x'; MAX_BODY + 1]);
        assert!(callbacks.lines().len() < MAX_BODY + 100);
    }

    #[test]
    fn a_request_is_shown_as_it_came() {
        let mut headers = HeaderMap::new();
        headers.append("x-multi", "a".parse().unwrap());
        headers.append("x-multi", "b".parse().unwrap());
        let shown = request_json(&Method::POST, "/a%2Fb//", Some("x=%2F"), &headers, b"hi");
        let expected = json!({"method": "POST", "path": "/a%2Fb//", "query": "x=%2F",
            "headers": {"x-multi": ["a", "b"]}, "body": "hi"});
        assert_eq!(shown, expected);
    }
}
