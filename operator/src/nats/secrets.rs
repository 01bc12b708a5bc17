//! Reads single keys of Secrets. The operator may read only those for which it has a permission by
//! name.

use std::fmt;

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1;
use kube::{Api, Client};

use crate::{crd::SecretKey, error::chain};

/// One key of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Secret {
    /// Namespace of the Secret.
    pub(crate) namespace: String,
    /// Its name, and the key in it.
    pub(crate) key: SecretKey,
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, key: SecretKey { name, key } } = self;
        write!(f, "key `{key}` of Secret {namespace}/{name}")
    }
}

/// Reads the current value of a key. The errors say what to do, and do not show the value.
pub(crate) async fn read(client: &Client, secret: &Secret) -> anyhow::Result<String> {
    let Secret { namespace, key: SecretKey { name, key } } = secret;
    let api: Api<v1::Secret> = Api::namespaced(client.clone(), namespace);
    let found = match api.get(name).await {
        Ok(found) => found,
        Err(kube::Error::Api(status)) if status.code == 404 => {
            bail!("Secret {namespace}/{name} does not exist: create it")
        }
        Err(kube::Error::Api(status)) if status.code == 403 => bail!(
            "not permitted to read Secret {namespace}/{name}: grant the operator's ServiceAccount \
             `get` on it, by a Role and a RoleBinding in {namespace} with resourceNames: [{name}]"
        ),
        Err(error) => bail!("failed to read Secret {namespace}/{name}: {}", chain(&error)),
    };
    let value = found.data.and_then(|mut data| data.remove(key));
    let value = value.with_context(|| format!("Secret {namespace}/{name} has no key `{key}`"))?;
    String::from_utf8(value.0).ok().with_context(|| format!("{secret} is not valid UTF-8"))
}
