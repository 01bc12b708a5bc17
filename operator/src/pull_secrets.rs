//! The Secrets with which the image of workers is pulled, as a setting names them.

use std::str::FromStr;

use k8s_openapi::api::core::v1::LocalObjectReference;

use crate::crd::secret::is_secret_name;

/// Names of Secrets, comma-separated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PullSecrets(Vec<String>);

/// A text that is not a valid name of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not the name of a Secret: write names of a-z, 0-9, - and dots, separated by commas, \
     as in registry,mirror"
)]
pub struct PullSecretsError(String);

// === impl PullSecrets ===

impl PullSecrets {
    /// Returns the names as a pod refers to them.
    pub(crate) fn references(&self) -> Vec<LocalObjectReference> {
        self.0.iter().map(|name| LocalObjectReference { name: name.clone() }).collect()
    }
}

impl FromStr for PullSecrets {
    type Err = PullSecretsError;

    fn from_str(text: &str) -> Result<Self, PullSecretsError> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        let read = names.map(|name| {
            is_secret_name(name)
                .then(|| name.to_owned())
                .ok_or_else(|| PullSecretsError(name.to_owned()))
        });
        read.collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_separated_by_commas() {
        let names = |text: &str| text.parse::<PullSecrets>().map(|secrets| secrets.0);
        assert_eq!(
            names("registry, mirror.example,"),
            Ok(vec!["registry".to_owned(), "mirror.example".to_owned()])
        );
        assert_eq!(names(""), Ok(Vec::new()));
        for bad in ["Registry", "registry/key", "registry;mirror", "-registry", "a b"] {
            assert_eq!(names(bad), Err(PullSecretsError(bad.to_owned())));
        }
    }
}
