//! `kubectl aq dead replay`

use asyncqueue::{
    dead_letters::{DeadLetters, ReplayError, Replayed},
    directory::QueueEntry,
    message::dead_letter::{DeadLetter, Kind},
};
use asyncqueue_runtime::error::describe;
use clap::Args;
use futures::future::join_all;

use super::{Place, Which, count, name, say_missing};
use crate::{known, output, session::Session};

/// Dead letters that are replayed at once, each with its body and a few round trips.
const AT_ONCE: usize = 16;

/// Puts dead letters back on their queue
///
/// Each call runs again under its own id, its attempts counted anew; a callback is delivered again. The dead letter is
/// deleted when the queue has stored the call. A replay that was interrupted can be repeated. A dead letter whose
/// headers or body were left out, since they did not fit, is not replayed.
#[derive(Args, Debug)]
#[command(override_usage = "kubectl aq dead replay [OPTIONS] <QUEUE> <CALL-ID...|--function NAME|--all>")]
#[command(after_help = "Examples:
  kubectl aq dead replay slow-queue 01234567-89ab-7cde-8f01-23456789abcd
  kubectl aq dead replay slow-queue --function figlet")]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,

    #[command(flatten)]
    which: Which,
}

/// What became of some replays.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    replayed: u64,
    failed: u64,
}

pub(super) async fn run(session: &Session, arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { place, which } = arguments;
    let which = which.selection(place)?;
    let dead_letters = place.open(session).await?;
    let letters = dead_letters.list(&which).await?;
    let mut tally = Tally { replayed: 0, failed: say_missing(place, &which, &letters) };
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

/// Where calls of the queue go. Callbacks alone need no such place.
async fn entry(session: &Session, place: &Place, letters: &[DeadLetter]) -> anyhow::Result<QueueEntry> {
    if letters.iter().all(|letter| letter.kind == Kind::Callback) {
        return Ok(QueueEntry::named(&place.queue));
    }
    known::entry(&session.js, &place.queue).await
}

/// Replays letters, some at once, and says of each what became of it. Ends early where the queue takes no more.
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
            stop |= result.as_ref().is_err_and(|error| !error.is_of_this_letter());
            report(letter, &result, tally)?;
        }
        if stop && tried < letters.len() {
            let rest = (letters.len() - tried) as u64;
            eprintln!("{} not tried, for the same reason", count(rest));
            tally.failed += rest;
            break;
        }
    }
    Ok(())
}

fn report(
    letter: &DeadLetter,
    result: &Result<Replayed, ReplayError>,
    tally: &mut Tally,
) -> std::io::Result<()> {
    let name = name(letter);
    match result {
        Ok(replayed) => {
            tally.replayed += u64::from(*replayed != Replayed::Gone);
            output::print(&format!("{name}: {}\n", words(*replayed)))
        }
        Err(error) => {
            tally.failed += 1;
            eprintln!("{name}: {}", describe(error));
            Ok(())
        }
    }
}

fn words(replayed: Replayed) -> &'static str {
    match replayed {
        Replayed::Now => "replayed",
        Replayed::Before => "was replayed before, its dead letter is deleted now",
        Replayed::Gone => "is no dead letter any more",
    }
}

#[cfg(test)]
mod tests {
    use asyncqueue::message::dead_letter::Omitted;

    use super::{super::samples::letter, *};

    #[test]
    fn what_somebody_else_replayed_is_not_counted_and_no_failure() {
        let (letter, mut tally) = (letter("a", Kind::Call), Tally::default());
        report(&letter, &Ok(Replayed::Now), &mut tally).unwrap();
        report(&letter, &Ok(Replayed::Before), &mut tally).unwrap();
        report(&letter, &Ok(Replayed::Gone), &mut tally).unwrap();
        let incomplete = ReplayError::Incomplete(Omitted { headers: 0, body: 1 });
        report(&letter, &Err(incomplete), &mut tally).unwrap();
        assert_eq!(tally, Tally { replayed: 2, failed: 1 });
    }
}
