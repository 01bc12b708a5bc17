//! `kubectl aq`: see `--help`.

use std::process::ExitCode;

mod args;
mod cluster;
mod commands;
mod diagnose;
mod exit;
mod input;
mod inventory;
mod kept_result;
mod kubectl_completion;
mod lookup;
mod output;
#[cfg(test)]
mod reference;
mod routing;
mod run;
mod session;
mod table;

fn main() -> ExitCode {
    if let Some(answer) = kubectl_completion::answer(std::env::args_os(), args::command()) {
        return output::print(&answer).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    run::run(args::parse())
}
