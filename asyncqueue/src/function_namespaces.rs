//! The namespaces whose functions may be called.
//!
//! A function's URL follows from its name. Without a list, a client could therefore reach any
//! Service of the cluster through the gateway. A function may be called in each of these cases:
//!
//! - Its namespace is the one of functions that are named without a namespace.
//! - Its namespace is listed in a setting.
//! - Its namespace has a function in the directory.
//!
//! Some namespaces are never called, whatever the list says.

use std::{collections::BTreeSet, fmt, str::FromStr};

use crate::{
    NameError,
    directory::Directory,
    names::{FunctionName, parse_namespace},
};

/// Name of the setting that lists namespaces, in all programs.
pub const SETTING: &str = "function_namespaces";

/// The namespaces of Kubernetes itself.
const SYSTEM: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// The list entry that means all namespaces.
const ALL: &str = "*";

/// A list of namespaces as in a setting: names separated by commas, or `*` for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceList {
    has_all: bool,
    names: BTreeSet<String>,
}

/// The functions that may be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionNamespaces {
    default: String,
    listed: NamespaceList,
    platform: Option<String>,
}

/// The functions of a namespace are not called.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum NamespaceRefused {
    /// The namespace belongs to Kubernetes itself.
    #[error("functions in the namespace `{0}` are never called: it belongs to Kubernetes")]
    System(String),
    /// The programs of this project run in the namespace.
    #[error(
        "functions in the namespace `{0}` are never called: the gateway and the operator are in \
         it; deploy functions to another namespace"
    )]
    Platform(String),
    /// The namespace is not in the list.
    #[error("functions in the namespace `{0}` are not called: add it to the setting {SETTING}")]
    NotListed(String),
}

/// A text is not a list of namespaces.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NamespaceListError {
    /// A name is not valid.
    #[error("{0}, separated by commas; or {ALL} for all")]
    Name(#[from] NameError),
    /// A namespace is never called.
    #[error(transparent)]
    Refused(#[from] NamespaceRefused),
}

// === impl NamespaceList ===

impl NamespaceList {
    /// Returns whether the list is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.has_all && self.names.is_empty()
    }

    /// Adds namespaces, or `*` for all, to the list. Leaves out those that are never called.
    #[must_use]
    pub fn with<'a>(mut self, namespaces: impl IntoIterator<Item = &'a str>) -> Self {
        for namespace in namespaces {
            match namespace {
                ALL => self.has_all = true,
                name if check_system(name).is_err() => {}
                name => {
                    self.names.insert(name.to_owned());
                }
            }
        }
        self
    }

    /// Returns whether a namespace is in the list. Upper and lower case are the same, as in DNS.
    #[must_use]
    pub fn contains(&self, namespace: &str) -> bool {
        self.has_all || self.names.iter().any(|name| name.eq_ignore_ascii_case(namespace))
    }
}

impl FromStr for NamespaceList {
    type Err = NamespaceListError;

    fn from_str(text: &str) -> Result<Self, NamespaceListError> {
        let mut list = Self::default();
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            if name == ALL {
                list.has_all = true;
                continue;
            }
            let name = parse_namespace(name)?;
            check_system(&name)?;
            list.names.insert(name);
        }
        Ok(list)
    }
}

impl fmt::Display for NamespaceList {
    /// Writes the form that is read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.has_all.then_some(ALL);
        let names: Vec<&str> =
            all.into_iter().chain(self.names.iter().map(String::as_str)).collect();
        f.write_str(&names.join(","))
    }
}

// === impl FunctionNamespaces ===

impl FunctionNamespaces {
    /// Combines the settings. `default` is the namespace of functions that are named without one.
    /// `platform` is the one in which the gateway and the operator run, if it is known.
    ///
    /// # Errors
    ///
    /// Fails if `default` or a listed namespace is never called.
    pub fn new(
        default: String,
        listed: NamespaceList,
        platform: Option<String>,
    ) -> Result<Self, NamespaceRefused> {
        let namespaces = Self { default, listed, platform };
        let named = namespaces.listed.names.iter().chain([&namespaces.default]);
        named.into_iter().try_for_each(|namespace| namespaces.check_never(namespace))?;
        Ok(namespaces)
    }

    /// Returns the namespace of functions that are named without one.
    #[must_use]
    pub fn default_namespace(&self) -> &str {
        &self.default
    }

    /// Checks that a function may be called.
    ///
    /// # Errors
    ///
    /// Fails if the function's namespace is never called, or is not listed and has no functions in
    /// the directory.
    pub fn check(
        &self,
        function: &FunctionName,
        directory: Option<&Directory>,
    ) -> Result<(), NamespaceRefused> {
        let namespace = function.namespace();
        if namespace == self.default {
            return Ok(());
        }
        self.check_never(namespace)?;
        let has_functions = || {
            directory.is_some_and(|directory| {
                let mut known = directory.functions.keys();
                directory.functions.contains_key(function)
                    || known.any(|known| known.namespace().eq_ignore_ascii_case(namespace))
            })
        };
        let is_allowed = namespace.eq_ignore_ascii_case(&self.default)
            || self.listed.contains(namespace)
            || has_functions();
        if is_allowed { Ok(()) } else { Err(NamespaceRefused::NotListed(namespace.to_owned())) }
    }

    /// Checks that a namespace is not one that is never called. DNS does not distinguish upper case
    /// and lower case.
    ///
    /// # Errors
    ///
    /// Fails if the namespace is never called.
    pub fn check_never(&self, namespace: &str) -> Result<(), NamespaceRefused> {
        check_system(namespace)?;
        match &self.platform {
            Some(platform) if platform.eq_ignore_ascii_case(namespace) => {
                Err(NamespaceRefused::Platform(namespace.to_owned()))
            }
            _ => Ok(()),
        }
    }
}

/// Checks that a namespace is not one of Kubernetes itself.
///
/// # Errors
///
/// Fails if the namespace is one of Kubernetes itself.
pub fn check_system(namespace: &str) -> Result<(), NamespaceRefused> {
    if SYSTEM.iter().any(|system| system.eq_ignore_ascii_case(namespace)) {
        return Err(NamespaceRefused::System(namespace.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::directory::FunctionEntry;

    fn namespaces(listed: &str) -> FunctionNamespaces {
        let listed = listed.parse().unwrap();
        FunctionNamespaces::new("openfaas-fn".to_owned(), listed, Some("openfaas".to_owned()))
            .unwrap()
    }

    fn allows(namespaces: &FunctionNamespaces, name: &str) -> bool {
        let mut directory = Directory::default();
        let known = FunctionName::new("known", "team-a").unwrap();
        directory.functions.insert(known, FunctionEntry::default());
        let system = FunctionName::new("dns", "kube-system").unwrap();
        directory.functions.insert(system, FunctionEntry::default());
        let function = FunctionName::parse(name, "openfaas-fn").unwrap();
        namespaces.check(&function, Some(&directory)).is_ok()
    }

    #[test]
    fn listed_and_known_namespaces_are_called_and_no_others() {
        let listed = namespaces("dev, staging");
        for good in ["f", "f.OpenFaaS-fn", "f.dev", "f.STAGING", "known.team-a", "unknown.team-a"] {
            assert!(allows(&listed, good), "{good}");
        }
        for bad in ["f.monitoring", "f.openfaas", "f.OPENFAAS", "dns.kube-system", "f.Kube-Public"]
        {
            assert!(!allows(&listed, bad), "{bad}");
        }
        let function = FunctionName::new("known", "team-a").unwrap();
        let refused = listed.check(&function, None).unwrap_err().to_string();
        assert!(
            refused.contains("`team-a`") && refused.contains("function_namespaces"),
            "{refused}"
        );
    }

    #[test]
    fn all_namespaces_are_not_those_of_the_platform() {
        let all = namespaces("*");
        assert!(allows(&all, "f.monitoring"));
        for bad in
            ["f.openfaas", "f.kube-system", "f.KUBE-SYSTEM", "f.kube-public", "f.kube-node-lease"]
        {
            assert!(!allows(&all, bad), "{bad}");
        }
    }

    #[test]
    fn a_setting_that_names_the_platform_is_refused() {
        for bad in ["kube-system", "a,KUBE-PUBLIC", "a.b", "a b", "dev,**"] {
            assert!(bad.parse::<NamespaceList>().is_err(), "{bad}");
        }
        let new = |default: &str, listed: &str| {
            let platform = Some("openfaas".to_owned());
            FunctionNamespaces::new(default.to_owned(), listed.parse().unwrap(), platform)
        };
        assert!(new("openfaas-fn", "openfaas").is_err() && new("openfaas", "").is_err());
        assert!(new("kube-system", "").is_err());
        assert!(new("openfaas-fn", "").is_ok());
        assert!("".parse::<NamespaceList>().unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn a_list_is_read_as_it_is_printed(text in "[a-zA-Z0-9*, -]{0,40}") {
            let Ok(list) = text.parse::<NamespaceList>() else { return Ok(()) };
            prop_assert_eq!(list.to_string().parse::<NamespaceList>().unwrap(), list);
        }
    }
}
