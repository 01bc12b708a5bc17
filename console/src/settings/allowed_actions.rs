//! The setting `actions`.

use std::str::FromStr;

use asyncqueue::{FunctionName, function_namespaces::NamespaceList};
use asyncqueue_runtime::settings::parse_bool;

/// Words for a switch that could be taken for namespaces.
const OTHER_WORDS: [&str; 4] = ["yes", "no", "on", "off"];

/// Whose calls users may cancel, replay and delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AllowedActions {
    /// Those of no function: the console only shows.
    #[default]
    None,
    /// Those of all functions.
    All,
    /// Those of the functions in these namespaces.
    Namespaces(NamespaceList),
}

// === impl AllowedActions ===

impl AllowedActions {
    /// Returns whether no action is allowed.
    pub(crate) fn is_off(&self) -> bool {
        *self == Self::None
    }

    /// Returns whether actions on calls of a function are allowed. The function of some dead
    /// letters is not known.
    pub(crate) fn permits(&self, function: Option<&FunctionName>) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Namespaces(list) => {
                function.is_some_and(|function| list.contains(function.namespace()))
            }
        }
    }
}

impl FromStr for AllowedActions {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match parse_bool(text) {
            Ok(true) => return Ok(Self::All),
            Ok(false) => return Ok(Self::None),
            Err(_) => {}
        }
        let refused = |why: &str| format!("{why}; use true, false or a list of namespaces");
        if OTHER_WORDS.contains(&&*text.to_ascii_lowercase()) {
            return Err(refused(&format!("`{text}` is not a namespace")));
        }
        let list: NamespaceList = text.parse().map_err(|error| refused(&format!("{error}")))?;
        if list.is_empty() {
            return Err(refused("the list has no namespace"));
        }
        Ok(Self::Namespaces(list))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> AllowedActions {
        text.parse().unwrap()
    }

    fn permits(setting: &str, namespace: &str) -> bool {
        parse(setting).permits(Some(&FunctionName::new("figlet", namespace).unwrap()))
    }

    #[test]
    fn actions_are_off_on_or_limited_to_namespaces() {
        for off in ["false", "0", ""] {
            assert!(parse(off).is_off() && !permits(off, "dev"), "{off}");
        }
        assert!(permits("true", "dev") && permits("TRUE", "dev") && permits("1", "dev"));
        assert!(permits("dev, test", "test") && permits("dev", "DEV") && !permits("dev", "test"));
        assert!(permits("*", "dev"));
        assert!(!parse("dev").is_off());
    }

    #[test]
    fn letter_without_a_function_needs_all() {
        assert!(parse("true").permits(None));
        assert!(!parse("dev").permits(None) && !parse("false").permits(None));
    }

    #[test]
    fn what_is_no_list_is_refused_with_the_rule() {
        for bad in ["yes", "On", "off", "a b", "kube-system", ","] {
            let error = bad.parse::<AllowedActions>().unwrap_err();
            assert!(error.ends_with("use true, false or a list of namespaces"), "{bad}: {error}");
        }
    }
}
