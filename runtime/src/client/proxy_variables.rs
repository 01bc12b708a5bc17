//! The environment variables that name a proxy to other programs.
//!
//! They are ignored. A proxy would resolve the names of receivers itself, so that their addresses
//! could not be checked before a callback is sent.

use tracing::warn;

/// The names that curl and Go use, which may be in upper or lower case.
const NAMES: [&str; 3] = ["http_proxy", "https_proxy", "all_proxy"];

/// Warns of each variable that names a proxy and is ignored. `instead` says what the program does
/// instead.
pub fn warn_of_proxy_variables(instead: &str) {
    let variables = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), !value.is_empty()));
    for name in ignored(variables) {
        // Without the value, which may contain credentials.
        warn!("{name} is set and not followed: {instead}");
    }
}

/// Returns the names of the variables that name a proxy and are not empty. `variables` has each
/// name, and whether it has a value.
fn ignored(variables: impl Iterator<Item = (String, bool)>) -> Vec<String> {
    let is_proxy = |name: &str| NAMES.iter().any(|proxy| proxy.eq_ignore_ascii_case(name));
    let mut names: Vec<_> = variables
        .filter(|(name, is_set)| *is_set && is_proxy(name))
        .map(|(name, _)| name)
        .collect();
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
