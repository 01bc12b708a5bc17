//! Builds the request to a function: its URL and its headers. The functions here are pure, and all
//! their input comes from others: a stored message, and the directory.

use async_nats::HeaderMap as NatsHeaders;
use asyncqueue::{
    FunctionName, Invocation,
    directory::Directory,
    headers::{IDEMPOTENCY_KEY, X_ASYNC_DEPTH, X_CALL_ID, X_RETRY, X_RETRY_MAX, X_START_TIME},
    hop_by_hop::strip_connection_headers,
    message::native,
};
use http::{HeaderMap, HeaderValue, Uri};

/// Says where functions are reached.
#[derive(Clone, Debug)]
pub enum Target {
    /// Behind a gateway, at `<URL>/function/<name>.<namespace>`.
    Gateway(String),
    /// Each function at its own URL: that of the directory, or else this one with `{function}` and
    /// `{namespace}` filled in.
    Direct(String),
}

/// Says which attempt of a call this is.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// Number of the attempt, from 1.
    pub number: u64,
    /// Maximum number of attempts.
    pub max: u64,
}

// === impl Target ===

impl Target {
    /// Returns the URL of a call. Path and query are passed on byte for byte.
    pub fn url(
        &self,
        invocation: &Invocation,
        directory: Option<&Directory>,
    ) -> Result<Uri, http::uri::InvalidUri> {
        let base = match self {
            Self::Gateway(url) => {
                format!("{}/function/{}", url.trim_end_matches('/'), invocation.function)
            }
            Self::Direct(template) => {
                let url_of_directory =
                    directory.and_then(|d| d.functions.get(&invocation.function)?.url.as_deref());
                let url = url_of_directory
                    .map_or_else(|| expand_template(template, &invocation.function), str::to_owned);
                url.trim_end_matches('/').to_owned()
            }
        };
        let path = if invocation.path.is_empty() { "/" } else { &invocation.path };
        match &invocation.query {
            Some(query) => format!("{base}{path}?{query}").try_into(),
            None => format!("{base}{path}").try_into(),
        }
    }
}

fn expand_template(template: &str, function: &FunctionName) -> String {
    template.replace("{function}", function.name()).replace("{namespace}", function.namespace())
}

/// Gives a call whose client sent no idempotency key the message id of its message as the key. The
/// key is the same for all attempts and replays, so the function recognises a repeat. Another call
/// has another key.
pub(crate) fn add_idempotency_key(invocation: &mut Invocation, message: &NatsHeaders) {
    if invocation.headers.contains_key(IDEMPOTENCY_KEY) {
        return;
    }
    // If the id is missing or not valid in an HTTP header, the call's id is the key.
    if let Some(id) = native::message_id(message).and_then(|id| HeaderValue::from_str(id).ok()) {
        invocation.headers.insert(IDEMPOTENCY_KEY, id);
    }
}

/// Returns `headers`, which are those of the client, with the headers that the platform adds.
/// Values of the client are kept: its own call id, and its own key for what it does in several
/// calls.
pub fn request_headers(
    mut headers: HeaderMap,
    invocation: &Invocation,
    attempt: Attempt,
) -> Result<HeaderMap, http::header::InvalidHeaderValue> {
    strip_connection_headers(&mut headers);
    let call_id = HeaderValue::from_str(invocation.call_id.as_str())?;
    headers.entry(X_CALL_ID).or_insert_with(|| call_id.clone());
    headers.entry(IDEMPOTENCY_KEY).or_insert(call_id);
    headers
        .entry(X_START_TIME)
        .or_insert(HeaderValue::from_str(&invocation.submitted_at.as_nanosecond().to_string())?);
    // Calls that the function submits are next in the chain.
    headers.insert(X_ASYNC_DEPTH, HeaderValue::from(invocation.depth.saturating_add(1)));
    headers.insert(X_RETRY, HeaderValue::from(attempt.number));
    headers.insert(X_RETRY_MAX, HeaderValue::from(attempt.max));
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use asyncqueue::{directory::FunctionEntry, retry::RetryOverrides};
    use bytes::Bytes;

    use super::*;

    fn call(path: &str, query: Option<&str>) -> Invocation {
        Invocation {
            call_id: "id-1".parse().unwrap(),
            function: FunctionName::new("figlet", "openfaas-fn").unwrap(),
            written_name: None,
            method: http::Method::POST,
            path: path.to_owned(),
            query: query.map(str::to_owned),
            headers: HeaderMap::new(),
            callback_url: None,
            keep_result: None,
            depth: 0,
            submitted_at: "2026-11-24T10:00:00Z".parse().unwrap(),
            not_before: None,
            batch: None,
            retry: RetryOverrides::default(),
            body: Bytes::new(),
        }
    }

    #[test]
    fn path_and_query_go_through_byte_for_byte() {
        let target = Target::Gateway("http://gateway:8080/".to_owned());
        for (path, query, expected) in [
            ("", None, "/function/figlet.openfaas-fn/"),
            ("/", Some(""), "/function/figlet.openfaas-fn/?"),
            (
                "/a%2Fb//c/../%3F%25",
                Some("x=%2F&x"),
                "/function/figlet.openfaas-fn/a%2Fb//c/../%3F%25?x=%2F&x",
            ),
        ] {
            let url = target.url(&call(path, query), None).unwrap();
            assert_eq!(url.path_and_query().unwrap().as_str(), expected);
            assert_eq!(url.authority().unwrap(), "gateway:8080");
        }
    }

    #[test]
    fn the_directory_overrides_the_url_of_a_function() {
        let target =
            Target::Direct("http://{function}.{namespace}.svc.cluster.local:8080".to_owned());
        let invocation = call("/p", None);
        let url = target.url(&invocation, None).unwrap();
        assert_eq!(url, "http://figlet.openfaas-fn.svc.cluster.local:8080/p");
        let mut directory = Directory::default();
        let entry = FunctionEntry {
            url: Some("http://127.0.0.1:9000".to_owned()),
            ..FunctionEntry::default()
        };
        directory.functions.insert(invocation.function.clone(), entry);
        assert_eq!(target.url(&invocation, Some(&directory)).unwrap(), "http://127.0.0.1:9000/p");
    }

    #[test]
    fn headers_describe_the_call_and_keep_values_of_the_client() {
        let invocation = call("", None);
        let attempt = Attempt { number: 2, max: 10 };
        let headers = request_headers(HeaderMap::new(), &invocation, attempt).unwrap();
        for (name, value) in [
            ("x-call-id", "id-1"),
            ("idempotency-key", "id-1"),
            ("x-start-time", "1795514400000000000"),
            ("x-async-depth", "1"),
            ("x-retry", "2"),
            ("x-retry-max", "10"),
        ] {
            assert_eq!(headers[name], value, "{name}");
        }
        let own = [
            ("x-call-id", "job.42"),
            ("idempotency-key", "mine"),
            ("traceparent", "00-1"),
            ("x-retry", "9"),
        ];
        let own = own.map(|(name, value)| {
            (http::HeaderName::from_static(name), HeaderValue::from_static(value))
        });
        let headers = request_headers(HeaderMap::from_iter(own), &invocation, attempt).unwrap();
        assert_eq!(headers["x-call-id"], "job.42");
        assert_eq!(headers["idempotency-key"], "mine");
        assert_eq!(headers["traceparent"], "00-1");
        assert_eq!(headers["x-retry"], "2");
    }

    #[test]
    fn depth_is_of_the_call_and_not_of_its_client() {
        let headers = HeaderMap::from_iter([(X_ASYNC_DEPTH, HeaderValue::from_static("9"))]);
        let invocation = Invocation { depth: 3, ..call("", None) };
        let headers = request_headers(headers, &invocation, Attempt { number: 1, max: 1 }).unwrap();
        assert_eq!(headers.get_all(X_ASYNC_DEPTH).iter().collect::<Vec<_>>(), ["4"]);
    }

    #[test]
    fn a_call_without_key_has_its_message_id_as_key() {
        let with = |names: &[(&str, &str)], key: Option<&'static str>| {
            let mut invocation = call("", None);
            invocation
                .headers
                .extend(key.map(|key| (IDEMPOTENCY_KEY, HeaderValue::from_static(key))));
            let mut message = NatsHeaders::new();
            for (name, value) in names {
                message.insert(*name, *value);
            }
            add_idempotency_key(&mut invocation, &message);
            let attempt = Attempt { number: 1, max: 1 };
            let headers =
                request_headers(invocation.headers.clone(), &invocation, attempt).unwrap();
            headers[IDEMPOTENCY_KEY].to_str().unwrap().to_owned()
        };
        let replay = [("Nats-Msg-Id", "id-1.replay.7"), ("Async-Message-Id", "id-1.digest")];
        assert_eq!(with(&[("Nats-Msg-Id", "id-1.digest")], None), "id-1.digest");
        assert_eq!(with(&replay, None), "id-1.digest");
        assert_eq!(with(&replay, Some("mine")), "mine");
        assert_eq!(with(&[], None), "id-1");
    }
}
