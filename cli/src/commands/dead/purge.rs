//! `kubectl aq dead purge`

use asyncqueue::dead_letters::Selection;
use asyncqueue_runtime::program::UsageError;
use clap::Args;
use futures::{StreamExt, TryStreamExt, stream};

use super::{KindChoice, Place, Which, count, say_missing};
use crate::{output, session::Session};

/// Maximum number of concurrent deletions, each a round trip.
const AT_ONCE: usize = 64;

/// Deletes dead letters for good
#[derive(Args, Debug)]
#[command(
    override_usage = "kubectl aq dead purge [OPTIONS] <QUEUE> <CALL-ID...|--function NAME|--all>"
)]
#[command(after_help = "Examples:
  kubectl aq dead purge slow-queue 01234567-89ab-7cde-8f01-23456789abcd
  kubectl aq dead purge slow-queue --all --yes")]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,

    #[command(flatten)]
    which: Which,

    /// Only those of this kind
    #[arg(long, value_enum, default_value = "all")]
    kind: KindChoice,

    /// Confirm --all
    #[arg(long)]
    yes: bool,
}

pub(super) async fn run(session: &Session, arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { place, which, kind, yes } = arguments;
    let which = which.selection(place)?;
    let dead_letters = place.open(session).await?;
    let mut letters = Vec::new();
    if which != Selection::All || *kind != KindChoice::All {
        letters = dead_letters.list(&which).await?;
        letters.retain(|letter| kind.has(letter));
    }
    if which == Selection::All && !yes {
        let meant =
            if *kind == KindChoice::All { dead_letters.count() } else { letters.len() as u64 };
        let (queue, count) = (&place.queue, count(meant));
        return Err(
            UsageError(format!("add --yes to delete all of queue `{queue}`, {count}")).into()
        );
    }
    if which == Selection::All && *kind == KindChoice::All {
        let deleted = dead_letters.delete_all().await?;
        return Ok(output::print(&format!("{} deleted\n", count(deleted)))?);
    }
    let deleted: Vec<bool> = stream::iter(&letters)
        .map(|letter| dead_letters.delete(letter))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let deleted = deleted.iter().filter(|deleted| **deleted).count() as u64;
    output::print(&format!("{} deleted\n", count(deleted)))?;
    match say_missing(place, &which, &letters, *kind) {
        0 => Ok(()),
        missing => anyhow::bail!("{} could not be deleted, see above", count(missing)),
    }
}
