//! Scripts and styles.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};

/// The style of all pages.
pub(crate) const STYLE: &str = "style.css";

/// Refreshes pages and shows times in the zone of the viewer.
pub(crate) const SCRIPT: &str = "console.js";

/// The library with which pages are refreshed.
pub(crate) const HTMX: &str = "htmx.min.js";

/// The icon of the pages.
pub(crate) const ICON: &str = "icon.svg";

/// How long a browser may use a file without asking for it again.
const CACHE_CONTROL: &str = "private, max-age=300";

const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Returns the path of a file.
pub(crate) fn path(name: &str) -> String {
    format!("/assets/{name}")
}

/// Answers a request for a file.
pub(crate) fn serve(name: &str) -> Response {
    let (content_type, content) = match name {
        STYLE => (CSS, include_str!("../assets/style.css")),
        SCRIPT => (JAVASCRIPT, include_str!("../assets/console.js")),
        HTMX => (JAVASCRIPT, include_str!("../assets/htmx.min.js")),
        ICON => (SVG, include_str!("../assets/icon.svg")),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let headers = [(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, CACHE_CONTROL)];
    (headers, Body::from(content)).into_response()
}
