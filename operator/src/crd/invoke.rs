//! `spec.invoke`: how workers reach functions.

// The comments of fields are the text of `kubectl explain`, which knows no links.
#![allow(rustdoc::bare_urls)]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{rules as rule, schemas};

/// How workers reach functions.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = rule::gateway_url_is_used())]
#[serde(rename_all = "camelCase")]
pub struct InvokeSpec {
    /// Direct calls the function's own Service. Gateway calls gatewayUrl/function/NAME.NAMESPACE,
    /// so that a gateway before the functions sees the call, as one that scales from zero must.
    /// Default: Gateway if the operator has a gateway_url, else Direct.
    #[schemars(schema_with = "schemas::object::<Via>")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<Via>,

    /// URL of the gateway for via: Gateway. Default: the operator's gateway_url.
    ///
    /// Example: http://gateway.openfaas:8080
    #[schemars(schema_with = "schemas::http_url")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_url: Option<String>,
}

/// The way to a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Via {
    /// Straight to the function's Service.
    Direct,
    /// Through a gateway.
    Gateway,
}
