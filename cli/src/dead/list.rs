//! `kubectl aq dead list`

use asyncqueue::dead_letters::{DeadLetter, Selection};
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::{KindChoice, Place, kind};
use crate::{
    output::{self, Format},
    session::Session,
    table,
};

/// Lists the dead letters of a queue, oldest first
///
/// KIND is a call that was given up, or a callback that its receiver did not take. STATUS is the
/// last that the function (or, of a callback, the receiver) answered.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  kubectl aq dead list slow-queue --function figlet")]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,

    /// Only those of this function, NAME or NAME.NAMESPACE
    #[arg(long, value_name = "NAME")]
    function: Option<String>,

    /// Only those of this kind
    #[arg(long, value_enum, default_value = "all")]
    kind: KindChoice,

    /// Form of the list
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// A dead letter, for programs.
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

pub(super) async fn run(session: &Session, arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { place, function, kind, output } = arguments;
    let which = match function {
        Some(name) => Selection::Function(place.function(name)?),
        None => Selection::All,
    };
    let mut letters = place.open(session).await?.list(&which).await?;
    letters.retain(|letter| kind.has(letter));
    match output {
        Format::Table if letters.is_empty() => output::note("no dead letters"),
        Format::Table => output::print(&render(&letters))?,
        Format::Json => output::print_json(&letters.iter().map(Item::of).collect::<Vec<_>>())?,
    }
    Ok(())
}

impl<'a> Item<'a> {
    fn of(letter: &'a DeadLetter) -> Self {
        Self {
            call_id: letter.call_id.as_str(),
            function: letter.function.as_ref().map(ToString::to_string),
            kind: kind(letter.kind),
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

fn render(letters: &[DeadLetter]) -> String {
    let heading =
        ["CALL ID", "FUNCTION", "KIND", "ATTEMPTS", "STATUS", "DIED AT", "SIZE", "REASON"];
    let or_nothing = |text: Option<String>| text.unwrap_or_else(|| table::NOTHING.to_owned());
    table::render(
        heading,
        letters.iter().map(|letter| {
            [
                letter.call_id.to_string(),
                or_nothing(letter.function.as_ref().map(ToString::to_string)),
                kind(letter.kind).to_owned(),
                letter.death.attempts.to_string(),
                or_nothing(letter.death.status.as_ref().map(ToString::to_string)),
                format!("{:.0}", letter.died_at),
                table::size(letter.size),
                letter.death.reason.clone(),
            ]
        }),
    )
}

#[cfg(test)]
mod tests {
    use asyncqueue::dead_letters::DeadLetterKind;

    use super::{super::samples::letter, *};

    #[test]
    fn a_letter_is_a_line() {
        let mut unknown = letter("seq-3", DeadLetterKind::Call);
        (unknown.function, unknown.death.status) = (None, None);
        let table = render(&[letter("a", DeadLetterKind::Callback), unknown]);
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[0].starts_with("CALL ID   FUNCTION"), "{table}");
        assert_eq!(
            lines[1].split_whitespace().collect::<Vec<_>>()[..8],
            ["a", "figlet.dev", "callback", "3", "500", "2026-11-24T10:00:00Z", "2", "the"]
        );
        assert!(lines[2].contains(" -  "), "{table}");
        assert!(lines[2].ends_with("the function answered 500"), "{table}");
    }

    #[test]
    fn what_programs_read_is_a_contract() {
        assert_eq!(
            serde_json::to_string(&Item::of(&letter("a", DeadLetterKind::Call))).unwrap(),
            r#"{"callId":"a","function":"figlet.dev","kind":"call","reason":"the function answered 500","attempts":3,"status":500,"diedAt":"2026-11-24T10:00:00.5Z","worker":"w-1","size":2,"sequence":7}"#
        );
    }
}
