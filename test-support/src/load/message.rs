//! Which call of the load a message on a stream belongs to.

use async_nats::HeaderMap;
use asyncqueue::message::{callback::Callback, native};
use bytes::Bytes;

use super::{function, receiver};
use crate::history::event::CallNumber;

/// The number of the call that a message, or a dead letter of one, stores.
#[must_use]
pub fn call_of(headers: &HeaderMap) -> Option<CallNumber> {
    let call = native::decode(headers, Bytes::new()).ok()?;
    function::number_in(call.query.as_deref())
}

/// Whether a result is the report of a batch.
#[must_use]
pub fn is_of_batch(headers: &HeaderMap) -> bool {
    Callback::decode(headers, Bytes::new())
        .is_ok_and(|result| receiver::batch_in(result.url.as_url().path()).is_some())
}

/// The number of the call that a result belongs to.
#[must_use]
pub fn call_of_result(headers: &HeaderMap) -> Option<CallNumber> {
    let result = Callback::decode(headers, Bytes::new()).ok()?;
    receiver::number_in(result.url.as_url().path())
}
