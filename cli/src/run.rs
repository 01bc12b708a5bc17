//! Runs a command to its end.

use std::{io, process::ExitCode};

use anyhow::Context;
use asyncqueue_runtime::{error, program::UsageError};

use crate::{
    args::{Cli, Command},
    commands::{batch, cancel, check, dead, drain, fairness, queues, result, status},
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
    if let Command::Drain(command) = &cli.command {
        command.install_log()?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the runtime")?;
    let result = runtime.block_on(async {
        let session = Session::open(&cli.nats, &cli.cluster).await?;
        match cli.command {
            Command::Queues(arguments) => queues::run(&session, &arguments).await,
            Command::Dead(command) => dead::run(&session, command).await,
            Command::Status(arguments) => status::run(&session, &arguments).await,
            Command::Result(arguments) => result::run(&session, &arguments).await,
            Command::Cancel(arguments) => cancel::run(&session, &arguments).await,
            Command::Batch(arguments) => batch::run(&session, &arguments).await,
            Command::Check(arguments) => check::run(&session, &arguments).await,
            Command::Fairness(arguments) => fairness::run(&session, &arguments).await,
            Command::Drain(command) => Box::pin(drain::run(&session, command)).await,
        }
    });
    // Does not wait for a DNS lookup that may hang in the system's resolver.
    runtime.shutdown_background();
    result
}

/// Returns whether the output could not be written because its reader has closed it.
fn is_closed_output(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
