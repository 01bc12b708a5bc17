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

use super::{KindFilter, QueueArgs, SelectionArgs, count, label, print_missing};
use crate::{inventory, output, session::Session};

/// Maximum number of concurrent replays, each with its body and a few round trips.
const MAX_CONCURRENT_REPLAYS: usize = 16;

/// Puts dead letters back on their queue
///
/// A call runs again with the same id and all its attempts. A callback is delivered again. If both
/// a call and its callback are dead letters, only the call is replayed, because its client would
/// get the old result in addition to the new one; `--kind` overrides this. A dead letter is deleted
/// after the queue has stored the call. An interrupted replay can be repeated. Dead letters whose
/// headers or body were omitted because of their size can't be replayed.
#[derive(Args, Debug)]
#[command(
    override_usage = "kubectl aq dead replay [OPTIONS] <QUEUE> <CALL-ID...|--function NAME|--all>"
)]
#[command(after_help = "Examples:
  kubectl aq dead replay slow-queue 01234567-89ab-7cde-8f01-23456789abcd
  kubectl aq dead replay slow-queue order-7 --kind callback
  kubectl aq dead replay slow-queue --function figlet")]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    queue_args: QueueArgs,

    #[command(flatten)]
    selection: SelectionArgs,

    /// Only dead letters of this kind. Default: calls, and callbacks whose call is not a dead
    /// letter
    #[arg(long, value_enum)]
    kind: Option<KindFilter>,
}

/// The outcomes of several replays.
#[derive(Debug, Default, PartialEq, Eq)]
struct ReplayCounts {
    replayed: u64,
    failed: u64,
}

pub(super) async fn run(session: &Session, arguments: &ReplayArgs) -> anyhow::Result<()> {
    let ReplayArgs { queue_args, selection, kind } = arguments;
    let selection = selection.selection(queue_args)?;
    let dead_letters = queue_args.open(session).await?;
    let (letters, skipped) = choose(dead_letters.list(&selection).await?, *kind);
    for letter in &skipped {
        output::print_error(&format!(
            "{}: skipped, because its call is replayed; --kind callback delivers the old result",
            label(letter)
        ));
    }
    let failed = print_missing(queue_args, &selection, &letters, kind.unwrap_or(KindFilter::All));
    let mut counts = ReplayCounts { replayed: 0, failed };
    if !letters.is_empty() {
        let entry = entry(session, queue_args, &letters).await?;
        replay(&dead_letters, &letters, &entry, &mut counts).await?;
    }
    output::print(&format!("{} replayed\n", count(counts.replayed)))?;
    match counts.failed {
        0 => Ok(()),
        failed => anyhow::bail!("failed to replay {}, see above", count(failed)),
    }
}

/// Splits the letters into those to replay and those that are skipped. If no kind was chosen, a
/// callback is skipped if its call is replayed: a receiver that gets the old result would take it
/// for the new one.
fn choose(
    letters: Vec<DeadLetter>,
    kind: Option<KindFilter>,
) -> (Vec<DeadLetter>, Vec<DeadLetter>) {
    if let Some(kind) = kind {
        return (letters.into_iter().filter(|letter| kind.matches(letter)).collect(), Vec::new());
    }
    let calls: HashSet<(CallId, Option<u64>)> = letters
        .iter()
        .filter(|letter| letter.kind == DeadLetterKind::Call)
        .map(|letter| (letter.call_id.clone(), letter.call_sequence()))
        .collect();
    letters.into_iter().partition(|letter| {
        letter.kind == DeadLetterKind::Call
            || !calls.contains(&(letter.call_id.clone(), letter.call_sequence()))
    })
}

/// Returns the queue's entry, which says where its calls go. Callbacks alone do not need it.
async fn entry(
    session: &Session,
    queue_args: &QueueArgs,
    letters: &[DeadLetter],
) -> anyhow::Result<QueueEntry> {
    if letters.iter().all(|letter| letter.kind == DeadLetterKind::Callback) {
        return Ok(QueueEntry::with_default_names(&queue_args.queue));
    }
    inventory::queue_entry(&session.js, &queue_args.queue).await
}

/// Replays letters, several concurrently, and prints the outcome of each. Stops early if the queue
/// accepts no more.
async fn replay(
    dead_letters: &DeadLetters,
    letters: &[DeadLetter],
    entry: &QueueEntry,
    counts: &mut ReplayCounts,
) -> anyhow::Result<()> {
    let mut tried = 0;
    for chunk in letters.chunks(MAX_CONCURRENT_REPLAYS) {
        let results = join_all(chunk.iter().map(|letter| dead_letters.replay(letter, entry))).await;
        tried += chunk.len();
        let mut stop = false;
        for (letter, result) in chunk.iter().zip(results) {
            stop |= result.as_ref().is_err_and(|error| !error.is_per_letter());
            report(letter, &result, counts)?;
        }
        if stop && tried < letters.len() {
            let rest = (letters.len() - tried) as u64;
            output::print_error(&format!("{} skipped for the same reason", count(rest)));
            counts.failed += rest;
            break;
        }
    }
    Ok(())
}

fn report(
    letter: &DeadLetter,
    result: &Result<ReplayOutcome, ReplayError>,
    counts: &mut ReplayCounts,
) -> std::io::Result<()> {
    let label = label(letter);
    match result {
        Ok(replayed) => {
            counts.replayed += u64::from(*replayed != ReplayOutcome::NotFound);
            output::print(&format!("{label}: {}\n", describe_outcome(*replayed)))
        }
        Err(error) => {
            counts.failed += 1;
            output::print_error(&format!("{label}: {}", error_chain(error)));
            Ok(())
        }
    }
}

fn describe_outcome(replayed: ReplayOutcome) -> &'static str {
    match replayed {
        ReplayOutcome::Replayed => "replayed",
        ReplayOutcome::AlreadyReplayed => "already replayed; deleted its dead letter",
        ReplayOutcome::NotFound => "already replayed or deleted",
    }
}

#[cfg(test)]
mod tests {
    use asyncqueue::dead_letters::{Omitted, Origin};

    use super::{super::samples::letter, *};

    /// Creates a dead letter of the call that was stored at this sequence.
    fn letter_of_call(sequence: u64, kind: DeadLetterKind) -> DeadLetter {
        let origin = match kind {
            DeadLetterKind::Call => Origin { subject: "jobs.dev.figlet.a".to_owned(), sequence },
            DeadLetterKind::Callback => {
                Origin { subject: format!("jobs-callbacks.dev.figlet.a.{sequence}"), sequence: 7 }
            }
        };
        DeadLetter { origin: Some(origin), ..letter("a", kind) }
    }

    #[test]
    fn call_is_replayed_without_its_callback_by_default() {
        let (call, callback) =
            (letter_of_call(1, DeadLetterKind::Call), letter_of_call(1, DeadLetterKind::Callback));
        // Another call with the same id, of which only the callback is dead.
        let other = letter_of_call(2, DeadLetterKind::Callback);
        let all = vec![call.clone(), callback.clone(), other.clone()];
        let chosen = |kind| choose(all.clone(), kind);
        assert_eq!(chosen(None), (vec![call.clone(), other.clone()], vec![callback.clone()]));
        assert_eq!(chosen(Some(KindFilter::Call)), (vec![call], Vec::new()));
        assert_eq!(chosen(Some(KindFilter::Callback)), (vec![callback, other], Vec::new()));
        assert_eq!(chosen(Some(KindFilter::All)), (all.clone(), Vec::new()));
    }

    #[test]
    fn dead_letter_that_is_gone_is_not_counted() {
        let (letter, mut counts) = (letter("a", DeadLetterKind::Call), ReplayCounts::default());
        report(&letter, &Ok(ReplayOutcome::Replayed), &mut counts).unwrap();
        report(&letter, &Ok(ReplayOutcome::AlreadyReplayed), &mut counts).unwrap();
        report(&letter, &Ok(ReplayOutcome::NotFound), &mut counts).unwrap();
        let incomplete = ReplayError::Incomplete(Omitted { headers: 0, body: 1 });
        report(&letter, &Err(incomplete), &mut counts).unwrap();
        assert_eq!(counts, ReplayCounts { replayed: 2, failed: 1 });
    }
}
