//! `kubectl aq dead list`

use asyncqueue::dead_letters::{DeadLetter, Selection};
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::{KindFilter, QueueArgs, kind_name};
use crate::{
    output::{self, Format, ListFormat},
    session::Session,
    table,
};

/// Lists the dead letters of a queue, oldest first
///
/// KIND is `call` or `callback`. STATUS is the last HTTP status of the function (for a callback: of
/// its receiver).
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kubectl aq dead list slow-queue --function figlet
  kubectl aq dead list slow-queue -o name")]
pub(crate) struct ListArgs {
    #[command(flatten)]
    queue_args: QueueArgs,

    /// Only dead letters of this function, NAME or NAME.NAMESPACE
    #[arg(long, value_name = "NAME")]
    function: Option<String>,

    /// Only dead letters of this kind
    #[arg(long, value_enum, default_value = "all")]
    kind: KindFilter,

    /// Output format. `name` prints the ids of the calls, each once
    #[arg(short, long, value_enum, default_value_t)]
    output: ListFormat,
}

/// A dead letter as JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    call_id: &'a str,
    function: Option<String>,
    kind: &'static str,
    reason: &'a str,
    attempts: u64,
    status: Option<u16>,
    died_at: Timestamp,
    worker: &'a str,
    size: usize,
    sequence: u64,
}

pub(super) async fn run(session: &Session, arguments: &ListArgs) -> anyhow::Result<()> {
    let ListArgs { queue_args, function, kind, output } = arguments;
    let selection = match function {
        Some(name) => Selection::Function(queue_args.function(name)?),
        None => Selection::All,
    };
    let mut letters = queue_args.open(session).await?.list(&selection).await?;
    letters.retain(|letter| kind.matches(letter));
    if letters.is_empty() && output.is_table() {
        output::print_error("no dead letters");
        return Ok(());
    }
    let items: Vec<_> = letters.iter().map(Item::from_dead_letter).collect();
    let name = |item: &Item<'_>| item.call_id.to_owned();
    output::print_list(*output, &items, name, |format| render(&letters, format))
}

impl<'a> Item<'a> {
    fn from_dead_letter(letter: &'a DeadLetter) -> Self {
        Self {
            call_id: letter.call_id.as_str(),
            function: letter.function.as_ref().map(ToString::to_string),
            kind: kind_name(letter.kind),
            reason: &letter.death.reason,
            attempts: letter.death.attempts,
            status: letter.death.status,
            died_at: letter.died_at,
            worker: &letter.worker,
            size: letter.size,
            sequence: letter.sequence,
        }
    }
}

/// Number of columns of a table that is not wide.
const COLUMNS: usize = 8;

fn render(letters: &[DeadLetter], format: Format) -> String {
    let heading = [
        "CALL ID", "FUNCTION", "KIND", "ATTEMPTS", "STATUS", "DIED AT", "SIZE", "REASON", "WORKER",
        "SEQUENCE",
    ];
    let cell_or_empty = |text: Option<String>| text.unwrap_or_else(|| table::EMPTY_CELL.to_owned());
    table::render_first(
        format.columns(COLUMNS),
        heading,
        letters.iter().map(|letter| {
            [
                letter.call_id.to_string(),
                cell_or_empty(letter.function.as_ref().map(ToString::to_string)),
                kind_name(letter.kind).to_owned(),
                letter.death.attempts.to_string(),
                cell_or_empty(letter.death.status.as_ref().map(ToString::to_string)),
                format!("{:.0}", letter.died_at),
                table::size(letter.size),
                letter.death.reason.clone(),
                letter.worker.clone(),
                letter.sequence.to_string(),
            ]
        }),
    )
}

#[cfg(test)]
mod tests {
    use asyncqueue::dead_letters::DeadLetterKind;

    use super::{super::samples::letter, *};
    use crate::reference::assert_fields_documented;

    #[test]
    fn dead_letter_is_one_line() {
        let mut unknown = letter("seq-3", DeadLetterKind::Call);
        (unknown.function, unknown.death.status) = (None, None);
        let letters = [letter("a", DeadLetterKind::Callback), unknown];
        let table = render(&letters, Format::Table);
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[0].starts_with("CALL ID   FUNCTION"), "{table}");
        assert_eq!(
            lines[1].split_whitespace().collect::<Vec<_>>()[..8],
            ["a", "figlet.dev", "callback", "3", "500", "2026-11-24T10:00:00Z", "2", "the"]
        );
        assert!(lines[2].contains(" -  "), "{table}");
        assert!(lines[2].ends_with("the function answered 500"), "{table}");
        let wide = render(&letters, Format::Wide);
        assert!(wide.lines().all(|line| line.ends_with("   7") || line.ends_with("SEQUENCE")));
    }

    #[test]
    fn json_fields_are_stable() {
        let letter = letter("a", DeadLetterKind::Call);
        let item = Item::from_dead_letter(&letter);
        assert_fields_documented("`dead list`", [&item]);
        assert_eq!(
            serde_json::to_string(&item).unwrap(),
            concat!(
                r#"{"callId":"a","function":"figlet.dev","kind":"call","#,
                r#""reason":"the function answered 500","attempts":3,"status":500,"#,
                r#""diedAt":"2026-11-24T10:00:00.5Z","worker":"w-1","size":2,"sequence":7}"#,
            )
        );
    }
}
