//! The invocation: an HTTP request that waits for its function.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method};
use jiff::Timestamp;
use url::Url;

use crate::{call_id::CallId, name::FunctionName, retry::RetryOverrides};

/// The longest path and query of a call together, in bytes: the parsers of URLs that gateway and worker have take 64 KiB for
/// all of one, and a function's own URL comes before these.
pub const MAX_TARGET: usize = 60 * 1024;

/// Header of requests: how many calls came before the call that is submitted in its chain.
pub const X_ASYNC_DEPTH: HeaderName = HeaderName::from_static("x-async-depth");

/// One asynchronous call, as the gateway took it and as the worker will make it.
#[derive(Clone, PartialEq, Eq)]
pub struct Invocation {
    /// Identifies the call from the 202 to the callback.
    pub call_id: CallId,
    /// The function to call.
    pub function: FunctionName,
    /// The function's name as the client wrote it, if that is another text: without its namespace, or in another case.
    pub written_name: Option<String>,
    /// The method; clients of `OpenFaaS` always POST.
    pub method: Method,
    /// What follows the function's name in the path, still percent-encoded as the client sent it:
    /// empty, or beginning with `/`.
    pub path: String,
    /// What follows the `?`, raw; `None` where the client sent no `?`.
    pub query: Option<String>,
    /// The client's headers, without those of its connection.
    pub headers: HeaderMap,
    /// Where the result goes, if the client asked for it.
    pub callback_url: Option<CallbackUrl>,
    /// How many calls came before this one in its chain: each was submitted by the one before it,
    /// as its callback or by its function.
    pub depth: u32,
    /// What the message says of the call's retries: existing gateways send the function's annotations along.
    pub retry: RetryOverrides,
    /// When the gateway took it.
    pub submitted_at: Timestamp,
    /// The body, untouched.
    pub body: Bytes,
}

/// An `http` or `https` URL with a host, to which a result is posted.
#[derive(Clone, PartialEq, Eq)]
pub struct CallbackUrl(Url);

/// Why a text is not a callback URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("X-Callback-Url is not valid: {rule}; write it as http://host/path or https://host/path")]
pub struct CallbackUrlError {
    rule: String,
}

/// Reads the value of [`X_ASYNC_DEPTH`], a decimal number; `None` if it is something else. One that
/// is too large to be kept is read as the largest, which no chain may have.
#[must_use]
pub fn read_depth(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u32::MAX))
}

/// Takes the depth of a chain out of the headers of a request that a gateway stored without
/// checking it; 0 if they don't say.
pub(crate) fn take_depth(headers: &mut HeaderMap) -> u32 {
    let depth = headers.remove(X_ASYNC_DEPTH);
    depth.and_then(|depth| read_depth(depth.to_str().ok()?)).unwrap_or_default()
}

// === impl Invocation ===

impl Invocation {
    /// A POST of this body, from now, without path, query, headers and callback: set those that it shall have.
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
            depth: 0,
            retry: RetryOverrides::default(),
            submitted_at: Timestamp::now(),
            body: body.into(),
        }
    }
}

impl fmt::Debug for Invocation {
    /// Neither body, nor headers, nor query: they may hold secrets, and this may reach a log.
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

    /// The URL, credentials included.
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
    /// Without credentials and query, since this is what logs show. [`CallbackUrl::as_url`] has it whole.
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
        for good in ["http://h", "https://user:pa%20ss@h:8443/p?q=1", "http://[::1]:80/", "HTTP://H/"] {
            assert!(CallbackUrl::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "not-a-url", "ht tp://foo.com", "ftp://h", "file:///etc/passwd", "http://", "http:"] {
            assert!(CallbackUrl::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_log_shows_no_credentials_of_a_callback_url() {
        let url = CallbackUrl::parse("https://user:secret@h:8443/p?token=secret#f").unwrap();
        assert_eq!(format!("{url} {url:?}"), "https://h:8443/p https://h:8443/p");
    }
}
