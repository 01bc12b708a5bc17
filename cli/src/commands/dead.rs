//! `kubectl aq dead`

use asyncqueue::{
    CallId, FunctionName, QueueName,
    dead_letters::{DeadLetter, DeadLetterKind, DeadLetters, Selection},
};
use asyncqueue_runtime::program::UsageError;
use clap::{Args, Subcommand, ValueEnum};

use crate::{output, session::Session};

mod list;
mod purge;
mod replay;
mod show;

/// Lists, shows, replays and deletes dead letters: calls and callbacks whose attempts are exhausted
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    List(list::ListArgs),
    Show(show::ShowArgs),
    Replay(replay::ReplayArgs),
    Purge(purge::PurgeArgs),
}

pub(crate) async fn run(session: &Session, command: Command) -> anyhow::Result<()> {
    match command {
        Command::List(arguments) => list::run(session, &arguments).await,
        Command::Show(arguments) => show::run(session, &arguments).await,
        Command::Replay(arguments) => replay::run(session, &arguments).await,
        Command::Purge(arguments) => purge::run(session, &arguments).await,
    }
}

/// The queue whose dead letters are meant.
#[derive(Args, Debug)]
struct QueueArgs {
    /// Name of the queue
    queue: QueueName,

    /// Namespace of functions that are named without one
    #[arg(long, env = "function_namespace", default_value = "openfaas-fn")]
    function_namespace: String,
}

/// The dead letters that a command selects.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct SelectionArgs {
    /// Ids of the calls
    #[arg(value_name = "CALL-ID")]
    calls: Vec<CallId>,

    /// Only dead letters of this function, NAME or NAME.NAMESPACE
    #[arg(long, value_name = "NAME")]
    function: Option<String>,

    /// All dead letters of the queue
    #[arg(long)]
    all: bool,
}

/// The kinds of dead letters that a command selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum KindFilter {
    /// Calls whose attempts are exhausted
    Call,
    /// Callbacks whose attempts are exhausted
    Callback,
    /// Both
    All,
}

// === impl QueueArgs ===

impl QueueArgs {
    async fn open(&self, session: &Session) -> anyhow::Result<DeadLetters> {
        Ok(DeadLetters::open(&session.js, &self.queue, self.function_namespace.as_str()).await?)
    }

    fn function(&self, name: &str) -> Result<FunctionName, UsageError> {
        FunctionName::parse(name, &self.function_namespace)
            .map_err(|error| UsageError(error.to_string()))
    }
}

// === impl SelectionArgs ===

impl SelectionArgs {
    fn selection(&self, queue_args: &QueueArgs) -> Result<Selection, UsageError> {
        match &self.function {
            Some(name) => Ok(Selection::Function(queue_args.function(name)?)),
            None if self.all => Ok(Selection::All),
            None => Ok(Selection::Calls(self.calls.clone())),
        }
    }
}

// === impl KindFilter ===

impl KindFilter {
    fn matches(self, letter: &DeadLetter) -> bool {
        match self {
            Self::Call => letter.kind == DeadLetterKind::Call,
            Self::Callback => letter.kind == DeadLetterKind::Callback,
            Self::All => true,
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Self::Call => "dead call",
            Self::Callback => "dead callback",
            Self::All => "dead letter",
        }
    }
}

/// Returns the calls that were requested by id and have no dead letter.
fn missing<'a>(selection: &'a Selection, letters: &[DeadLetter]) -> Vec<&'a CallId> {
    match selection {
        Selection::Calls(calls) => calls
            .iter()
            .filter(|call| letters.iter().all(|letter| letter.call_id != **call))
            .collect(),
        Selection::All | Selection::Function(_) => Vec::new(),
    }
}

/// Prints for each call that was requested by id that it has no dead letter of this kind, if so.
/// Returns the number of these calls.
fn print_missing(
    queue_args: &QueueArgs,
    selection: &Selection,
    letters: &[DeadLetter],
    kind: KindFilter,
) -> u64 {
    let missing = missing(selection, letters);
    for call in &missing {
        output::print_error(&no_dead_letter(queue_args, call, kind));
    }
    missing.len() as u64
}

/// Returns a message that a call has no dead letter, and how to list those that exist.
fn no_dead_letter(queue_args: &QueueArgs, call: &CallId, kind: KindFilter) -> String {
    let (queue, what) = (&queue_args.queue, kind.noun());
    format!(
        "queue `{queue}` has no {what} of call `{call}`: `kubectl aq dead list {queue}` lists all"
    )
}

fn kind_name(kind: DeadLetterKind) -> &'static str {
    match kind {
        DeadLetterKind::Call => "call",
        DeadLetterKind::Callback => "callback",
    }
}

/// Describes a dead letter in one line: its call, and its kind.
fn label(letter: &DeadLetter) -> String {
    let function =
        letter.function.as_ref().map(|function| format!(" {function}")).unwrap_or_default();
    match letter.kind {
        DeadLetterKind::Call => format!("{}{function}", letter.call_id),
        DeadLetterKind::Callback => format!("{}{function} (callback)", letter.call_id),
    }
}

/// Formats a number: `1 dead letter`, `2 dead letters`.
fn count(letters: u64) -> String {
    format!("{letters} dead letter{}", if letters == 1 { "" } else { "s" })
}

/// Sample dead letters for the tests of all commands.
#[cfg(test)]
mod samples {
    use asyncqueue::dead_letters::{DeathInfo, Omitted};

    use super::*;

    pub(super) fn letter(call_id: &str, kind: DeadLetterKind) -> DeadLetter {
        DeadLetter {
            sequence: 7,
            kind,
            call_id: call_id.parse().unwrap(),
            function: Some(FunctionName::new("figlet", "dev").unwrap()),
            death: DeathInfo {
                reason: "the function answered 500".into(),
                attempts: 3,
                status: Some(500),
            },
            died_at: "2026-11-24T10:00:00.5Z".parse().unwrap(),
            worker: "w-1".to_owned(),
            size: 2,
            origin: None,
            omitted: Omitted::default(),
            unreadable: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{samples::letter, *};

    #[test]
    fn call_without_dead_letter_is_missing_if_selected_by_id() {
        let letters = [letter("a", DeadLetterKind::Call)];
        let calls = Selection::Calls(["a", "b"].map(|id| id.parse().unwrap()).into());
        assert_eq!(missing(&calls, &letters), [&"b".parse().unwrap()]);
        assert!(missing(&Selection::All, &letters).is_empty());
    }

    #[test]
    fn dead_letters_have_labels_and_counts() {
        assert_eq!(label(&letter("a", DeadLetterKind::Call)), "a figlet.dev");
        assert_eq!(label(&letter("a", DeadLetterKind::Callback)), "a figlet.dev (callback)");
        assert_eq!([0, 1, 2].map(count), ["0 dead letters", "1 dead letter", "2 dead letters"]);
    }
}
