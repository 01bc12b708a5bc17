//! Opens connections to receivers: to addresses that the egress policy allows, with TLS for https
//! URLs.

use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll},
};

use asyncqueue_runtime::client;
use http::Uri;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use tokio::net::TcpStream;
use tower_service::Service;

use super::{egress::EgressResolver, tls::Trust};

/// Opens connections to receivers.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    tcp: HttpConnector<EgressResolver>,
    trust: Trust,
}

impl Connector {
    pub(super) fn new(resolver: EgressResolver, trust: Trust) -> Self {
        Self { tcp: client::tcp(resolver), trust }
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        HttpsConnector::from((self.tcp.clone(), self.trust.config())).call(uri)
    }
}
