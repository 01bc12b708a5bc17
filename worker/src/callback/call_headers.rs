//! Adds to a callback what it has of its call: the time of submission, and the trace.

use asyncqueue::{Invocation, headers::X_START_TIME};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Headers with the context of a trace (W3C Trace Context, W3C Baggage).
static TRACE: [HeaderName; 3] = [
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("baggage"),
];

/// Returns the headers of a call that its callback gets too. All others need not be kept while the
/// call runs.
pub(crate) fn trace(call: &HeaderMap) -> HeaderMap {
    let mut trace = HeaderMap::new();
    for name in &TRACE {
        for value in call.get_all(name) {
            trace.append(name, value.clone());
        }
    }
    trace
}

/// Adds the headers of the call to those of the function's response. They replace values that the
/// function set itself.
pub(crate) fn add(headers: &mut HeaderMap, call: &Invocation) {
    if let Ok(started) = HeaderValue::from_str(&call.submitted_at.as_nanosecond().to_string()) {
        headers.insert(X_START_TIME, started);
    }
    headers.extend(trace(&call.headers));
}

#[cfg(test)]
mod tests {
    use asyncqueue::FunctionName;

    use super::*;

    #[test]
    fn a_callback_belongs_to_the_trace_of_its_call() {
        let function = FunctionName::new("figlet", "openfaas-fn").unwrap();
        let mut call = Invocation::new("id-1".parse().unwrap(), function, "");
        call.submitted_at = "2026-11-24T10:00:00Z".parse().unwrap();
        for (name, value) in [
            ("traceparent", "00-1"),
            ("tracestate", "a=1"),
            ("tracestate", "b=2"),
            ("authorization", "x"),
        ] {
            call.headers.append(name, HeaderValue::from_static(value));
        }
        let own = [("traceparent", "the function's"), ("x-start-time", "1"), ("x-mine", "1")];
        let own = own
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let mut headers = HeaderMap::from_iter(own);
        add(&mut headers, &call);
        let values = |name| headers.get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(values("traceparent"), ["00-1"]);
        assert_eq!(values("tracestate"), ["a=1", "b=2"]);
        assert_eq!(values("x-start-time"), ["1795514400000000000"]);
        assert_eq!(headers.len(), 5);
        assert!(!headers.contains_key("authorization"));
    }
}
