//! Serves the description of the gateway in `OpenAPI` 3.1, which is `openapi.yaml` of this crate.

use asyncqueue_runtime::admin;
use bytes::Bytes;
use http::{HeaderValue, Method, Response, header};
use http_body_util::Full;

#[cfg(test)]
mod tests;

/// The path of the description. `OpenFaaS` serves nothing there, and a path of a function begins
/// with `/function/`: nothing that is passed on is hidden by it.
const PATH: &str = "/openapi.json";

/// The description as JSON, which `build.rs` has written.
const DESCRIPTION: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/openapi.json"));

/// Answers a request for the description. Returns `None` for any other path.
#[must_use]
pub(crate) fn answer(method: &Method, path: &str) -> Option<Response<Full<Bytes>>> {
    if path != PATH {
        return None;
    }
    if !admin::is_read(method) {
        return Some(admin::method_not_allowed());
    }
    let mut response = Response::new(Full::from(DESCRIPTION));
    let content_type = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    Some(response)
}
