//! Completes `kubectl aq` in kubectl's own completion.
//!
//! kubectl runs the program `kubectl_complete-aq`, which is a script that calls this program with
//! [`WORD`] and the words after `kubectl aq`; the last one is incomplete and may be empty. Each
//! line of the answer is a candidate, after a tab its description, and the last line a number:
//! <https://kubernetes.io/docs/tasks/extend-kubectl/kubectl-plugins/#shell-completion>.

use std::ffi::OsString;

use clap_complete::engine::{CompletionCandidate, complete};

/// The first argument for completion.
const WORD: &str = "__complete";

/// Do not offer files: `ShellCompDirectiveNoFileComp` of kubectl's library.
const NO_FILES: &str = ":4\n";

/// Returns the answer if these are arguments for completion, the program's name first.
pub(crate) fn answer(
    arguments: impl IntoIterator<Item = OsString>,
    mut command: clap::Command,
) -> Option<String> {
    let mut arguments = arguments.into_iter();
    let program = arguments.next()?;
    if arguments.next()? != WORD {
        return None;
    }
    let words: Vec<OsString> = std::iter::once(program).chain(arguments).collect();
    let last = words.len() - 1;
    // No candidates are better than an error in the middle of a command line.
    let candidates = complete(&mut command, words, last, None).unwrap_or_default();
    let shown = candidates.iter().filter(|candidate| !candidate.is_hide_set());
    Some(shown.map(line).chain([NO_FILES.to_owned()]).collect())
}

fn line(candidate: &CompletionCandidate) -> String {
    let value = candidate.get_value().to_string_lossy();
    let help = candidate.get_help().map(ToString::to_string).unwrap_or_default();
    match help.lines().next() {
        Some(help) => format!("{value}\t{help}\n"),
        None => format!("{value}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::command;

    /// Returns the values that are offered for these words.
    fn offered(words: &str) -> Vec<String> {
        let words = words.split(' ').map(OsString::from);
        let arguments = ["kubectl-aq", WORD].map(OsString::from).into_iter().chain(words);
        let answer = answer(arguments, command()).unwrap();
        let lines = answer.strip_suffix(NO_FILES).unwrap().lines();
        lines.map(|line| line.split('\t').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn commands_options_and_values_are_offered() {
        for (words, expected) in [
            ("que", &["queues"][..]),
            ("dead ", &["list", "show", "replay", "purge"]),
            ("dead pu", &["purge"]),
            ("queues --func", &["--functions"]),
            ("queues -o js", &["json"]),
            ("-n openfaas fair", &["fairness"]),
        ] {
            let offered = offered(words);
            for value in expected {
                assert!(
                    offered.iter().any(|offered| offered.ends_with(value)),
                    "{words}: {offered:?}"
                );
            }
        }
        assert!(offered("nothing-like-that").is_empty());
    }

    #[test]
    fn other_command_lines_are_not_completed() {
        for line in [&["kubectl-aq"][..], &["kubectl-aq", "queues"], &[]] {
            assert_eq!(answer(line.iter().map(OsString::from), command()), None);
        }
    }
}
