//! The worker of one queue.

use std::process::ExitCode;

use asyncqueue_runtime::program::{self, Threads};
use asyncqueue_worker::Settings;
use clap::Parser;

fn main() -> ExitCode {
    let settings = Settings::parse();
    program::run("asyncqueue-worker", &settings.log.clone(), Threads::AllProcessors, async |shutdown| {
        Box::pin(asyncqueue_worker::run(settings, shutdown)).await
    })
}
