//! The invocation: an HTTP request that waits for its function.

use std::{fmt, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method};
use jiff::Timestamp;
use url::Url;

use crate::{
    batch_member::BatchMember, call_id::CallId, headers::X_ASYNC_DEPTH, names::FunctionName,
    retry::RetryOverrides,
};

/// Maximum length of a call's path and query together, in bytes. The URL parsers of gateway and
/// worker accept 64 KiB for a whole URL, which also contains the function's own URL.
pub const MAX_TARGET: usize = 60 * 1024;

/// One asynchronous call, as the gateway accepted it and as the worker sends it to the function.
///
/// ```
/// use asyncqueue::{CallId, CallbackUrl, FunctionName, Invocation};
///
/// let function = FunctionName::parse("figlet", "openfaas-fn")?;
/// let mut call = Invocation::new(CallId::generate(&"slow-queue".parse()?), function, "hi");
/// call.headers.insert("content-type", "text/plain".parse()?);
/// call.callback_url = Some(CallbackUrl::parse("https://example.com/results")?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Invocation {
    /// Identifies the call from the 202 to the callback.
    pub call_id: CallId,
    /// The function to call.
    pub function: FunctionName,
    /// The function's name as the client wrote it, if that differs: without its namespace, or in
    /// another case.
    pub written_name: Option<String>,
    /// The method. Clients of `OpenFaaS` always POST.
    pub method: Method,
    /// The rest of the path after the function's name, percent-encoded as the client sent it.
    /// Empty, or begins with `/`.
    pub path: String,
    /// The raw text after the `?`; `None` if the client sent no `?`.
    pub query: Option<String>,
    /// The client's headers, without those of its connection.
    pub headers: HeaderMap,
    /// Where the result goes, if the client requested it.
    pub callback_url: Option<CallbackUrl>,
    /// How long its result is kept, if the client requested that.
    pub keep_result: Option<Duration>,
    /// How many calls precede this one in its chain. Each was submitted by the one before it, as
    /// its callback or by its function.
    pub depth: u32,
    /// The batch that the call belongs to. `None`: it was submitted alone.
    #[doc(hidden)]
    pub batch: Option<BatchMember>,
    /// The retry settings in the message: existing gateways include the function's annotations.
    pub retry: RetryOverrides,
    /// When the gateway accepted the call.
    pub submitted_at: Timestamp,
    /// The call does not run before this time. `None`: it runs as soon as a worker is free.
    pub not_before: Option<Timestamp>,
    /// The body, unchanged.
    pub body: Bytes,
}

/// An `http` or `https` URL with a host, to which a result is posted.
#[derive(Clone, PartialEq, Eq)]
pub struct CallbackUrl(Url);

/// A text is not a callback URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("X-Callback-Url is not valid: {rule}; write it as http://host/path or https://host/path")]
pub struct CallbackUrlError {
    rule: String,
}

/// Reads the value of [`X_ASYNC_DEPTH`], a decimal number; `None` if it is something else. A number
/// that is too large is read as the largest one, which exceeds the limit of every chain.
#[must_use]
pub fn read_depth(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u32::MAX))
}

/// Removes the depth of a chain from the headers of a request that a gateway stored without
/// checking it. Returns 0 if the headers do not contain it.
pub(crate) fn take_depth(headers: &mut HeaderMap) -> u32 {
    let depth = headers.remove(X_ASYNC_DEPTH);
    depth.and_then(|depth| read_depth(depth.to_str().ok()?)).unwrap_or_default()
}

// === impl Invocation ===

impl Invocation {
    /// Creates a POST with this body and the current time, without path, query, headers and
    /// callback. Set those that the call needs.
    #[must_use]
    pub fn new(call_id: CallId, function: FunctionName, body: impl Into<Bytes>) -> Self {
        Self {
            call_id,
            function,
            written_name: None,
            method: Method::POST,
            path: String::new(),
            query: None,
            headers: HeaderMap::new(),
            callback_url: None,
            keep_result: None,
            depth: 0,
            batch: None,
            retry: RetryOverrides::default(),
            submitted_at: Timestamp::now(),
            not_before: None,
            body: body.into(),
        }
    }
}

impl fmt::Debug for Invocation {
    /// Omits body, headers and query: they may hold secrets, and the output may be logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invocation")
            .field("call_id", &self.call_id.as_str())
            .field("function", &self.function)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

// === impl CallbackUrl ===

impl CallbackUrl {
    /// Reads and checks a client's `X-Callback-Url`.
    pub fn parse(text: &str) -> Result<Self, CallbackUrlError> {
        let refuse = |rule: &str| Err(CallbackUrlError { rule: rule.to_owned() });
        let url = match Url::parse(text) {
            Ok(url) => url,
            Err(error) => return refuse(&error.to_string()),
        };
        match url.scheme() {
            "http" | "https" if url.has_host() => Ok(Self(url)),
            "http" | "https" => refuse("it has no host"),
            other => refuse(&format!("its scheme is `{other}`")),
        }
    }

    /// Returns the URL, including credentials.
    #[must_use]
    pub fn as_url(&self) -> &Url {
        &self.0
    }
}

impl fmt::Debug for CallbackUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for CallbackUrl {
    /// Omits credentials and query, because logs show this form. [`CallbackUrl::as_url`] returns
    /// the whole URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.0.scheme(), self.0.host_str().unwrap_or_default())?;
        if let Some(port) = self.0.port() {
            write!(f, ":{port}")?;
        }
        f.write_str(self.0.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_depth_is_a_decimal_number() {
        for (text, depth) in [
            ("0", Some(0)),
            ("007", Some(7)),
            ("4294967295", Some(u32::MAX)),
            ("99999999999", Some(u32::MAX)),
        ] {
            assert_eq!(read_depth(text), depth, "{text}");
        }
        for bad in ["", "-1", "+1", "1.5", " 1", "0x1", "one"] {
            assert_eq!(read_depth(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_callback_url_is_http_with_a_host() {
        for good in
            ["http://h", "https://user:pa%20ss@h:8443/p?q=1", "http://[::1]:80/", "HTTP://H/"]
        {
            assert!(CallbackUrl::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "not-a-url",
            "ht tp://foo.com",
            "ftp://h",
            "file:///etc/passwd",
            "http://",
            "http:",
        ] {
            assert!(CallbackUrl::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_log_shows_no_credentials_of_a_callback_url() {
        let url = CallbackUrl::parse("https://user:secret@h:8443/p?token=secret#f").unwrap();
        assert_eq!(format!("{url} {url:?}"), "https://h:8443/p https://h:8443/p");
    }
}
