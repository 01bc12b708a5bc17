//! The page docs/kubectl-aq.md, written from the command line itself.

use std::{collections::BTreeSet, fmt::Write};

use clap::Command;
use serde::Serialize;
use serde_json::{Value, to_value};
use test_support::documents::{assert_generated, quoted, read};

use crate::args;

const PAGE: &str = "docs/kubectl-aq.md";

/// What is on the page before the commands, up to this line, is written by hand.
const BEGIN: &str = "<!-- What follows is written by a test from `--help`. -->\n";

#[test]
fn kubectl_aq_reference() {
    let text = read(PAGE);
    let (intro, _) = text.split_once(BEGIN).expect("the line before the commands");
    let expected = format!("{intro}{BEGIN}{}", commands());
    assert_generated(PAGE, &expected, "--package=asyncqueue-cli kubectl_aq_reference");
}

/// Panics if the page does not have exactly the fields of these values in the row of `commands`,
/// which is written as on the page. Values differ where a field is optional.
pub(crate) fn assert_fields_documented<T: Serialize>(
    commands: &str,
    values: impl IntoIterator<Item = T>,
) {
    let page = read(PAGE);
    let start = format!("| {commands} | ");
    let row = page.lines().find_map(|line| line.strip_prefix(&start)).expect("a row of commands");
    let documented = quoted(row).into_iter().filter(|text| *text != "null").map(str::to_owned);
    let printed = values.into_iter().flat_map(|value| match to_value(value) {
        Ok(Value::Object(fields)) => fields.into_iter().map(|(name, _)| name),
        other => panic!("{commands} prints no object: {other:?}"),
    });
    assert_eq!(
        documented.collect::<BTreeSet<_>>(),
        printed.collect::<BTreeSet<_>>(),
        "{PAGE} does not have the fields of {commands}"
    );
}

/// Returns the options that all commands have, and a section of each command.
fn commands() -> String {
    // Values of the variables here are not those of a reader.
    let mut program = args::command().mut_args(|argument| argument.hide_env_values(true));
    program.build();
    let mut page = format!("\n## All commands\n\n{}", help(&mut program.clone()));
    add_commands(&mut page, &program);
    page
}

fn add_commands(page: &mut String, parent: &Command) {
    for command in parent.get_subcommands().filter(|command| command.get_name() != "help") {
        if command.has_subcommands() {
            add_commands(page, command);
            continue;
        }
        let name = command.get_bin_name().expect("the parser is built");
        // They are in the first section.
        let mut own = command.clone().mut_args(|argument| {
            let is_global = argument.is_global_set();
            argument.hide(is_global).hide_env_values(true)
        });
        writeln!(page, "\n## {name}\n\n{}", help(&mut own).trim_end()).expect("a text");
    }
}

/// Returns what `--help` prints, as a block of Markdown.
fn help(command: &mut Command) -> String {
    let help = command.render_long_help().to_string();
    let lines = help.lines().map(|line| format!("    {line}").trim_end().to_owned());
    lines.map(|line| line + "\n").collect()
}
