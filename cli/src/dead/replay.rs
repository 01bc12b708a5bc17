//! `kubectl aq dead replay`

use std::collections::HashSet;

use asyncqueue::{
    CallId,
    dead_letters::{DeadLetter, DeadLetterKind, DeadLetters, ReplayError, ReplayOutcome},
    directory::QueueEntry,
};
use asyncqueue_runtime::error::error_chain;
use clap::Args;
use futures::future::join_all;

use super::{KindChoice, Place, Which, count, name, say_missing};
use crate::{known, output, session::Session};

/// Maximum number of concurrent replays, each with its body and a few round trips.
const AT_ONCE: usize = 16;

/// Puts dead letters back on their queue
///
/// Each call runs again under its own id, its attempts counted from 1; a callback is delivered
/// again. Where both the call and its callback are dead letters, the call alone is replayed: it has
/// a new result, and its client would get the old one too. `--kind` chooses otherwise. The dead
/// letter is deleted when the queue has stored the call. A replay that was interrupted can be
/// repeated. A dead letter whose headers or body were left out, since they did not fit, is not
/// replayed.
#[derive(Args, Debug)]
#[command(
    override_usage = "kubectl aq dead replay [OPTIONS] <QUEUE> <CALL-ID...|--function NAME|--all>"
)]
#[command(after_help = "Examples:
  kubectl aq dead replay slow-queue 01234567-89ab-7cde-8f01-23456789abcd
  kubectl aq dead replay slow-queue order-7 --kind callback
  kubectl aq dead replay slow-queue --function figlet")]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,

    #[command(flatten)]
    which: Which,

    /// Only those of this kind; if not set: calls, and the callbacks of calls that are no dead
    /// letters
    #[arg(long, value_enum)]
    kind: Option<KindChoice>,
}

/// The outcomes of several replays.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    replayed: u64,
    failed: u64,
}

pub(super) async fn run(session: &Session, arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { place, which, kind } = arguments;
    let which = which.selection(place)?;
    let dead_letters = place.open(session).await?;
    let (letters, left) = choose(dead_letters.list(&which).await?, *kind);
    for letter in &left {
        output::note(&format!(
            "{}: left as it is, since its call is replayed: --kind callback delivers the old result",
            name(letter)
        ));
    }
    let failed = say_missing(place, &which, &letters, kind.unwrap_or(KindChoice::All));
    let mut tally = Tally { replayed: 0, failed };
    if !letters.is_empty() {
        let entry = entry(session, place, &letters).await?;
        replay(&dead_letters, &letters, &entry, &mut tally).await?;
    }
    output::print(&format!("{} replayed\n", count(tally.replayed)))?;
    match tally.failed {
        0 => Ok(()),
        failed => anyhow::bail!("{} could not be replayed, see above", count(failed)),
    }
}

/// Splits the letters into those to replay and those that are skipped. If no kind was chosen, a
/// callback is skipped if its call is replayed: a receiver that gets the old result would take it
/// for the new one.
fn choose(
    letters: Vec<DeadLetter>,
    kind: Option<KindChoice>,
) -> (Vec<DeadLetter>, Vec<DeadLetter>) {
    if let Some(kind) = kind {
        return (letters.into_iter().filter(|letter| kind.has(letter)).collect(), Vec::new());
    }
    let calls: HashSet<(CallId, Option<u64>)> = letters
        .iter()
        .filter(|letter| letter.kind == DeadLetterKind::Call)
        .map(|letter| (letter.call_id.clone(), call_sequence(letter)))
        .collect();
    letters.into_iter().partition(|letter| {
        letter.kind == DeadLetterKind::Call
            || !calls.contains(&(letter.call_id.clone(), call_sequence(letter)))
    })
}

/// Returns the sequence of the call of a dead letter, which distinguishes calls that share an id.
/// It is the sequence of the call's message or, for a result, the last token of the result's
/// subject.
fn call_sequence(letter: &DeadLetter) -> Option<u64> {
    let origin = letter.origin.as_ref()?;
    match letter.kind {
        DeadLetterKind::Call => Some(origin.sequence),
        DeadLetterKind::Callback => origin.subject.rsplit('.').next()?.parse().ok(),
    }
}

/// Returns the queue's entry, which says where its calls go. Callbacks alone do not need it.
async fn entry(
    session: &Session,
    place: &Place,
    letters: &[DeadLetter],
) -> anyhow::Result<QueueEntry> {
    if letters.iter().all(|letter| letter.kind == DeadLetterKind::Callback) {
        return Ok(QueueEntry::with_default_names(&place.queue));
    }
    known::entry(&session.js, &place.queue).await
}

/// Replays letters, several concurrently, and prints the outcome of each. Stops early if the queue
/// accepts no more.
async fn replay(
    dead_letters: &DeadLetters,
    letters: &[DeadLetter],
    entry: &QueueEntry,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let mut tried = 0;
    for chunk in letters.chunks(AT_ONCE) {
        let results = join_all(chunk.iter().map(|letter| dead_letters.replay(letter, entry))).await;
        tried += chunk.len();
        let mut stop = false;
        for (letter, result) in chunk.iter().zip(results) {
            stop |= result.as_ref().is_err_and(|error| !error.is_per_letter());
            report(letter, &result, tally)?;
        }
        if stop && tried < letters.len() {
            let rest = (letters.len() - tried) as u64;
            output::note(&format!("{} not tried, for the same reason", count(rest)));
            tally.failed += rest;
            break;
        }
    }
    Ok(())
}

fn report(
    letter: &DeadLetter,
    result: &Result<ReplayOutcome, ReplayError>,
    tally: &mut Tally,
) -> std::io::Result<()> {
    let name = name(letter);
    match result {
        Ok(replayed) => {
            tally.replayed += u64::from(*replayed != ReplayOutcome::NotFound);
            output::print(&format!("{name}: {}\n", words(*replayed)))
        }
        Err(error) => {
            tally.failed += 1;
            output::note(&format!("{name}: {}", error_chain(error)));
            Ok(())
        }
    }
}

fn words(replayed: ReplayOutcome) -> &'static str {
    match replayed {
        ReplayOutcome::Replayed => "replayed",
        ReplayOutcome::AlreadyReplayed => "was replayed before, its dead letter is deleted now",
        ReplayOutcome::NotFound => "is no dead letter any more",
    }
}

#[cfg(test)]
mod tests {
    use asyncqueue::dead_letters::{Omitted, Origin};

    use super::{super::samples::letter, *};

    /// Creates a dead letter of the call that was stored at this sequence.
    fn of_call(sequence: u64, kind: DeadLetterKind) -> DeadLetter {
        let origin = match kind {
            DeadLetterKind::Call => Origin { subject: "jobs.dev.figlet.a".to_owned(), sequence },
            DeadLetterKind::Callback => {
                Origin { subject: format!("jobs-callbacks.dev.figlet.a.{sequence}"), sequence: 7 }
            }
        };
        DeadLetter { origin: Some(origin), ..letter("a", kind) }
    }

    #[test]
    fn a_call_is_replayed_alone_unless_told_otherwise() {
        let (call, callback) =
            (of_call(1, DeadLetterKind::Call), of_call(1, DeadLetterKind::Callback));
        // Another call with the same id, of which only the callback is dead.
        let other = of_call(2, DeadLetterKind::Callback);
        let all = vec![call.clone(), callback.clone(), other.clone()];
        let chosen = |kind| choose(all.clone(), kind);
        assert_eq!(chosen(None), (vec![call.clone(), other.clone()], vec![callback.clone()]));
        assert_eq!(chosen(Some(KindChoice::Call)), (vec![call], Vec::new()));
        assert_eq!(chosen(Some(KindChoice::Callback)), (vec![callback, other], Vec::new()));
        assert_eq!(chosen(Some(KindChoice::All)), (all.clone(), Vec::new()));
    }

    #[test]
    fn what_somebody_else_replayed_is_not_counted_and_no_failure() {
        let (letter, mut tally) = (letter("a", DeadLetterKind::Call), Tally::default());
        report(&letter, &Ok(ReplayOutcome::Replayed), &mut tally).unwrap();
        report(&letter, &Ok(ReplayOutcome::AlreadyReplayed), &mut tally).unwrap();
        report(&letter, &Ok(ReplayOutcome::NotFound), &mut tally).unwrap();
        let incomplete = ReplayError::Incomplete(Omitted { headers: 0, body: 1 });
        report(&letter, &Err(incomplete), &mut tally).unwrap();
        assert_eq!(tally, Tally { replayed: 2, failed: 1 });
    }
}
