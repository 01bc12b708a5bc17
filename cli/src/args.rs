//! The command line.

use asyncqueue_runtime::settings::NatsSettings;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::commands::{cancel, dead, drain, queues, status};

/// Looks at the queues of AsyncQueue, brings dead letters back, cancels calls, and moves queues of
/// OpenFaaS
///
/// Talks to NATS alone, which is reached from outside of Kubernetes by
///
///     kubectl port-forward --namespace openfaas svc/nats 4222
///     kubectl aq --nats-url nats://127.0.0.1:4222 queues
///
/// or from inside of it, where the settings are there already, by
///
///     kubectl exec --namespace openfaas deploy/asyncqueue-gateway -- kubectl-aq queues
///
/// The exit code is 0, 1 after an error, or 2 where the command line is not valid.
#[derive(Debug, Parser)]
#[command(name = "kubectl-aq", bin_name = "kubectl aq", version, verbatim_doc_comment)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) nats: NatsSettings,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Queues(queues::Arguments),
    #[command(subcommand)]
    Dead(dead::Command),
    Status(status::Arguments),
    Cancel(cancel::Arguments),
    #[command(subcommand)]
    Drain(drain::Command),
}

/// Reads the command line; ends the program where it is not valid or asks for help.
pub(crate) fn parse() -> Arguments {
    let matches = asyncqueue_runtime::arguments::matches(&command());
    Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// How NATS is reached may be said before a command or after it, and helps below what is the
/// command's own.
fn command() -> clap::Command {
    Arguments::command().mut_args(|argument| argument.global(true).help_heading("NATS"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Arguments, clap::Error> {
        let matches = command().try_get_matches_from(line.split_whitespace())?;
        Arguments::from_arg_matches(&matches)
    }

    #[test]
    fn the_definition_holds_together() {
        command().debug_assert();
    }

    #[test]
    fn nats_is_named_before_a_command_or_after_it() {
        for line in
            ["aq --nats-url nats://h dead list jobs", "aq dead list jobs --nats-url nats://h"]
        {
            let arguments = read(line).unwrap();
            assert_eq!(
                arguments.nats.nats_url.as_ref().map(String::as_str),
                Some("nats://h"),
                "{line}"
            );
        }
    }

    #[test]
    fn dead_letters_are_named_in_one_way() {
        for good in ["a b", "--all", "--function figlet", "--function figlet.dev"] {
            for command in ["replay", "purge"] {
                read(&format!("aq dead {command} jobs {good}")).unwrap();
            }
        }
        for bad in ["", "a --all", "--all --function figlet", "a --function figlet", "a.b"] {
            for command in ["replay", "purge"] {
                assert_eq!(
                    read(&format!("aq dead {command} jobs {bad}")).unwrap_err().exit_code(),
                    2,
                    "{bad}"
                );
            }
        }
    }

    #[test]
    fn each_command_shows_an_example() {
        fn commands(of: &clap::Command) -> Vec<&clap::Command> {
            of.get_subcommands()
                .flat_map(|command| match commands(command) {
                    below if below.is_empty() => vec![command],
                    below => below,
                })
                .collect()
        }
        for command in commands(&command()) {
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let example = format!("{} ", command.get_name());
            assert!(
                after.contains("kubectl aq") && after.contains(example.trim_end()),
                "{}",
                command.get_name()
            );
        }
    }
}
