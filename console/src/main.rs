//! `asyncqueue-console`: see `--help`.

use std::process::ExitCode;

use asyncqueue_console::Settings;
use asyncqueue_runtime::{
    arguments,
    program::{self, RuntimeFlavor},
};

fn main() -> ExitCode {
    let settings: Settings = arguments::parse();
    let log = settings.log.clone();
    program::run("asyncqueue-console", &log, RuntimeFlavor::MultiThread, async |shutdown| {
        arguments::warn_of_misspelt_variables::<Settings>();
        asyncqueue_console::run(settings, shutdown.graceful).await
    })
}
