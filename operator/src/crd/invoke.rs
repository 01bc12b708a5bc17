//! `spec.invoke`: how workers reach functions.

// The comments of fields are the text of `kubectl explain`, which knows no links.
#![allow(rustdoc::bare_urls)]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{rules as rule, schemas};

/// How workers call functions.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = rule::gateway_url_is_used())]
#[serde(rename_all = "camelCase")]
pub struct InvokeSpec {
    /// Direct calls the Service of the function. Gateway calls gatewayUrl/function/NAME.NAMESPACE,
    /// for gateways that must see each call, such as those that scale from zero. Default: Gateway
    /// if the operator has a gateway_url, else Direct.
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

/// How a function is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Via {
    /// Through the Service of the function.
    Direct,
    /// Through a gateway.
    Gateway,
}
