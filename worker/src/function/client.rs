//! Invokes functions: HTTP/1.1 through a pool of connections.

use std::time::{Duration, Instant};

use asyncqueue::{
    FunctionName, Invocation, call::AttemptFailure, directory::Directory,
    function_namespaces::FunctionNamespaces, headers::X_OPENFAAS_INTERNAL,
};
use asyncqueue_runtime::{
    client::{self, Client, Config, ConnectionLimits},
    error::error_chain,
};
use bytes::Bytes;
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Body as _;
use hyper_util::client::legacy::connect::{HttpConnector, dns::GaiResolver};
use tokio::time::timeout_at;

use super::{
    request::{Attempt, Target, request_headers},
    response_buffer::{READ_BYTES, ResponseMemory},
};
use crate::retry::outcome::InvocationEnd;

/// How an invocation ended, and the response to it.
#[derive(Debug)]
pub(crate) struct Reply {
    /// How the invocation ended.
    pub(crate) end: InvocationEnd,
    /// Headers of the response.
    pub(crate) headers: HeaderMap,
    /// Body of the response.
    pub(crate) body: Bytes,
    /// Whether the response was longer than what is kept.
    pub(crate) truncated: bool,
    /// Time from the first byte sent to the last byte received.
    pub(crate) duration: Duration,
    /// Why there is no response, for the log.
    pub(crate) error: Option<String>,
}

/// Invokes functions.
#[derive(Clone, Debug)]
pub(crate) struct FunctionClient {
    client: Client<HttpConnector, Full<Bytes>>,
    target: Target,
    namespaces: FunctionNamespaces,
    max_response: usize,
    memory: ResponseMemory,
}

// === impl FunctionClient ===

impl FunctionClient {
    pub(crate) fn new(
        target: Target,
        namespaces: FunctionNamespaces,
        max_response: usize,
        memory: ResponseMemory,
        limits: ConnectionLimits,
    ) -> Self {
        let config = Config { max_response_head_bytes: READ_BYTES, ..Config::new(limits) };
        let client = Client::new(client::tcp(GaiResolver::new()), config);
        Self { client, target, namespaces, max_response, memory }
    }

    /// Returns whether a function has no pods that could answer. Behind a gateway, the gateway may
    /// scale it up.
    pub(crate) fn is_scaled_to_zero(
        &self,
        function: &FunctionName,
        directory: Option<&Directory>,
    ) -> bool {
        let entry = directory.and_then(|directory| directory.functions.get(function));
        matches!(self.target, Target::Direct(_)) && entry.is_some_and(|entry| entry.scaled_to_zero)
    }

    /// Invokes a function once, with these headers of the client, and waits for the end. If the
    /// future is dropped, the connection is closed, so that the function notices.
    pub(crate) async fn invoke(
        &self,
        invocation: &Invocation,
        headers: HeaderMap,
        attempt: Attempt,
        time_limit: Duration,
        directory: Option<&Directory>,
    ) -> Reply {
        // Behind a gateway, the gateway decides which functions may be called.
        if let Target::Direct(_) = self.target
            && let Err(refused) = self.namespaces.check(&invocation.function, directory)
        {
            let reason = refused.to_string();
            return Reply::without_response(InvocationEnd::Forbidden(refused), reason);
        }
        let started = Instant::now();
        let deadline = (started + time_limit).into();
        let reply = match timeout_at(
            deadline,
            self.exchange(invocation, headers, attempt, directory),
        )
        .await
        {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => {
                let reason = error_chain(&*error);
                match error.downcast_ref() {
                    Some(client::Error::InvalidResponse(cause)) => Reply::without_response(
                        InvocationEnd::Unreadable(error_chain(&**cause)),
                        reason,
                    ),
                    _ => Reply::without_response(InvocationEnd::Unreachable, reason),
                }
            }
            Err(_) => Reply::without_response(
                InvocationEnd::TimedOut,
                "the time limit was reached".to_owned(),
            ),
        };
        Reply { duration: started.elapsed(), ..reply }
    }

    async fn exchange(
        &self,
        invocation: &Invocation,
        headers: HeaderMap,
        attempt: Attempt,
        directory: Option<&Directory>,
    ) -> anyhow::Result<Reply> {
        let mut request = Request::new(Full::new(invocation.body.clone()));
        *request.uri_mut() = self.target.url(invocation, directory)?;
        *request.method_mut() = invocation.method.clone();
        *request.headers_mut() = request_headers(headers, invocation, attempt)?;
        // Each request has an Idempotency-Key, by which a function that ran nevertheless recognises
        // the repeat.
        let sent = self.client.send(request, |request| Some(request.clone()));
        let (parts, mut body) = sent.await?.into_parts();

        let mut buffer = self.memory.buffer(self.max_response, body.size_hint().exact());
        let mut truncated = false;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            let room = self.max_response - buffer.len();
            buffer.append(&data[..data.len().min(room)]).await;
            if data.len() > room {
                truncated = true;
                break;
            }
        }
        let headers = parts.headers;
        let internal = headers.contains_key(X_OPENFAAS_INTERNAL) && parts.status.as_u16() >= 400;
        let retry_after =
            headers.get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()).map(str::to_owned);
        Ok(Reply {
            end: InvocationEnd::Answered { status: parts.status.as_u16(), internal, retry_after },
            headers,
            body: buffer.into_bytes(),
            truncated,
            duration: Duration::ZERO,
            error: None,
        })
    }
}

// === impl Reply ===

impl Reply {
    /// Returns the reply of a call that was not invoked.
    pub(crate) fn empty() -> Self {
        Self {
            end: InvocationEnd::Unreachable,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            truncated: false,
            duration: Duration::ZERO,
            error: None,
        }
    }

    fn without_response(end: InvocationEnd, error: String) -> Self {
        Self { end, error: Some(error), ..Self::empty() }
    }

    /// Returns what the status of the call says about this failed attempt. It contains nothing of
    /// the response but its status code: the body may contain secrets.
    pub(crate) fn failure(&self) -> AttemptFailure {
        let reason = self.end.reason();
        let last_error = match &self.error {
            Some(cause) if *cause != reason => format!("{reason}: {cause}"),
            _ => reason,
        };
        AttemptFailure { last_status: self.end.status(), last_error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_attempt_has_a_status_and_a_cause() {
        let body = Bytes::from_static(b"s3cret");
        let answered = InvocationEnd::Answered { status: 500, internal: false, retry_after: None };
        let cases = [
            (Reply { end: answered, body, ..Reply::empty() }, 500, "the function answered 500"),
            (
                Reply::without_response(
                    InvocationEnd::Unreachable,
                    "no connection can be opened".to_owned(),
                ),
                503,
                "the function did not answer: no connection can be opened",
            ),
            (
                Reply::without_response(
                    InvocationEnd::TimedOut,
                    "the time limit was reached".to_owned(),
                ),
                504,
                "the time limit was reached",
            ),
        ];
        for (reply, last_status, last_error) in cases {
            assert_eq!(
                reply.failure(),
                AttemptFailure { last_status, last_error: last_error.to_owned() }
            );
        }
    }
}
