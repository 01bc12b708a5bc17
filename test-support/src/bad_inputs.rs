//! Bad inputs at every door, and the answer of each. `docs/bad-inputs.md` shows these tables, and
//! tests run each row on real parts: `tests/nats/bad_inputs.rs`, and on the cluster
//! `tests/e2e/admission.rs`.
//!
//! `⟨300 x⟩` in a row stands for 300 times `x`.

use std::fmt::Write as _;

pub mod answers;
pub mod clients;
pub mod messages;
pub mod objects;
pub mod programs;
pub mod requests;

/// A test elsewhere, for what takes more than a row.
#[derive(Clone, Copy, Debug)]
pub struct Elsewhere {
    /// What comes in.
    pub input: &'static str,
    /// What comes of it.
    pub answer: &'static str,
    /// The folder of the test.
    pub folder: &'static str,
    /// Its name.
    pub test: &'static str,
}

/// All rows that a test elsewhere shows.
pub fn elsewhere() -> impl Iterator<Item = Elsewhere> {
    [
        requests::ELSEWHERE,
        messages::CALLS_ELSEWHERE,
        messages::RESULTS_ELSEWHERE,
        messages::ELSEWHERE,
        objects::ELSEWHERE,
        objects::FUNCTIONS_AND_SECRETS,
        programs::ELSEWHERE,
        programs::DIRECTORY_ELSEWHERE,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// A text in which `⟨300 x⟩` is written out.
#[must_use]
pub fn expand(text: &str) -> String {
    let mut parts = text.split('⟨');
    let mut expanded = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (repeated, rest) = part.split_once('⟩').expect("⟨ has its ⟩");
        let (times, what) = repeated.split_once(' ').expect("a number and a text");
        expanded += &what.repeat(times.parse().expect("a number"));
        expanded += rest;
    }
    expanded
}

/// The document.
#[must_use]
pub fn document() -> String {
    let mut text = String::from(HEAD);
    let mut section =
        |heading: &str, head: [&str; 2], rows: Vec<[String; 2]>, elsewhere: &[Elsewhere]| {
            write_section(&mut text, heading, head, rows, elsewhere);
        };
    section(
        "Requests to the gateway",
        ["request", "answer"],
        requests::rows(),
        requests::ELSEWHERE,
    );
    section("Odd clients of the gateway", ["a client sends", "answers"], clients::rows(), &[]);
    section(
        "Messages on the stream of a queue",
        ["message", "dead letter, whose reason says"],
        messages::call_rows(),
        messages::CALLS_ELSEWHERE,
    );
    section(
        "Messages on the stream of results, and callback URLs",
        ["message", "dead letter, whose reason says"],
        messages::result_rows(),
        messages::RESULTS_ELSEWHERE,
    );
    let _ = write!(text, "{ANSWERS}");
    for [answer, call, result, proxied] in answers::rows() {
        let _ = writeln!(text, "| {answer} | {call} | {result} | {proxied} |");
    }
    let mut section =
        |heading: &str, head: [&str; 2], rows: Vec<[String; 2]>, elsewhere: &[Elsewhere]| {
            write_section(&mut text, heading, head, rows, elsewhere);
        };
    section(
        "What else is on NATS",
        ["message or entry", "what comes of it"],
        vec![],
        messages::ELSEWHERE,
    );
    section(
        "AsyncQueues, at admission",
        ["`spec`", "refused, with the field and"],
        objects::rows(),
        objects::ELSEWHERE,
    );
    section(
        "Functions and Secrets",
        ["object", "what comes of it"],
        vec![],
        objects::FUNCTIONS_AND_SECRETS,
    );
    section(
        "Settings",
        ["setting", "the program ends, and says the setting and"],
        programs::setting_rows(),
        programs::ELSEWHERE,
    );
    section(
        "The directory file",
        ["file", "the gateway ends, and says"],
        programs::directory_rows(),
        programs::DIRECTORY_ELSEWHERE,
    );
    section(
        "kubectl aq",
        ["arguments", "exit code, and what it says"],
        programs::argument_rows(),
        &[],
    );
    text
}

fn write_section(
    text: &mut String,
    heading: &str,
    head: [&str; 2],
    rows: Vec<[String; 2]>,
    elsewhere: &[Elsewhere],
) {
    let of_tests = elsewhere.iter().map(|row| [row.input.to_owned(), row.answer.to_owned()]);
    // Writing to a string does not fail.
    let _ = write!(text, "\n## {heading}\n\n| {} | {} |\n|---|---|\n", head[0], head[1]);
    for [input, answer] in rows.into_iter().chain(of_tests) {
        let _ =
            writeln!(text, "| {} | {} |", input.replace('|', "\\|"), answer.replace('|', "\\|"));
    }
}

const ANSWERS: &str = "
## Answers of functions and receivers

What happens to a call whose function answers so, to a result whose receiver does, and the status
of `/function/NAME` through the gateway. `retried` and `tried again`: until the attempts are used
up. 503 stands for no answer or a part of one, 504 for one that does not end in time, 502 for one
that can't be read as HTTP: its function has run, and does not run again. Limits: a head of 256 KiB
and 100 headers.

| answer | the call | the result | the gateway |
|---|---|---|---|
";

const HEAD: &str = "\
# Bad inputs

For everyone who gets an error: how each part of AsyncQueue answers to input that it can't use. A
refusal names what is wrong, its value and the rule; of long ones a part is shown. `⟨300 x⟩` stands
for 300 times `x`. An answer without a text is that of the HTTP parser, before there is a request.

Tests run every row, nearly all of them on real programs, and compare this page with what they run.
";

/// A text as code in a table.
fn code(text: &str) -> String {
    if text.contains('`') { format!("`` {text} ``") } else { format!("`{text}`") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_shows_what_is_tested() {
        crate::documents::assert_generated(
            "docs/bad-inputs.md",
            &document(),
            "--package=test-support bad_inputs",
        );
    }

    #[test]
    fn a_number_of_times_is_written_out() {
        assert_eq!(expand("a⟨3 xy⟩b⟨2 z⟩"), "axyxyxybzz");
    }
}
