//! Reads the query parameters of a page.

use axum::extract::{FromRequestParts, Query};
use http::request::Parts;
use serde::de::DeserializeOwned;

use super::error::PageError;

/// The query parameters. What can't be read is refused with a page, as other input is.
#[derive(Debug)]
pub(super) struct Parameters<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = PageError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let read = Query::try_from_uri(&parts.uri);
        read.map(|Query(read)| Self(read))
            .map_err(|rejection| PageError::NotValid(rejection.body_text()))
    }
}
