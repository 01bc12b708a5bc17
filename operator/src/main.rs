//! The operator, and its CRD.

use std::process::ExitCode;

use asyncqueue_operator::{Cli, Command, crd};
use asyncqueue_runtime::program::{self, Threads};
use clap::Parser;

fn main() -> ExitCode {
    let Cli { command, settings } = Cli::parse();
    let log = settings.log();
    match command {
        Some(Command::Crd) => match crd::yaml() {
            Ok(yaml) => {
                print!("{yaml}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("asyncqueue-operator: the CRD can't be written as YAML: {error}");
                ExitCode::FAILURE
            }
        },
        None => program::run("asyncqueue-operator", &log, Threads::One, async |shutdown| {
            Box::pin(asyncqueue_operator::run(settings, shutdown.requested)).await
        }),
    }
}
