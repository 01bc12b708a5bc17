//! Runs the worker of one queue.

use std::process::ExitCode;

use asyncqueue_runtime::{
    arguments,
    program::{self, RuntimeFlavor},
};
use asyncqueue_worker::Settings;

fn main() -> ExitCode {
    let settings: Settings = arguments::parse();
    program::run(
        "asyncqueue-worker",
        &settings.log.clone(),
        RuntimeFlavor::CurrentThread,
        async |shutdown| {
            arguments::warn_of_misspelt_variables::<Settings>();
            Box::pin(asyncqueue_worker::run(settings, shutdown)).await
        },
    )
}
