//! References to Secrets.

use std::str::FromStr;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::schemas;

/// Key of a Secret in the queue's namespace.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SecretKey {
    /// Name of the Secret. Workers do not start until it exists.
    #[schemars(schema_with = "schemas::object_name")]
    pub name: String,

    /// Key in the data of the Secret.
    #[schemars(schema_with = "schemas::secret_key")]
    pub key: String,
}

/// Error for a text that is not `NAME/KEY`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write it as NAME/KEY, the name of a Secret and a key in its data, as in nats/nats.creds")]
pub struct SecretKeyError;

impl FromStr for SecretKey {
    type Err = SecretKeyError;

    /// Reads `NAME/KEY`, of the characters that Kubernetes allows for each.
    fn from_str(text: &str) -> Result<Self, SecretKeyError> {
        let (name, key) = text.split_once('/').ok_or(SecretKeyError)?;
        let is_key = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        if is_secret_name(name) && is_text(key, is_key) {
            Ok(Self { name: name.to_owned(), key: key.to_owned() })
        } else {
            Err(SecretKeyError)
        }
    }
}

/// Whether Kubernetes allows a text as the name of a Secret.
pub(crate) fn is_secret_name(text: &str) -> bool {
    let is_part = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    is_text(text, is_part) && !text.starts_with(['-', '.']) && !text.ends_with(['-', '.'])
}

fn is_text(text: &str, is_part: fn(u8) -> bool) -> bool {
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    (1..=schemas::MAX_NAME_LENGTH).contains(&length) && text.bytes().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_a_secret_is_a_name_and_a_key() {
        let read: SecretKey = "nats.own/user.creds_1".parse().unwrap();
        assert_eq!((&*read.name, &*read.key), ("nats.own", "user.creds_1"));
        for bad in [
            "",
            "nats",
            "/key",
            "nats/",
            "Nats/key",
            "-nats/key",
            "nats./key",
            "nats/a/b",
            "nats/k y",
        ] {
            assert_eq!(bad.parse::<SecretKey>(), Err(SecretKeyError), "{bad}");
        }
    }
}
