//! Parses the lines of a batch: NDJSON, one call a line. Pure.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use serde::Deserialize;

use super::{client_value, error::SubmissionError};
use crate::{batch::MAX_CALLS, call_id::CallId, headers::X_CALL_ID};

/// A line, as clients write it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Line {
    function: String,
    body: Option<String>,
    body_base64: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, Values>,
    #[serde(default)]
    path: String,
    query: Option<String>,
    call_id: Option<String>,
}

/// The values of a header.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Values {
    One(String),
    Several(Vec<String>),
}

/// One call of a batch, checked as far as neither the directory nor its queue is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchLine {
    /// `NAME` or `NAME.NAMESPACE`, not checked.
    pub function: String,
    /// Empty, or begins with `/`.
    pub path: String,
    pub query: Option<String>,
    pub headers: HeaderMap,
    /// The id that the client chose.
    pub call_id: Option<CallId>,
    pub body: Bytes,
}

/// Parses the body of a batch.
///
/// # Errors
///
/// The error names the line.
pub fn parse(body: &[u8]) -> Result<Vec<BatchLine>, SubmissionError> {
    let body = body.strip_suffix(b"\n").unwrap_or(body);
    if body.trim_ascii().is_empty() {
        return Err(SubmissionError::BatchEmpty);
    }
    let lines = body.split(|byte| *byte == b'\n');
    if lines.clone().nth(MAX_CALLS).is_some() {
        return Err(SubmissionError::BatchTooLong);
    }
    let mut ids = BTreeMap::new();
    let mut parsed = Vec::new();
    for (index, line) in lines.enumerate() {
        let number = index + 1;
        let line = parse_line(line).map_err(|error| error.in_line(number))?;
        if let Some(id) = &line.call_id
            && let Some(first) = ids.insert(id.clone(), number)
        {
            let reason = format!("callId `{id}` is that of line {first} too: use another one");
            return Err(SubmissionError::BatchLine { reason }.in_line(number));
        }
        parsed.push(line);
    }
    Ok(parsed)
}

fn parse_line(line: &[u8]) -> Result<BatchLine, SubmissionError> {
    let refuse = |reason: String| SubmissionError::BatchLine { reason };
    let Line { function, body, body_base64, headers, path, query, call_id } =
        serde_json::from_slice(line).map_err(|error| {
            refuse(format!(
                "it is not a call: {error}; write one JSON object a line, with `function` and \
                 optionally `body` or `bodyBase64`, `headers`, `path`, `query` and `callId`"
            ))
        })?;
    let body = match (body, body_base64) {
        (Some(_), Some(_)) => {
            return Err(refuse("it has `body` and `bodyBase64`: send one of them".to_owned()));
        }
        (Some(body), None) => Bytes::from(body),
        (None, Some(encoded)) => STANDARD.decode(encoded).map(Bytes::from).map_err(|error| {
            refuse(format!("bodyBase64 is not valid: {error}; send base64 with padding"))
        })?,
        (None, None) => Bytes::new(),
    };
    if !is_target(&path, query.as_deref()) {
        return Err(SubmissionError::InvalidTarget);
    }
    let call_id = call_id.map(|id| client_value::call_id("callId", &id)).transpose()?;
    Ok(BatchLine { function, path, query, headers: header_map(headers)?, call_id, body })
}

/// Returns whether path and query can be those of a request.
#[must_use]
pub fn is_target(path: &str, query: Option<&str>) -> bool {
    if !(path.is_empty() || path.starts_with('/')) {
        return false;
    }
    let suffix = query.map(|query| format!("?{query}")).unwrap_or_default();
    let uri = format!("/f{path}{suffix}").parse::<Uri>();
    uri.is_ok_and(|uri| uri.path().strip_prefix("/f") == Some(path) && uri.query() == query)
}

fn header_map(headers: BTreeMap<String, Values>) -> Result<HeaderMap, SubmissionError> {
    let mut map = HeaderMap::new();
    for (name, values) in headers {
        let refuse = |rule: &str| SubmissionError::BatchLine {
            reason: format!("header `{}`: {rule}", client_value::shorten(&name)),
        };
        let parsed = HeaderName::from_bytes(name.as_bytes());
        let parsed = parsed.map_err(|_| refuse("it is not a valid name of a header"))?;
        if parsed == X_CALL_ID {
            return Err(refuse("send the id as `callId`"));
        }
        let values = match values {
            Values::One(value) => vec![value],
            Values::Several(values) => values,
        };
        for value in values {
            let value = HeaderValue::from_str(&value)
                .map_err(|_| refuse("its value has a control character: leave it out"))?;
            map.append(parsed.clone(), value);
        }
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(text: &str) -> BatchLine {
        let mut lines = parse(text.as_bytes()).unwrap();
        assert_eq!(lines.len(), 1);
        lines.remove(0)
    }

    #[test]
    fn line_is_a_call() {
        let line = one(concat!(
            r#"{"function":"figlet","bodyBase64":"AP8=","headers":{"X-A":"1","x-b":["2","é"]},"#,
            r#""path":"/p%2F","query":"a=%zz","callId":"c-1"}"#,
        ));
        assert_eq!(
            (&*line.function, &*line.path, line.query.as_deref()),
            ("figlet", "/p%2F", Some("a=%zz"))
        );
        assert_eq!(&line.body[..], b"\x00\xff");
        assert_eq!(line.headers["x-a"], "1");
        assert_eq!(line.headers.get_all("x-b").iter().count(), 2);
        assert_eq!(line.call_id.unwrap().as_str(), "c-1");
        let line = one("{\"function\":\"f\"}\n");
        assert_eq!((line.body.len(), line.path.len(), line.query), (0, 0, None));
    }

    #[test]
    fn refusal_names_the_line_and_the_remedy() {
        let good = r#"{"function":"f"}"#;
        for (bad, expected) in [
            ("", "not a call"),
            ("[]", "not a call"),
            ("{}", "`function`"),
            (r#"{"function":"f","boddy":"x"}"#, "`boddy`"),
            (r#"{"function":"f","body":{}}"#, "not a call"),
            (r#"{"function":"f","body":"","bodyBase64":""}"#, "one of them"),
            (r#"{"function":"f","bodyBase64":"?"}"#, "base64"),
            (r#"{"function":"f","path":"p"}"#, "begin the path with `/`"),
            (r#"{"function":"f","path":"/a b"}"#, "%XX"),
            (r#"{"function":"f","path":"/a?b"}"#, "leave out `?`"),
            (r#"{"function":"f","query":"a#b"}"#, "leave out `?`"),
            (r#"{"function":"f","headers":{"a b":"1"}}"#, "header `a b`"),
            (r#"{"function":"f","headers":{"a":"\n"}}"#, "control character"),
            (r#"{"function":"f","headers":{"X-Call-Id":"1"}}"#, "`callId`"),
            (r#"{"function":"f","callId":"a.b"}"#, "call id `a.b`"),
        ] {
            let error = parse(format!("{good}\n{bad}\n{good}").as_bytes()).unwrap_err();
            let text = error.to_string();
            assert!(text.starts_with("line 2: ") && text.contains(expected), "{bad}: {text}");
            assert_eq!(error.status(), 400, "{bad}");
        }
        let twice = r#"{"function":"f","callId":"c"}"#;
        let text = parse(format!("{twice}\n{good}\n{twice}").as_bytes()).unwrap_err().to_string();
        assert!(text.starts_with("line 3: ") && text.contains("line 1"), "{text}");
    }

    #[test]
    fn batch_has_1_to_1000_lines() {
        let lines = |count: usize| "{\"function\":\"f\"}\n".repeat(count);
        assert_eq!(parse(lines(1000).as_bytes()).unwrap().len(), 1000);
        assert_eq!(parse(lines(1001).as_bytes()).unwrap_err().status(), 413);
        assert_eq!(parse(b"\n").unwrap_err().status(), 400);
    }

    proptest! {
        #[test]
        fn any_input_is_parsed_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&body);
        }

        #[test]
        fn bodies_stay_as_they_are(bodies in prop::collection::vec(any::<String>(), 1..5)) {
            let lines: Vec<_> = bodies
                .iter()
                .map(|body| serde_json::json!({"function": "f", "body": body}).to_string())
                .collect();
            let parsed = parse(lines.join("\n").as_bytes()).unwrap();
            let parsed: Vec<_> = parsed.iter().map(|line| &line.body[..]).collect();
            let expected: Vec<_> = bodies.iter().map(String::as_bytes).collect();
            prop_assert_eq!(parsed, expected);
        }
    }
}
