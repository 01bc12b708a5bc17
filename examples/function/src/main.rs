//! A small HTTP function that listens as OpenFaaS's functions do: see `--help`.

use std::process::ExitCode;

use asyncqueue_runtime::program::{self, RuntimeFlavor};
use clap::Parser;

mod attempts;
mod behaviour;
mod callbacks;
mod function;
mod settings;

fn main() -> ExitCode {
    let settings = settings::Settings::parse();
    let log = settings.log.clone();
    program::run(
        "asyncqueue-example-function",
        &log,
        RuntimeFlavor::MultiThread,
        async |shutdown| function::run(settings, shutdown.graceful).await,
    )
}
