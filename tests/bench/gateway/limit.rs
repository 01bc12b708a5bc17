//! The limit: the least that takes a call over HTTP and answers when it is stored. hyper's server and the NATS client
//! as they come; a subject for each call, which is what makes it a call that can be found; no look at path or headers,
//! no message id, no directory, no metrics, no limits.

use std::{
    convert::Infallible,
    sync::atomic::{AtomicU64, Ordering},
};

use async_nats::jetstream::{self, Context};
use asyncqueue_tests::bench::{FUNCTION, QUEUE};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::Error;

/// Takes calls at an address until it is killed.
pub(crate) async fn serve(nats: &str, addr: &str) -> Result<(), Error> {
    let js = jetstream::new(async_nats::connect(nats).await?);
    let listener = TcpListener::bind(addr).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let js = js.clone();
        let service = service_fn(move |request| answer(request, js.clone()));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(request: Request<Incoming>, js: Context) -> Result<Response<Empty<Bytes>>, Infallible> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = match store(request, &js).await {
        Ok(()) => StatusCode::ACCEPTED,
        Err(error) => {
            eprintln!("{error}");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    Ok(response)
}

async fn store(request: Request<Incoming>, js: &Context) -> Result<(), Error> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let body = request.into_body().collect().await?.to_bytes();
    // As long as a call id.
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    js.publish(format!("{QUEUE}.openfaas-fn.{FUNCTION}.{id:036}"), body).await?.await?;
    Ok(())
}
