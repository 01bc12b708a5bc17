//! The limit: the least that takes a call over HTTP and answers when it is stored. hyper's server
//! and the NATS client as they come; a subject for each call, which is what makes it a call that
//! can be found; no look at path or headers, no directory, no metrics, no limits.
//!
//! It publishes the body alone, or with headers: a message id, by which the broker knows a repeat,
//! and a text as long as the headers of a call, but made once. What a call's headers cost the
//! broker shows in the difference.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_nats::{
    HeaderMap as NatsHeaders,
    header::NATS_MESSAGE_ID,
    jetstream::{self, Context},
};
use asyncqueue::message::native;
use asyncqueue_bench::{FUNCTION, QUEUE, call, load};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::Error;

/// The first argument of the process that publishes bodies alone.
pub(crate) const BARE: &str = "limit";
/// The first argument of the one that publishes headers with them.
pub(crate) const WITH_HEADERS: &str = "limit-with-headers";

struct Publisher {
    js: Context,
    /// What each call has besides its id.
    headers: Option<NatsHeaders>,
}

/// Takes calls at an address until it is killed.
pub(crate) async fn serve(form: &str, nats: &str, addr: &str) -> Result<(), Error> {
    let js = jetstream::new(async_nats::connect(nats).await?);
    let publisher =
        Arc::new(Publisher { js, headers: (form == WITH_HEADERS).then(as_long_as_a_calls) });
    let listener = TcpListener::bind(addr).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let publisher = publisher.clone();
        let service = service_fn(move |request| answer(request, publisher.clone()));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(
    request: Request<Incoming>,
    publisher: Arc<Publisher>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = match publisher.store(request).await {
        Ok(()) => StatusCode::ACCEPTED,
        Err(error) => {
            eprintln!("{error}");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    Ok(response)
}

impl Publisher {
    async fn store(&self, request: Request<Incoming>) -> Result<(), Error> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let body = request.into_body().collect().await?.to_bytes();
        // As long as a call id, and of no other process.
        let id = format!("{:08}-{:027}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let subject = format!("{QUEUE}.openfaas-fn.{FUNCTION}.{id}");
        let sent = match &self.headers {
            Some(headers) => {
                let mut headers = headers.clone();
                headers.insert(NATS_MESSAGE_ID, id);
                self.js.publish_with_headers(subject, headers, body).await?
            }
            None => self.js.publish(subject, body).await?,
        };
        sent.await?;
        Ok(())
    }
}

/// One header as long as all of a call with the headers that the load sends.
fn as_long_as_a_calls() -> NatsHeaders {
    let mut call = call(Bytes::new());
    for (name, value) in load::HEADERS {
        call.headers.insert(name, http::HeaderValue::from_static(value));
    }
    let length = native::encode(&call)
        .iter()
        .flat_map(|(name, values)| values.iter().map(move |value| (name, value)))
        .map(|(name, value)| format!("{name}: {value}\r\n").len())
        .sum();
    let mut headers = NatsHeaders::new();
    headers.insert("Async-Text", "x".repeat(length));
    headers
}
