//! Handles requests about batches of calls.

use std::collections::HashSet;

use asyncqueue::{
    CallId, Invocation,
    batch::{BatchId, BatchReport, OnFailure, find_batch},
    cancel::{BatchCancelCounts, cancel_batch},
    directory::QueueRoute,
    headers::X_ASYNC_DEPTH,
    message::dead_letter,
    submit::{BatchOutcome, NewBatch},
};
use http::{HeaderMap, HeaderValue, Method, request::Parts};
use hyper::body::Incoming;
use tracing::{debug, info};

use super::{Service, head_bytes};
use crate::{
    batch_lines::{self, BatchLine},
    body::{self, BodyLimit},
    client_value,
    context::RequestContext,
    forwarded::ForwardedHeaders,
    lookup::parameter,
    rejection::Rejection,
    response::{self, GatewayResponse},
    route::{FunctionPath, RequestTarget},
    submission::{self, Submission},
};

/// The methods of `/async-batch`, and of `/async-batch/ID`.
const SUBMIT_METHODS: &str = "POST";
const BATCH_METHODS: &str = "GET, HEAD, DELETE";

/// Maximum size of the body of a batch, in bytes.
const MAX_BODY: usize = 16 * 1024 * 1024;

/// Memory of a call of a batch besides its line, in bytes: its headers as a message.
const CALL_BYTES: usize = 2048;

impl Service {
    /// Handles a request to `/async-batch`.
    pub(super) async fn handle_batch(
        &self,
        target: RequestTarget,
        head: Parts,
        forwarded: ForwardedHeaders,
        body: &mut Incoming,
        context: &mut RequestContext,
    ) -> Result<GatewayResponse, Rejection> {
        let FunctionPath { function: id, path } = target.function_path();
        if !matches!(path, "" | "/") {
            return Err(Rejection::NotFound);
        }
        let id = Some(id).filter(|id| !id.is_empty());
        let id = id.map(|id| submission::call_id("batch id in the path", id)).transpose()?;
        context.batch_id.clone_from(&id);
        let (operation, result) = match (&head.method, id) {
            (&Method::POST, None) => {
                let result = self.submit_batch(&target, head, forwarded, body, context).await;
                let result = result.map_err(|rejection| self.with_cause(rejection));
                self.metrics.record_batch(match &result {
                    Ok(BatchOutcome { is_duplicate: false, .. }) => "stored",
                    Ok(_) => "duplicate",
                    Err(rejection) => rejection.category(),
                });
                return Ok(response::batch_accepted(context, &result?));
            }
            (&(Method::GET | Method::HEAD), Some(id)) => {
                let report = self.batch_status(&id).await;
                ("batch_status", report.map(|report| response::batch(context, &report)))
            }
            (&Method::DELETE, Some(id)) => {
                let counts = self.cancel_batch(id).await;
                ("batch_cancel", counts.map(|counts| response::batch_cancelled(context, counts)))
            }
            (method, id) => {
                let allow = if id.is_some() { BATCH_METHODS } else { SUBMIT_METHODS };
                return Err(Rejection::MethodNotAllowed { method: method.clone(), allow });
            }
        };
        let result = result.map_err(|rejection| self.with_cause(rejection));
        let outcome = result.as_ref().map_or_else(Rejection::category, |_| "found");
        self.metrics.record_lookup(operation, outcome);
        result
    }

    /// Answers `POST /async-batch[?onFailure=cancel]`.
    async fn submit_batch(
        &self,
        target: &RequestTarget,
        head: Parts,
        forwarded: ForwardedHeaders,
        body: &mut Incoming,
        context: &mut RequestContext,
    ) -> Result<BatchOutcome, Rejection> {
        let headers = head.headers;
        let named = submission::client_batch_id(&headers)?;
        context.batch_id.clone_from(&named);
        let callback_url = submission::callback_url(&headers)?;
        let depth = submission::depth(&headers)?;
        let on_failure = on_failure(target.query())?;
        self.directory()?;
        self.check_nats()?;
        let memory = self.call_memory.try_take(head_bytes(target, &headers));
        let memory = memory.ok_or_else(|| self.no_call_memory())?;
        let limit = BodyLimit { bytes: MAX_BODY, set_by: "the gateway, for a batch" };
        let bytes = body::read(body, limit, self.read_timeout, memory).await?;
        // The calls are copies of their lines.
        let lines = bytes.split(|byte| *byte == b'\n').count();
        let copies = bytes.len() * 2 + lines.min(asyncqueue::batch::MAX_CALLS) * CALL_BYTES;
        let _copies = self.call_memory.try_take(copies).ok_or_else(|| self.no_call_memory())?;
        let lines = batch_lines::parse(&bytes)?;
        drop(bytes);
        let own_ids: HashSet<_> = (0..lines.len())
            .filter(|index| lines.get(*index).is_some_and(|line| line.call_id.is_some()))
            .collect();
        let (calls, route) = self.invocations(lines, depth, &forwarded, context)?;
        let id = named.clone().unwrap_or_else(|| CallId::generate(&route.queue));
        context.batch_id = Some(id.clone());
        let target = callback_url.as_ref().map_or(0, |url| url.as_url().as_str().len());
        let max_target = dead_letter::max_target(self.nats.max_payload());
        if target > max_target {
            return Err(Rejection::TooLargeForDeadLetter { limit: max_target });
        }
        let batch = NewBatch {
            id: id.clone(),
            is_named: named.is_some(),
            calls,
            callback_url,
            on_failure,
            submitted_at: context.started_at,
            depth,
            own_ids,
        };
        let _permit = self.publish_limit.try_acquire()?;
        let size = batch.calls.len();
        let result = self.submitter.submit_batch(batch, &route).await;
        debug!(batch = %id, queue = %route.queue, calls = size, ?result, "submitted a batch");
        result.map_err(|error| Rejection::Batch { queue: route.queue, error })
    }

    /// Returns the calls of a batch, and the route of its queue. All limits of a single call apply
    /// to each of them.
    fn invocations(
        &self,
        lines: Vec<BatchLine>,
        depth: u32,
        forwarded: &ForwardedHeaders,
        context: &RequestContext,
    ) -> Result<(Vec<Invocation>, QueueRoute), Rejection> {
        let (mut calls, mut first) = (Vec::with_capacity(lines.len()), None::<QueueRoute>);
        for (index, line) in lines.into_iter().enumerate() {
            let in_line = |rejection: Rejection| rejection.in_line(index + 1);
            let (call, route) =
                self.invocation(line, depth, forwarded, context).map_err(in_line)?;
            match &first {
                Some(first) if first.queue != route.queue => {
                    let (queue, other) = (first.queue.clone(), route.queue);
                    return Err(in_line(Rejection::BatchQueues { queue, other }));
                }
                Some(_) => {}
                None => first = Some(route),
            }
            calls.push(call);
        }
        first.map(|route| (calls, route)).ok_or(Rejection::BatchEmpty)
    }

    fn invocation(
        &self,
        line: BatchLine,
        depth: u32,
        forwarded: &ForwardedHeaders,
        context: &RequestContext,
    ) -> Result<(Invocation, QueueRoute), Rejection> {
        let BatchLine { function, path, query, mut headers, call_id, body } = line;
        // A function that submits a batch passes its depth on with the batch.
        if !headers.contains_key(X_ASYNC_DEPTH) {
            headers.insert(X_ASYNC_DEPTH, HeaderValue::from(depth));
        }
        self.check_head(&headers, &path, query.as_deref())?;
        let function_path = FunctionPath { function: &function, path: &path };
        let namespace = self.namespaces.default_namespace();
        let submission = Submission::parse(function_path, query.as_deref(), &headers, namespace)?;
        let submission = submission.resolved(&*self.directory()?);
        submission.check_depth(self.max_chain_depth)?;
        let (submission, route) = self.admit(submission, context.started_at)?;
        submission.check_dead_letter(dead_letter::max_target(self.nats.max_payload()))?;
        let limit = BodyLimit::new(self.max_payload, self.nats.max_payload());
        limit.min_with(route.max_payload).check(body.len())?;
        let call_id = call_id.unwrap_or_else(|| CallId::generate(&route.queue));
        let at = context.started_at;
        let call = submission.into_invocation(call_id, at, headers, forwarded.clone(), body);
        Ok((call, route))
    }

    /// Rejects a call whose head would be too large for a request of its own.
    fn check_head(
        &self,
        headers: &HeaderMap,
        path: &str,
        query: Option<&str>,
    ) -> Result<(), Rejection> {
        let fields = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
        let bytes = fields.sum::<usize>() + path.len() + query.map_or(0, str::len);
        let limit = self.max_header_bytes;
        if bytes > limit { Err(Rejection::BatchHeadTooLarge { limit }) } else { Ok(()) }
    }

    /// Answers `GET /async-batch/ID`.
    async fn batch_status(&self, id: &BatchId) -> Result<BatchReport, Rejection> {
        let _permit = self.lookups.permit()?;
        let found = find_batch(self.lookups.context(), id).await?;
        let state = found.ok_or_else(|| Rejection::UnknownBatch(id.clone()))?;
        Ok(state.into_report())
    }

    /// Answers `DELETE /async-batch/ID`. The cancellation is completed even if the client
    /// disconnects.
    async fn cancel_batch(&self, id: BatchId) -> Result<BatchCancelCounts, Rejection> {
        let _permit = self.lookups.permit()?;
        let (js, timeout) = (self.lookups.context().clone(), self.lookups.cancel_timeout());
        let batch_id = id.clone();
        let cancelling = tokio::spawn(async move { cancel_batch(&js, &batch_id, timeout).await });
        let counts = cancelling.await.map_err(|_| Rejection::ShuttingDown)?;
        let counts = counts.map_err(Rejection::CancelFailed)?;
        let counts = counts.ok_or_else(|| Rejection::UnknownBatch(id.clone()))?;
        info!(batch = %id, ?counts, "cancelled the rest of a batch");
        match counts {
            BatchCancelCounts { unconfirmed: 1.., .. } => Err(Rejection::BatchUnconfirmed(id)),
            BatchCancelCounts { cancelled: 0, .. } => Err(Rejection::BatchEnded(id)),
            counts => Ok(counts),
        }
    }

    fn no_call_memory(&self) -> Rejection {
        Rejection::MemoryExhausted { budget: self.call_memory.budget() }
    }
}

/// Reads the parameter `onFailure`.
fn on_failure(query: Option<&str>) -> Result<OnFailure, Rejection> {
    match parameter(query, "onFailure") {
        None | Some("continue") => Ok(OnFailure::Continue),
        Some("cancel") => Ok(OnFailure::Cancel),
        Some(other) => Err(Rejection::OnFailure { value: client_value::shorten(other) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_failure_is_cancel_or_continue() {
        assert_eq!(on_failure(None).unwrap(), OnFailure::Continue);
        assert_eq!(on_failure(Some("onFailure=continue")).unwrap(), OnFailure::Continue);
        assert_eq!(on_failure(Some("a=b&onFailure=cancel")).unwrap(), OnFailure::Cancel);
        let text = on_failure(Some("onFailure=stop")).unwrap_err().to_string();
        assert!(text.contains("`stop`") && text.contains("cancel"), "{text}");
    }
}
