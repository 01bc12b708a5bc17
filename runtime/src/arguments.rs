//! Reads a program's flags and environment variables. Errors name what the user has written.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
};

use clap::{
    Arg, ArgMatches, Command, CommandFactory, Error, FromArgMatches,
    error::{ContextKind, ContextValue},
};
use strsim::osa_distance;
use tracing::warn;

/// Minimum length of the names of settings that are compared: shorter ones resemble too many other
/// names.
const MIN_COMPARED_LENGTH: usize = 6;

/// Names with at least this length may differ by two edits from the name of a setting. Shorter ones
/// may differ by one.
const LONG_NAME_LENGTH: usize = 9;

/// An environment variable whose name resembles a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Misspelt {
    name: String,
    meant: String,
}

/// Parses the settings of a program. Exits the program if they are not valid, or if help is
/// requested.
#[must_use]
pub fn parse<T: CommandFactory + FromArgMatches>() -> T {
    let matches = matches(&T::command());
    T::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut T::command()).exit())
}

/// Parses the arguments of a command that was changed, like [`parse`].
#[must_use]
pub fn matches(command: &Command) -> ArgMatches {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    command.clone().try_get_matches_from(&arguments).unwrap_or_else(|error| {
        name_variable(error, command, &arguments, |name| std::env::var_os(name)).exit()
    })
}

/// Warns of environment variables that no setting has as its name, but whose names are so similar
/// to one that they are probably meant for it.
pub fn warn_of_misspelt_variables<T: CommandFactory>() {
    for Misspelt { name, meant } in misspelt(&T::command(), &variables()) {
        warn!("the environment variable {name} is not read: is {meant} meant?");
    }
}

/// Returns the variables whose names and values are valid Unicode.
fn variables() -> Vec<(String, String)> {
    let text = |text: OsString| text.into_string().ok();
    std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect()
}

/// Changes an error about a value to name the environment variable if the value came from it: clap
/// names the flag.
fn name_variable(
    mut error: Error,
    command: &Command,
    arguments: &[OsString],
    value_of: impl Fn(&str) -> Option<OsString>,
) -> Error {
    let Some(ContextValue::String(named)) = error.get(ContextKind::InvalidArg) else {
        return error;
    };
    let mut command = command.clone();
    // Until then, its arguments have no text.
    command.build();
    let is_named = |argument: &&Arg| argument.to_string() == *named;
    let Some(argument) = command.get_arguments().find(is_named) else { return error };
    let variable =
        argument.get_env().and_then(OsStr::to_str).filter(|name| value_of(name).is_some());
    let Some(variable) = variable.filter(|_| !is_given(argument, arguments)) else { return error };
    let named = format!("environment variable {variable}");
    error.insert(ContextKind::InvalidArg, ContextValue::String(named));
    error
}

/// Returns whether an argument is on the command line.
fn is_given(argument: &Arg, arguments: &[OsString]) -> bool {
    let Some(long) = argument.get_long() else { return false };
    let is_flag = |text: &str| {
        text.strip_prefix("--").is_some_and(|flag| flag.split('=').next() == Some(long))
    };
    arguments.iter().filter_map(|text| text.to_str()).any(is_flag)
}

/// Returns the variables whose names are similar to a setting that is not set itself.
fn misspelt(command: &Command, variables: &[(String, String)]) -> Vec<Misspelt> {
    let known: BTreeSet<&str> =
        command.get_arguments().filter_map(|argument| argument.get_env()?.to_str()).collect();
    let is_set = |name: &str| variables.iter().any(|(set, _)| set == name);
    let unset: Vec<&str> = known.iter().copied().filter(|name| !is_set(name)).collect();
    let unknown = variables
        .iter()
        .filter(|(name, value)| !known.contains(&**name) && !is_service_link(value));
    unknown
        .filter_map(|(name, _)| {
            let meant = unset.iter().find(|setting| is_similar(name, setting))?;
            Some(Misspelt { name: name.clone(), meant: (*meant).to_owned() })
        })
        .collect()
}

/// Returns whether a value has the form that Kubernetes gives to each pod for each Service:
/// `NATS_PORT=tcp://10.0.0.1:4222`.
fn is_service_link(value: &str) -> bool {
    value.starts_with("tcp://") || value.starts_with("udp://")
}

/// Returns whether a name differs from that of a setting only in its case, or in one or two
/// letters.
fn is_similar(name: &str, setting: &str) -> bool {
    let max_distance = if setting.len() >= LONG_NAME_LENGTH { 2 } else { 1 };
    let is_close = |a: &str, b: &str| osa_distance(a, b) <= max_distance;
    // An installation may have variables of its own that differ in one part of the name: POD_IP is
    // not POD_NAME.
    let has_same_first = |a: &str, b: &str| a.as_bytes().first() == b.as_bytes().first();
    let (name, setting) = (name.to_ascii_lowercase(), setting.to_ascii_lowercase());
    setting.len() >= MIN_COMPARED_LENGTH
        && has_same_first(&name, &setting)
        && is_close(&name, &setting)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::settings::{LogSettings, NatsSettings};

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        log: LogSettings,
        #[command(flatten)]
        nats: NatsSettings,
        #[arg(long, env = "gateway_url", default_value = "")]
        gateway_url: String,
        #[arg(long, env = "max_inflight", default_value_t = 1)]
        max_inflight: u16,
        #[arg(long, env = "HOSTNAME", default_value = "worker")]
        worker_name: String,
        #[arg(long, env = "POD_NAME", default_value = "")]
        pod_name: String,
        #[arg(long, env = "max_age", default_value = "")]
        max_age: String,
        #[arg(long, env = "http_addr", default_value = "")]
        http_addr: String,
    }

    fn found(variables: &[(&str, &str)]) -> Vec<String> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let variables: Vec<_> = variables.iter().map(owned).collect();
        let found = misspelt(&Program::command(), &variables).into_iter();
        found.map(|Misspelt { name, meant }| format!("{name} {meant}")).collect()
    }

    #[test]
    fn a_variable_near_to_a_setting_is_found() {
        for (name, meant) in [
            ("GATEWAY_ULR", "gateway_url"),
            ("gateway_ulr", "gateway_url"),
            ("GATEWAY_URL", "gateway_url"),
            ("max_infligth", "max_inflight"),
            ("maxinflight", "max_inflight"),
            ("nats_ulr", "nats_url"),
            ("NATS_URL", "nats_url"),
            ("log_encodign", "log_encoding"),
            ("RUST_LOGS", "RUST_LOG"),
        ] {
            assert_eq!(found(&[(name, "x")]), [format!("{name} {meant}")]);
        }
        // The setting itself is set, so that the other variable is for another program.
        assert!(found(&[("NATS_URL", "x"), ("nats_url", "x")]).is_empty());
    }

    #[test]
    fn the_usual_environment_is_no_false_alarm() {
        let usual = [
            ("PATH", "/usr/bin"),
            ("HOME", "/root"),
            ("HOST", "h"),
            ("HOSTTYPE", "x86_64"),
            ("LANG", "C"),
            ("LOGNAME", "u"),
            ("USER", "u"),
            ("SHELL", "/bin/sh"),
            ("TERM", "xterm"),
            ("PWD", "/"),
            ("OLDPWD", "/"),
            ("MAIL", "/var/mail/u"),
            ("PORT", "8080"),
            ("POD_IP", "10.0.0.1"),
            ("NODE_NAME", "n"),
            ("RUST_BACKTRACE", "1"),
            ("http_proxy", "http://p"),
            ("HTTP_PROXY", "http://p"),
            ("no_proxy", "h"),
            ("KUBERNETES_PORT", "tcp://10.96.0.1:443"),
            ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
            ("NATS_PORT", "tcp://10.0.0.1:4222"),
            ("NATS_SERVICE_HOST", "10.0.0.1"),
            ("NATS_SERVICE_PORT", "4222"),
            ("NATS_PORT_4222_TCP_PORT", "4222"),
            ("GATEWAY_PORT", "tcp://10.0.0.2:8080"),
            ("GATEWAY_SERVICE_PORT_HTTP", "8080"),
            ("INVOCATION_ID", "1"),
            ("JOURNAL_STREAM", "8:1"),
            ("MEMORY_PRESSURE_WATCH", "x"),
            ("function_url", "x"),
        ];
        assert_eq!(found(&usual), Vec::<String>::new());
    }

    #[test]
    fn a_bad_variable_is_named_and_not_a_flag() {
        let error = |arguments: &[&str], value: Option<&str>| {
            let arguments: Vec<OsString> =
                ["p"].iter().chain(arguments).map(OsString::from).collect();
            // As if the value came from the environment.
            let all = arguments
                .iter()
                .cloned()
                .chain(value.map(|v| format!("--max-inflight={v}").into()));
            let error = Program::command().try_get_matches_from(all).unwrap_err();
            let value = value.map(OsString::from);
            name_variable(error, &Program::command(), &arguments, |_| value.clone()).to_string()
        };
        let name_variable = error(&[], Some("many"));
        assert!(
            name_variable.contains("invalid value 'many' for 'environment variable max_inflight'"),
            "{name_variable}"
        );
        assert!(!name_variable.contains("--max-inflight"), "{name_variable}");
        let by_flag = error(&["--max-inflight=many"], None);
        assert!(by_flag.contains("--max-inflight"), "{by_flag}");
        let both = error(&["--max-inflight", "many"], None);
        assert!(both.contains("--max-inflight"), "{both}");
    }
}
