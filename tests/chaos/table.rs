//! The table of what was seen.

use std::fmt::Write as _;

use test_support::history::checker::Tally;

/// What became of a scenario.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    pub(crate) tally: Tally,
    pub(crate) verdict: Verdict,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All promises were kept.
    Kept,
    /// The promise that a broken worker breaks was found broken.
    Found(String),
    /// It was not tried, for this reason.
    NotTried(&'static str),
    /// A promise was broken, or the scenario could not be played to its end.
    Failed(String),
}

const HEAD: [&str; 10] = [
    "fault",
    "202",
    "done",
    "dead",
    "cancelled",
    "expired",
    "re-run",
    "repeated",
    "lost",
    "verdict",
];

/// The outcomes as a table in Markdown, aligned.
pub(crate) fn of_outcomes(outcomes: &[Outcome]) -> String {
    let rows = outcomes.iter().map(|outcome| {
        let Tally { accepted, done, dead, cancelled, expired, rerun, repeated, lost } =
            outcome.tally;
        let counts = [accepted, done, dead, cancelled, expired, rerun, repeated, lost]
            .map(|count| count.to_string());
        let mut row = vec![outcome.name.to_owned()];
        row.extend(counts);
        row.push(match &outcome.verdict {
            Verdict::Kept => "kept".to_owned(),
            Verdict::Found(rule) => format!("found: {rule}"),
            Verdict::NotTried(reason) => format!("NOT TRIED: {reason}"),
            Verdict::Failed(_) => "FAILED".to_owned(),
        });
        row
    });
    aligned(&HEAD, &rows.collect::<Vec<_>>())
}

/// A table in Markdown whose columns are as wide as what is in them.
pub(crate) fn aligned(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        for (cell, width) in cells.zip(&widths) {
            // Writing to a string does not fail.
            let _ = write!(text, "| {cell:width$} ");
        }
        text.push_str("|\n");
    };
    line(&mut head.iter().copied());
    let rules: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    line(&mut rules.iter().map(String::as_str));
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    text
}
