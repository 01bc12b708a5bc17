//! `kubectl aq drain`

use asyncqueue_runtime::{program, settings::LogSettings};
use clap::{Args, Subcommand};

use crate::{routing::RoutingArgs, session::Session};

mod counts;
mod dead_letter;
mod destination;
mod identity;
mod jetstream;
mod records;
mod resubmission;
mod retry;
mod source;
mod stan;
mod transfer;
mod transfer_loop;

/// Moves the messages of an OpenFaaS queue to queues of AsyncQueue
///
/// Each message is stored by AsyncQueue before it is acknowledged at its source. An interrupted
/// drain can be run again at any time: no message is stored twice.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Stan(stan::StanArgs),
    Jetstream(jetstream::JetstreamArgs),
}

/// The options of both sources.
#[derive(Args, Debug)]
struct Common {
    #[command(flatten)]
    routing: RoutingArgs,

    /// Keep running when the source is empty, until SIGINT or SIGTERM
    #[arg(long)]
    follow: bool,

    /// Maximum number of messages that are moved at the same time, from 1 to 10000. Each takes
    /// three times its size in memory
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    max_inflight: u16,

    #[command(flatten)]
    log: LogSettings,
}

// === impl Command ===

impl Command {
    /// Installs the log: a drain runs for minutes, or for as long as a Job does.
    pub(crate) fn install_log(&self) -> anyhow::Result<()> {
        program::install_log(&self.common().log)
    }

    fn common(&self) -> &Common {
        match self {
            Self::Stan(arguments) => &arguments.common,
            Self::Jetstream(arguments) => &arguments.common,
        }
    }
}

pub(crate) async fn run(session: &Session, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Stan(arguments) => Box::pin(stan::run(session, &arguments)).await,
        Command::Jetstream(arguments) => Box::pin(jetstream::run(session, &arguments)).await,
    }
}
