//! Prints the result of a call.

use std::collections::BTreeMap;

use asyncqueue::message::kept_result::KeptResult;
use base64::{Engine, engine::general_purpose::STANDARD};
use clap::ValueEnum;
use http::HeaderMap;
use serde::Serialize;

use crate::{exit::ResultError, output, table};

/// The format of a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ResultFormat {
    /// The body, unchanged. Status and headers are printed to the standard error.
    #[default]
    Body,
    /// JSON, with status, headers and body.
    Json,
    /// YAML, with the fields of JSON.
    Yaml,
}

/// A result as JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ResultJson<'a> {
    call_id: &'a str,
    function: String,
    state: &'static str,
    status: u16,
    duration_seconds: f64,
    attempt: u64,
    headers: BTreeMap<&'a str, Vec<String>>,
    /// Bytes of the body that were not kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    omitted: Option<u64>,
    #[serde(flatten)]
    body: Body<'a>,
}

/// The body as text if it is UTF-8, as in a line of a batch.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
enum Body<'a> {
    Body(&'a str),
    BodyBase64(String),
}

/// Prints a result. Fails with [`ResultError::Failed`] if the call failed.
pub(crate) fn print(result: &KeptResult, format: ResultFormat) -> anyhow::Result<()> {
    match format {
        ResultFormat::Body => {
            output::print_error(&head(result));
            output::print_bytes(&result.body)?;
        }
        ResultFormat::Json => output::print_json(&json(result))?,
        ResultFormat::Yaml => output::print_yaml(&json(result))?,
    }
    ResultError::of(result).map_or(Ok(()), |error| Err(error.into()))
}

/// Formats how the call ended, and the headers of the response.
fn head(result: &KeptResult) -> String {
    let KeptResult { call_id, end, status, .. } = result;
    let mut lines = vec![format!("call {call_id} is {end}, status {status}")];
    for (name, values) in header_values(&result.headers) {
        lines.extend(values.iter().map(|value| format!("{name}: {}", table::printable(value))));
    }
    let omitted = result.omitted;
    lines.extend(omitted.map(|bytes| format!("the body is not kept: it has {bytes} bytes")));
    lines.join("\n")
}

fn json(result: &KeptResult) -> ResultJson<'_> {
    ResultJson {
        call_id: result.call_id.as_str(),
        function: result.function.to_string(),
        state: result.end.as_str(),
        status: result.status,
        duration_seconds: result.duration.as_secs_f64(),
        attempt: result.attempt,
        headers: header_values(&result.headers),
        omitted: result.omitted,
        body: str::from_utf8(&result.body)
            .map_or_else(|_| Body::BodyBase64(STANDARD.encode(&result.body)), Body::Body),
    }
}

/// Returns the values of headers by name.
fn header_values(headers: &HeaderMap) -> BTreeMap<&str, Vec<String>> {
    let mut values = BTreeMap::<_, Vec<String>>::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        values.entry(name.as_str()).or_default().push(value);
    }
    values
}

#[cfg(test)]
mod tests {
    use asyncqueue::{EndState, FunctionName, Invocation};
    use serde_json::json;

    use super::*;
    use crate::reference::assert_fields_documented;

    fn result() -> KeptResult {
        let function = FunctionName::new("figlet", "openfaas-fn").unwrap();
        let call = Invocation::new("id-1".parse().unwrap(), function, "");
        let mut result = KeptResult::new(&call, 1, EndState::Done, 201);
        result.headers.append("x-a", "1".parse().unwrap());
        result.headers.append("x-a", "2\t".parse().unwrap());
        result.headers.append("content-type", "text/plain".parse().unwrap());
        result.body = "made".into();
        result
    }

    #[test]
    fn head_has_status_and_headers() {
        let mut result = result();
        assert_eq!(
            head(&result),
            "call id-1 is done, status 201\ncontent-type: text/plain\nx-a: 1\nx-a: 2\u{fffd}"
        );
        result.omitted = Some(7);
        assert!(head(&result).ends_with("the body is not kept: it has 7 bytes"));
    }

    #[test]
    fn json_has_the_body_as_text_or_base64() {
        let mut result = result();
        assert_eq!(
            serde_json::to_value(super::json(&result)).unwrap(),
            json!({
                "callId": "id-1", "function": "figlet.openfaas-fn", "state": "done",
                "status": 201, "durationSeconds": 0.0, "attempt": 0,
                "headers": {"content-type": ["text/plain"], "x-a": ["1", "2\t"]},
                "body": "made",
            })
        );
        result.body = b"\x00\xff"[..].into();
        let value = serde_json::to_value(super::json(&result)).unwrap();
        assert_eq!((&value["bodyBase64"], value.get("body")), (&json!("AP8="), None));
    }

    #[test]
    fn all_fields_of_json_are_documented() {
        let (text, mut binary, mut omitted) = (result(), result(), result());
        binary.body = b"\xff"[..].into();
        omitted.omitted = Some(7);
        let results = [&text, &binary, &omitted];
        assert_fields_documented("`result`, `invoke --wait`", results.map(super::json));
    }
}
