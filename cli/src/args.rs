//! The command line.

use asyncqueue_runtime::settings::NatsSettings;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::{
    cluster::ClusterArgs,
    commands::{
        batch, cancel, check, completion, dead, drain, fairness, invoke, logs, purge, queue,
        queues, result, status, top,
    },
};

/// Calls functions, inspects the queues of AsyncQueue, cancels calls, replays dead letters, and
/// migrates queues of OpenFaaS
///
/// Connects only to NATS. From outside of the cluster it forwards a port to NATS, with the
/// permissions of your kubeconfig:
///
///     kubectl aq --namespace openfaas queues
///
/// To a NATS that you reach in another way:
///
///     kubectl aq --nats-url nats://127.0.0.1:4222 queues
///
/// Or in a pod of the gateway, which has the settings of NATS:
///
///     kubectl exec --namespace openfaas deploy/asyncqueue-gateway -- kubectl-aq queues
///
/// Exit codes: 0 success, 1 error, 2 invalid command line. `result` and `invoke` have more:
/// see their help.
#[derive(Debug, Parser)]
#[command(name = "kubectl-aq", bin_name = "kubectl aq", version, verbatim_doc_comment)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) nats: NatsSettings,

    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    OnNats(Box<NatsCommand>),
    Completion(completion::CompletionArgs),
}

/// A command that needs a connection to NATS.
#[derive(Debug, Subcommand)]
pub(crate) enum NatsCommand {
    Queues(queues::QueuesArgs),
    Queue(queue::QueueArgs),
    Top(top::TopArgs),
    #[command(subcommand)]
    Dead(dead::Command),
    Invoke(invoke::InvokeArgs),
    Status(status::StatusArgs),
    Logs(logs::LogsArgs),
    Result(result::ResultArgs),
    Cancel(cancel::CancelArgs),
    Purge(purge::PurgeArgs),
    Batch(batch::BatchArgs),
    Check(check::CheckArgs),
    Fairness(fairness::FairnessArgs),
    #[command(subcommand)]
    Drain(drain::Command),
}

/// Parses the command line. Exits if it is not valid or asks for help.
pub(crate) fn parse() -> Cli {
    let matches = asyncqueue_runtime::arguments::matches(&command());
    let mut cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    cli.cluster.note_sources(&matches);
    cli
}

/// Creates the parser. The options of NATS are accepted before and after a command, and `--help`
/// lists them after the options of the command.
pub(crate) fn command() -> clap::Command {
    Cli::command().mut_args(|argument| argument.global(true).help_heading("NATS"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Cli, clap::Error> {
        let matches = command().try_get_matches_from(line.split_whitespace())?;
        Cli::from_arg_matches(&matches)
    }

    #[test]
    fn command_definition_is_valid() {
        command().debug_assert();
    }

    #[test]
    fn nats_options_are_accepted_before_and_after_a_command() {
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
    fn dead_letters_are_selected_in_exactly_one_way() {
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
    fn one_selection_of_calls_is_cancelled() {
        let many = ["--function f", "--function f.dev jobs --yes", "--function f -", "--all jobs"];
        for good in [&["- a", "jobs a", "--batch b-1"][..], &many].concat() {
            read(&format!("aq cancel {good}")).unwrap();
        }
        let many = ["--all", "jobs --function f --all", "jobs a --all", "- a --yes", "jobs --yes"];
        let others = ["", "-", "jobs", "- a --batch b-1", "- --batch b-1", "--batch a.b"];
        for bad in [&others[..], &many].concat() {
            assert_eq!(read(&format!("aq cancel {bad}")).unwrap_err().exit_code(), 2, "{bad}");
        }
    }

    #[test]
    fn top_needs_an_interval_that_can_be_measured() {
        for good in ["", "--once", "--interval 100ms --limit 5", "--once -o json"] {
            read(&format!("aq top {good}")).unwrap();
        }
        for bad in ["--interval 0s", "--interval 99ms", "--interval 2", "--limit 0", "jobs"] {
            assert_eq!(read(&format!("aq top {bad}")).unwrap_err().exit_code(), 2, "{bad}");
        }
    }

    #[test]
    fn result_and_batch_need_an_id() {
        for good in
            ["result a", "result a --wait 30s -o json --queue jobs", "batch b", "batch b -o json"]
        {
            read(&format!("aq {good}")).unwrap();
        }
        for bad in ["result", "result a.b", "result a --wait 30", "result a -o table", "batch"] {
            assert_eq!(read(&format!("aq {bad}")).unwrap_err().exit_code(), 2, "{bad}");
        }
    }

    #[test]
    fn call_is_given_by_its_options() {
        for good in [
            "figlet.dev/p?q -d hi -H a:b --id a --delay 90s --keep-result 1h --wait 30s -o json",
            "figlet --file - --callback-url http://h --queue q --not-before 2026-12-24T18:00:00Z",
        ] {
            read(&format!("aq invoke {good}")).unwrap();
        }
        for bad in ["", "f -d a --file b", "f -H a", "f --wait 30", "f -o json", "f/#"] {
            assert_eq!(read(&format!("aq invoke {bad}")).unwrap_err().exit_code(), 2, "{bad}");
        }
        for good in ["--submit -", "b-1 --submit f --callback-url http://h --cancel-on-failure"] {
            read(&format!("aq batch {good}")).unwrap();
        }
        for bad in ["b-1 --cancel-on-failure", "b-1 --callback-url http://h", "--submit"] {
            assert_eq!(read(&format!("aq batch {bad}")).unwrap_err().exit_code(), 2, "{bad}");
        }
    }

    #[test]
    fn each_command_has_an_example() {
        fn leaf_commands(parent: &clap::Command) -> Vec<&clap::Command> {
            parent
                .get_subcommands()
                .flat_map(|command| match leaf_commands(command) {
                    below if below.is_empty() => vec![command],
                    below => below,
                })
                .collect()
        }
        for command in leaf_commands(&command()) {
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
