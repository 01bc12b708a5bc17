//! How a program starts and stops.

use std::{io::IsTerminal, process::ExitCode};

use anyhow::Context;
use tokio::runtime::Builder;
use tracing::{info, warn};
use tracing_subscriber::{fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::{
    error, output,
    settings::{LogEncoding, LogSettings},
    shutdown::{FORCED_SHUTDOWN_TIMEOUT, Shutdown},
    signals::Signals,
};

/// Exit code for a setting that can't be used, the same as clap's.
const EXIT_USAGE: u8 = 2;

/// A setting that can't be used, in one line that names it. The program ends with exit code 2.
///
/// clap refuses a value that is not valid on its own; this error is for what is detected later.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// The number of threads that a program uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuntimeFlavor {
    /// As many as there are processors.
    MultiThread,
    /// One. It uses less memory, since the allocator reserves memory for each, and less processor
    /// time if its work is short (ADR 0032).
    CurrentThread,
}

// === impl RuntimeFlavor ===

impl RuntimeFlavor {
    fn builder(self) -> Builder {
        match self {
            Self::MultiThread => Builder::new_multi_thread(),
            Self::CurrentThread => Builder::new_current_thread(),
        }
    }
}

/// Runs a program: installs the TLS provider and the log, starts the runtime, and calls `main` with
/// the tokens that ask it to end.
///
/// An error is printed to stderr with its causes. Returns exit code 0, 1 after an error, or 2 after
/// a [`UsageError`].
pub fn run<F>(name: &'static str, log: &LogSettings, flavor: RuntimeFlavor, main: F) -> ExitCode
where
    F: AsyncFnOnce(Shutdown) -> anyhow::Result<()>,
{
    match try_run(name, log, flavor, main) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::print_error(&format!("{name}: {}", error::error_chain(error.as_ref())));
            if error.is::<UsageError>() { ExitCode::from(EXIT_USAGE) } else { ExitCode::FAILURE }
        }
    }
}

fn try_run<F>(
    name: &'static str,
    log: &LogSettings,
    flavor: RuntimeFlavor,
    main: F,
) -> anyhow::Result<()>
where
    F: AsyncFnOnce(Shutdown) -> anyhow::Result<()>,
{
    // An error means that it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    install_log(log)?;
    let runtime = flavor
        .builder()
        .enable_all()
        .build()
        .context("failed to start the threads of the runtime")?;
    let result = runtime.block_on(async {
        info!(version = crate::VERSION, "starting {name}");
        let mut signals = Signals::listen().context("signals can't be listened to")?;
        let shutdown = Shutdown::default();
        // Not awaited inside the macros: they evaluate nothing at a level that is not logged.
        let stop = async {
            let signal = signals.next().await;
            info!("{signal} received, shutting down");
            shutdown.graceful.cancel();
            let signal = signals.next().await;
            warn!("{signal} received again, stopping now");
            shutdown.forced.cancel();
            tokio::time::sleep(FORCED_SHUTDOWN_TIMEOUT).await;
        };
        tokio::select! {
            result = main(shutdown.clone()) => result,
            () = stop => anyhow::bail!("stopped by a second signal during shutdown"),
        }
    });
    // Does not wait for a DNS lookup that may hang in the system's resolver.
    runtime.shutdown_background();
    if result.is_ok() {
        info!("stopped");
    }
    result
}

/// Installs the log of a program that does not go through [`run`].
///
/// # Errors
///
/// A filter that is not valid, or a log that is installed already.
pub fn install_log(log: &LogSettings) -> anyhow::Result<()> {
    let filter = log.filter().map_err(|error| {
        UsageError(format!("RUST_LOG `{}` is not valid: {error}", log.log_filter))
    })?;
    let (filtered, lines) =
        (tracing_subscriber::registry().with(filter), fmt::layer().with_target(false));
    let installed = match log.log_encoding {
        LogEncoding::Console => {
            filtered.with(lines.with_ansi(std::io::stdout().is_terminal())).try_init()
        }
        LogEncoding::Json => {
            filtered.with(lines.json().flatten_event(true).with_current_span(false)).try_init()
        }
    };
    installed.map_err(|error| anyhow::anyhow!("the log can't be installed: {error}"))
}
