//! Converts errors to text.

use std::error::Error;

use asyncqueue_runtime::nats::jetstream_check::JetStreamOff;

/// Returns an error with its causes, each of them once. If JetStream is not enabled, returns only
/// that: it causes everything else.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    if let Some(off) = JetStreamOff::from_error(error) {
        return off.message("the NATS server");
    }
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        // Messages of the API server are sentences; the client puts their code around them.
        let (message, cause) = match error.downcast_ref() {
            Some(kube::Error::Api(status)) => (status.message.clone(), None),
            _ => (error.to_string(), error.source()),
        };
        if text.is_empty() {
            text = message;
        } else if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        next = cause;
    }
    text
}

#[cfg(test)]
mod tests {
    use async_nats::jetstream::context::{
        GetStreamError, GetStreamErrorKind, RequestError, RequestErrorKind,
    };
    use asyncqueue::stream::EnsureError;
    use kube::core::Status;

    use super::*;

    #[test]
    fn disabled_jetstream_hides_all_other_causes() {
        let request = RequestError::new(RequestErrorKind::NoResponders);
        let source = GetStreamError::with_source(GetStreamErrorKind::Request, request);
        let error =
            EnsureError::Unavailable { what: "for stream jobs".to_owned(), source: source.into() };
        let expected = "JetStream is not enabled on the NATS server: start nats-server with -js";
        assert_eq!(chain(&error), expected);
    }

    #[derive(Debug, thiserror::Error)]
    #[error("the workers could not be deleted")]
    struct Outer(#[source] kube::Error);

    #[test]
    fn a_message_of_the_api_server_is_shown_once() {
        let status =
            Status { code: 422, message: "must be less than".to_owned(), ..Status::default() };
        let error = Outer(kube::Error::Api(Box::new(status)));
        assert_eq!(chain(&error), "the workers could not be deleted: must be less than");
    }
}
