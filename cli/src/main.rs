//! `kubectl aq`: see `--help`.

use std::process::ExitCode;

mod arguments;
mod cancel;
mod dead;
mod drain;
mod find;
mod known;
mod output;
mod queues;
mod run;
mod session;
mod status;
mod table;

fn main() -> ExitCode {
    run::run(arguments::parse())
}
