//! `asyncqueue-gateway`: see `--help`.

use std::process::ExitCode;

use asyncqueue_gateway::settings::Settings;
use asyncqueue_runtime::program::{self, Threads};
use clap::Parser;

fn main() -> ExitCode {
    let settings = Settings::parse();
    let log = settings.log.clone();
    program::run("asyncqueue-gateway", &log, Threads::AllProcessors, async |shutdown| {
        asyncqueue_gateway::run(settings, shutdown.requested).await
    })
}
