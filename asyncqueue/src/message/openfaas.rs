//! Reads the `OpenFaaS` form: the JSON `QueueRequest` that existing gateways publish on the queue's
//! own subject.
//!
//! Source of the form: `openfaas/faas-provider`, `types/queue.go`. It is read with Go's JSON rules:
//! keys in any case, and absent, `null` and empty mean the same.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, error::Category};

use super::{DecodeError, Fallback, check_target, invalid, method};
use crate::{
    headers::{X_CALL_ID, X_CALLBACK_URL},
    hop_by_hop::strip_connection_headers,
    invocation::{CallbackUrl, Invocation, take_depth},
    names::FunctionName,
    retry::RetryOverrides,
};

/// Characters that are escaped in a path, which arrives decoded: all but `pchar` of RFC 3986 and
/// the slash.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@')
    .remove(b'/');

/// Characters that are escaped in a query, which arrives as the client sent it: those that no URL
/// contains. Go's gateway forwards them.
const QUERY: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>');

/// Reads a `QueueRequest`.
pub fn decode(payload: &[u8], fallback: &Fallback) -> Result<Invocation, DecodeError> {
    let object: Map<String, Value> =
        serde_json::from_slice(payload).map_err(|e| DecodeError::NotQueueRequest(reason(&e)))?;
    let request = Object(&object);

    let mut headers = http_headers(&request)?;
    let callback_url = callback_url(&request, &headers)?;
    strip_connection_headers(&mut headers);
    let call_id = headers
        .get(X_CALL_ID)
        .and_then(|id| id.to_str().ok())
        .and_then(|id| id.parse().ok())
        .unwrap_or_else(|| fallback.call_id.clone());

    let depth = take_depth(&mut headers);

    // As OpenFaaS's own worker does (`nats-queue-worker`, `makeFunctionURL`): slashes around the
    // name and question marks before the query are trimmed.
    let function = request.text("Function")?.unwrap_or_default().trim_matches('/');
    let path = path(request.text("Path")?.unwrap_or_default());
    let query = request.text("QueryString")?.map(|raw| raw.trim_start_matches('?'));
    let query =
        query.filter(|raw| !raw.is_empty()).map(|raw| utf8_percent_encode(raw, QUERY).to_string());
    check_target(&path, query.as_deref())?;
    let body = request.text("Body")?.unwrap_or_default();
    let name = FunctionName::parse(function, &fallback.namespace)
        .map_err(|e| invalid("Function", function, e))?;
    Ok(Invocation {
        call_id,
        written_name: Some(function.to_owned()).filter(|written| *written != name.to_string()),
        function: name,
        method: method("Method", request.text("Method")?.unwrap_or("POST"))?,
        path,
        query,
        headers,
        callback_url,
        keep_result: None,
        depth,
        batch: None,
        retry: retry(&request)?,
        submitted_at: fallback.stored_at,
        not_before: None,
        body: STANDARD.decode(body).map(Bytes::from).map_err(|e| invalid("Body", "…", e))?,
    })
}

/// Returns why a payload is not a JSON object, without any of its content: the reason is logged.
fn reason(error: &serde_json::Error) -> String {
    match error.classify() {
        Category::Data => "it is not a JSON object".to_owned(),
        Category::Io | Category::Syntax | Category::Eof => error.to_string(),
    }
}

/// A JSON object whose keys are looked up as Go's decoder does: exactly, or else in any case.
struct Object<'a>(&'a Map<String, Value>);

impl<'a> Object<'a> {
    /// Returns the value of a key; `None` if it is absent or `null`.
    fn get(&self, key: &str) -> Option<&'a Value> {
        let any_case = || self.0.iter().find(|(k, _)| k.eq_ignore_ascii_case(key)).map(|(_, v)| v);
        self.0.get(key).or_else(any_case).filter(|value| !value.is_null())
    }

    /// Returns the text of a key; `None` if it is absent, `null` or empty.
    fn text(&self, key: &'static str) -> Result<Option<&'a str>, DecodeError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
            Some(_) => Err(invalid(key, "…", "it must be a string")),
        }
    }
}

/// Reads `Header`, an object of lists.
fn http_headers(request: &Object<'_>) -> Result<HeaderMap, DecodeError> {
    let rule = "it must be an object of lists of strings";
    let Some(value) = request.get("Header") else { return Ok(HeaderMap::new()) };
    let object = value.as_object().ok_or_else(|| invalid("Header", "…", rule))?;
    let mut headers = HeaderMap::new();
    for (name, values) in object {
        let header: HeaderName = name.parse().map_err(|e| invalid("Header", name, e))?;
        let values = match values {
            Value::Null => continue,
            Value::Array(values) => values,
            _ => return Err(invalid("Header", name, rule)),
        };
        for value in values {
            let value = value.as_str().ok_or_else(|| invalid("Header", name, rule))?;
            let value =
                HeaderValue::from_str(value.trim()).map_err(|e| invalid("Header", name, e))?;
            headers.try_append(header.clone(), value).map_err(|e| invalid("Header", name, e))?;
        }
    }
    Ok(headers)
}

/// Reads the retry settings from the function's annotations, which some gateways include.
fn retry(request: &Object<'_>) -> Result<RetryOverrides, DecodeError> {
    let Some(annotations) = request.get("Annotations") else {
        return Ok(RetryOverrides::default());
    };
    let object = annotations
        .as_object()
        .ok_or_else(|| invalid("Annotations", "…", "it must be an object of strings"))?;
    // A value that can't be read leaves the queue's setting, as for annotations that the gateway
    // reads.
    Ok(RetryOverrides::from_annotations(|name| object.get(name)?.as_str()).0)
}

/// Returns the callback URL. The client's own header has priority: Go's encoding of a URL in
/// `CallbackUrl` loses its credentials.
fn callback_url(
    request: &Object<'_>,
    headers: &HeaderMap,
) -> Result<Option<CallbackUrl>, DecodeError> {
    let refuse = |e| invalid("CallbackUrl", "…", e);
    if let Some(url) = headers.get(X_CALLBACK_URL) {
        let url = url.to_str().map_err(|e| invalid("CallbackUrl", "…", e))?;
        return if url.is_empty() {
            Ok(None)
        } else {
            CallbackUrl::parse(url).map(Some).map_err(refuse)
        };
    }
    let text = match request.get("CallbackUrl") {
        None => return Ok(None),
        Some(Value::String(text)) if text.is_empty() => return Ok(None),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Object(url)) => assemble_url(&Object(url))?,
        Some(_) => return Err(invalid("CallbackUrl", "…", "it must be an object or null")),
    };
    CallbackUrl::parse(&text).map(Some).map_err(refuse)
}

/// Assembles a URL from Go's `url.URL`, written as a struct.
fn assemble_url(url: &Object<'_>) -> Result<String, DecodeError> {
    let part = |key| Ok::<_, DecodeError>(url.text(key)?.unwrap_or_default());
    let mut text = format!("{}://{}", part("Scheme")?, part("Host")?);
    match part("RawPath")? {
        "" => text.push_str(&path(part("Path")?)),
        raw => text.push_str(raw),
    }
    if let Some(query) = url.text("RawQuery")? {
        text.push('?');
        text.push_str(query);
    }
    Ok(text)
}

/// Encodes the path, which arrives percent-decoded, for a URL.
fn path(decoded: &str) -> String {
    let encoded = utf8_percent_encode(decoded, PATH).to_string();
    if encoded.is_empty() || encoded.starts_with('/') { encoded } else { format!("/{encoded}") }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use proptest::prelude::*;

    use super::*;

    fn fallback() -> Fallback {
        Fallback {
            call_id: "seq-7".parse().unwrap(),
            stored_at: "2026-11-24T10:00:00Z".parse().unwrap(),
            namespace: "openfaas-fn".to_owned(),
        }
    }

    fn read(json: &str) -> Result<Invocation, DecodeError> {
        decode(json.as_bytes(), &fallback())
    }

    #[test]
    fn reads_what_a_gateway_publishes() {
        let call = read(
            r#"{"Header":{"Accept":["*/*"],"Authorization":["Basic YWRtaW46c2VjcmV0"],
            "Connection":["close"],"Content-Length":["8"],"Content-Type":["text/plain"],
            "X-Call-Id":["f5a9813d-1"],"X-Multi":["a","b"],
            "X-Callback-Url":["http://u:pa%20ss@127.0.0.1:9000/cb?x=1"]},
            "Host":"127.0.0.1:8080","Body":"aGkgdGhlcmU=","Method":"POST","Path":"/p q/100%",
            "QueryString":"x=1\u0026y=%2F","Function":"figlet","QueueName":"slow-queue",
            "CallbackUrl":{"Scheme":"http","User":{},"Host":"127.0.0.1:9000"}}"#,
        )
        .unwrap();
        assert_eq!(call.call_id.as_str(), "f5a9813d-1");
        assert_eq!(call.function.to_string(), "figlet.openfaas-fn");
        assert_eq!(call.path, "/p%20q/100%25");
        assert_eq!(call.query.as_deref(), Some("x=1&y=%2F"));
        assert_eq!(&call.body[..], b"hi there");
        assert_eq!(call.headers.get_all("x-multi").iter().count(), 2);
        assert!(
            !call.headers.contains_key("connection")
                && !call.headers.contains_key("content-length")
        );
        assert_eq!(
            call.callback_url.unwrap().as_url().as_str(),
            "http://u:pa%20ss@127.0.0.1:9000/cb?x=1"
        );
    }

    #[test]
    fn absent_null_and_empty_are_alike_and_keys_are_read_in_any_case() {
        for json in [
            r#"{"Function":"f"}"#,
            r#"{"function":"f.openfaas-fn","header":null,"BODY":null,"path":null,
                "callbackurl":null}"#,
            r#"{"Function":"f","Path":"","QueryString":"","QueueName":"","CallbackUrl":"",
                "Body":"","Method":""}"#,
        ] {
            let call = read(json).unwrap();
            assert_eq!(call.call_id.as_str(), "seq-7", "{json}");
            assert_eq!((call.path.as_str(), call.query.as_deref()), ("", None), "{json}");
            assert_eq!(call.method, Method::POST, "{json}");
            assert!(call.body.is_empty() && call.callback_url.is_none(), "{json}");
        }
    }

    #[test]
    fn slashes_and_question_marks_are_trimmed_as_openfaas_does() {
        for (function, query, expected) in [
            ("/f/", "?x=1", Some("x=1")),
            ("f/", "??x=1", Some("x=1")),
            ("//f.openfaas-fn", "x=?1?", Some("x=?1?")),
            ("f", "?", None),
        ] {
            let call = read(&format!(
                r#"{{"Function":"{function}","Path":"/p","QueryString":"{query}"}}"#
            ));
            let call = call.unwrap();
            assert_eq!(call.function.to_string(), "f.openfaas-fn", "{function}");
            assert_eq!((call.path.as_str(), call.query.as_deref()), ("/p", expected), "{query}");
        }
        assert!(
            read(r#"{"Function":"/a/b/"}"#).unwrap_err().to_string().contains("Function `a/b`")
        );
    }

    #[test]
    fn the_depth_of_a_chain_is_read_from_its_header() {
        for (depth, expected) in [("3", 3), ("many", 0)] {
            let call =
                read(&format!(r#"{{"Function":"f","Header":{{"X-Async-Depth":["{depth}"]}}}}"#))
                    .unwrap();
            assert_eq!((call.depth, call.headers.len()), (expected, 0), "{depth}");
        }
    }

    #[test]
    fn characters_invalid_in_urls_are_escaped_in_the_query() {
        let call =
            read("{\"Function\":\"f\",\"QueryString\":\"q=\\\"a b\\\"&<é>#%2F%zz\u{3000}\"}")
                .unwrap();
        assert_eq!(call.query.as_deref(), Some("q=%22a%20b%22&%3C%C3%A9%3E%23%2F%zz%E3%80%80"));
    }

    #[test]
    fn more_headers_than_can_be_kept_are_refused() {
        let headers: Vec<String> =
            (0..40_000).map(|number| format!("\"h{number}\":[\"1\"]")).collect();
        let error = read(&format!("{{\"Function\":\"f\",\"Header\":{{{}}}}}", headers.join(",")))
            .unwrap_err();
        assert!(error.to_string().contains("Header"), "{error}");
    }

    #[test]
    fn annotations_sent_along_say_how_the_call_is_tried_again() {
        let call = read(
            r#"{"Function":"f","Annotations":{"com.openfaas.retry.attempts":"3",
                "com.openfaas.retry.codes":"x","other":"1"}}"#,
        );
        let retry = call.unwrap().retry;
        assert_eq!((retry.attempts, retry.codes), (Some(3), None));
        assert!(read(r#"{"Function":"f","Annotations":null}"#).unwrap().retry.is_empty());
        assert!(read(r#"{"Function":"f","Annotations":"x"}"#).is_err());
    }

    #[test]
    fn a_callback_url_written_as_a_struct_is_put_together() {
        let call = read(
            r#"{"Function":"f","CallbackUrl":{"Scheme":"https","Host":"h:1","Path":"/a b",
                "RawPath":"","RawQuery":"q=%2F"}}"#,
        );
        assert_eq!(
            call.unwrap().callback_url.unwrap().as_url().as_str(),
            "https://h:1/a%20b?q=%2F"
        );
    }

    #[test]
    fn invalid_queue_request_is_refused_with_its_field() {
        for (json, expected) in [
            ("", "QueueRequest"),
            ("hello", "QueueRequest"),
            ("[]", "QueueRequest"),
            ("{}", "Function"),
            (r#"{"Function":"a b"}"#, "Function `a b`"),
            (r#"{"Function":1}"#, "Function"),
            (r#"{"Function":"f","Body":"%"}"#, "Body"),
            (r#"{"Function":"f","Header":{"a b":["x"]}}"#, "Header `a b`"),
            (r#"{"Function":"f","Header":{"a":"x"}}"#, "Header `a`"),
            (r#"{"Function":"f","QueryString":1}"#, "QueryString"),
            (r#"{"Function":"f","Method":"CONNECT"}"#, "Method `CONNECT`"),
            (
                &format!(r#"{{"Function":"f","Path":"{}"}}"#, "%".repeat(30_000)),
                "at most 61440 bytes",
            ),
            (r#"{"Function":"f","CallbackUrl":{"Scheme":"ftp","Host":"h"}}"#, "CallbackUrl"),
        ] {
            let error = read(json).unwrap_err().to_string();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }

    #[test]
    fn a_reason_has_nothing_of_the_payload() {
        for json in
            ["\"s3cret\"", "[\"s3cret\"]", "s3cret", "{\"s3cret", "{\"s3cret\":s3cret}", "12345"]
        {
            let error = read(json).unwrap_err().to_string();
            assert!(!error.contains("s3cret") && !error.contains("12345"), "{json}: {error}");
        }
    }

    proptest! {
        #[test]
        fn decoding_never_panics(payload in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = decode(&payload, &fallback());
        }

        #[test]
        fn any_decoded_path_becomes_a_path_of_a_url(decoded in "\\PC*") {
            let path = path(&decoded);
            let uri: http::Uri = format!("http://h{path}").parse().unwrap();
            prop_assert_eq!(uri.path(), if path.is_empty() { "/" } else { path.as_str() });
        }
    }
}
