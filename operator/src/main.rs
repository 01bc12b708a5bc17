//! The operator, and its CRD.

use std::process::ExitCode;

use asyncqueue_operator::{Cli, Command, crd};
use asyncqueue_runtime::{
    arguments, output,
    program::{self, RuntimeFlavor},
};

fn main() -> ExitCode {
    let Cli { command, settings } = arguments::parse();
    let log = settings.log();
    match command {
        Some(Command::Crd) => match print_crd() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                output::print_error(&format!(
                    "asyncqueue-operator: failed to print the CRD: {error}"
                ));
                ExitCode::FAILURE
            }
        },
        None => program::run(
            "asyncqueue-operator",
            &log,
            RuntimeFlavor::CurrentThread,
            async |shutdown| {
                arguments::warn_of_misspelt_variables::<Cli>();
                Box::pin(asyncqueue_operator::run(settings, shutdown.graceful)).await
            },
        ),
    }
}

/// Prints the CRD. A reader that closes the output early is not an error.
fn print_crd() -> Result<(), Box<dyn std::error::Error>> {
    match output::print(&crd::yaml()?) {
        Err(error) if output::is_closed(&error) => Ok(()),
        printed => Ok(printed?),
    }
}
