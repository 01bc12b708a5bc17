//! Runs a command to its end.

use std::{io, process::ExitCode};

use anyhow::Context;
use asyncqueue_runtime::{error, program::UsageError};

use crate::{
    args::{self, Cli, Command, NatsCommand},
    cluster::ClusterArgs,
    commands::{
        batch, cancel, check, completion, dead, drain, fairness, invoke, logs, purge, queue,
        queues, result, status, top,
    },
    exit::ResultError,
    output,
    session::Session,
};

/// Exit code for a command line that is not valid, the same as clap's.
const EXIT_USAGE: u8 = 2;

/// Runs the command. If it fails, prints the reason in one line.
pub(crate) fn run(cli: Cli) -> ExitCode {
    let Err(error) = try_run(cli) else { return ExitCode::SUCCESS };
    if !is_closed_output(&error) {
        output::print_error(&format!("kubectl aq: {}", error::error_chain(error.as_ref())));
    }
    match error.downcast_ref::<ResultError>() {
        Some(error) => ExitCode::from(error.code()),
        None if error.is::<UsageError>() => ExitCode::from(EXIT_USAGE),
        None => ExitCode::FAILURE,
    }
}

fn try_run(cli: Cli) -> anyhow::Result<()> {
    // An error means that it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let command = match cli.command {
        Command::OnNats(command) => command,
        Command::Completion(arguments) => return completion::run(&arguments, args::command()),
    };
    if let NatsCommand::Drain(command) = &*command {
        command.install_log()?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the runtime")?;
    let result = runtime.block_on(async {
        let session = Session::open(&cli.nats, &cli.cluster).await?;
        match run_on_nats(&session, &cli.cluster, *command).await {
            Err(error) if !is_result(&error) => Err(session.explain(error).await),
            ended => ended,
        }
    });
    // Does not wait for a DNS lookup that may hang in the system's resolver.
    runtime.shutdown_background();
    result
}

async fn run_on_nats(
    session: &Session,
    cluster: &ClusterArgs,
    command: NatsCommand,
) -> anyhow::Result<()> {
    match command {
        NatsCommand::Queues(arguments) => queues::run(session, &arguments).await,
        NatsCommand::Queue(arguments) => queue::run(session, cluster, &arguments).await,
        NatsCommand::Top(arguments) => top::run(session, &arguments).await,
        NatsCommand::Dead(command) => dead::run(session, command).await,
        NatsCommand::Invoke(arguments) => Box::pin(invoke::run(session, &arguments)).await,
        NatsCommand::Status(arguments) => status::run(session, &arguments).await,
        NatsCommand::Logs(arguments) => logs::run(session, cluster, &arguments).await,
        NatsCommand::Result(arguments) => result::run(session, &arguments).await,
        NatsCommand::Cancel(arguments) => cancel::run(session, &arguments).await,
        NatsCommand::Purge(arguments) => purge::run(session, &arguments).await,
        NatsCommand::Batch(arguments) => Box::pin(batch::run(session, &arguments)).await,
        NatsCommand::Check(arguments) => check::run(session, &arguments).await,
        NatsCommand::Fairness(arguments) => fairness::run(session, &arguments).await,
        NatsCommand::Drain(command) => Box::pin(drain::run(session, command)).await,
    }
}

/// Returns whether an error is not a failure, but what was asked for.
fn is_result(error: &anyhow::Error) -> bool {
    error.is::<ResultError>() || error.is::<UsageError>() || is_closed_output(error)
}

/// Returns whether the output could not be written because its reader has closed it.
fn is_closed_output(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
