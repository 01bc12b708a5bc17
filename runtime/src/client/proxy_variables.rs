//! The variables that name a proxy to other programs.
//!
//! They are not followed. A proxy would resolve the names of receivers itself, so that no address could be checked before a
//! callback goes there.

use tracing::warn;

/// As curl and Go know them, in both cases.
const NAMES: [&str; 3] = ["http_proxy", "https_proxy", "all_proxy"];

/// Warns of each variable that names a proxy and is not followed. `instead` says what is done.
pub fn warn_of_proxy_variables(instead: &str) {
    let variables =
        std::env::vars_os().map(|(name, value)| (name.to_string_lossy().into_owned(), !value.is_empty()));
    for name in ignored(variables) {
        // Not its value, which may hold credentials.
        warn!("{name} is set and not followed: {instead}");
    }
}

/// The variables that name a proxy. Each comes with whether it has a value.
fn ignored(variables: impl Iterator<Item = (String, bool)>) -> Vec<String> {
    let is_proxy = |name: &str| NAMES.iter().any(|proxy| proxy.eq_ignore_ascii_case(name));
    let mut names: Vec<_> =
        variables.filter(|(name, is_set)| *is_set && is_proxy(name)).map(|(name, _)| name).collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_name_a_proxy_are_found_in_both_cases() {
        let variables = [
            ("HTTPS_PROXY", true),
            ("http_proxy", true),
            ("ALL_PROXY", false),
            ("NO_PROXY", true),
            ("HTTP_PROXY_PORT", true),
        ];
        let variables = variables.map(|(name, is_set)| (name.to_owned(), is_set));
        assert_eq!(ignored(variables.into_iter()), ["HTTPS_PROXY", "http_proxy"]);
    }
}
