//! Faults of all kinds under load, with the real programs: each scenario ends with the history of
//! its calls held against what the system promises ([`test_support::history::checker`]). `make
//! chaos` runs all of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod arguments;
mod broken;
mod faults;
mod replay;
mod rows;
mod run;
mod scenarios;
mod servers;
mod soak;
mod stage;
mod table;

use test_support::process;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let arguments = arguments::Arguments::parse(std::env::args().skip(1));
    process::unless_ended(run::run(arguments)).await
}
