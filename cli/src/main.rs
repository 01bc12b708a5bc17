//! `kubectl aq`: see `--help`.

use std::process::ExitCode;

mod args;
mod cluster;
mod commands;
mod exit;
mod inventory;
mod kept_result;
mod lookup;
mod output;
mod run;
mod session;
mod table;

fn main() -> ExitCode {
    run::run(args::parse())
}
