//! `kubectl aq dead purge`

use asyncqueue::dead_letters::Selection;
use asyncqueue_runtime::program::UsageError;
use clap::Args;
use futures::{StreamExt, TryStreamExt, stream};

use super::{KindFilter, QueueArgs, SelectionArgs, count, print_missing};
use crate::{output, session::Session};

/// Maximum number of concurrent deletions, each a round trip.
const MAX_CONCURRENT_DELETIONS: usize = 64;

/// Deletes dead letters permanently
#[derive(Args, Debug)]
#[command(
    override_usage = "kubectl aq dead purge [OPTIONS] <QUEUE> <CALL-ID...|--function NAME|--all>"
)]
#[command(after_help = "Examples:
  kubectl aq dead purge slow-queue 01234567-89ab-7cde-8f01-23456789abcd
  kubectl aq dead purge slow-queue --all --yes")]
pub(crate) struct PurgeArgs {
    #[command(flatten)]
    queue_args: QueueArgs,

    #[command(flatten)]
    selection: SelectionArgs,

    /// Only dead letters of this kind
    #[arg(long, value_enum, default_value = "all")]
    kind: KindFilter,

    /// Confirm --all
    #[arg(long)]
    yes: bool,
}

pub(super) async fn run(session: &Session, arguments: &PurgeArgs) -> anyhow::Result<()> {
    let PurgeArgs { queue_args, selection, kind, yes } = arguments;
    let selection = selection.selection(queue_args)?;
    let dead_letters = queue_args.open(session).await?;
    let mut letters = Vec::new();
    if selection != Selection::All || *kind != KindFilter::All {
        letters = dead_letters.list(&selection).await?;
        letters.retain(|letter| kind.matches(letter));
    }
    if selection == Selection::All && !yes {
        let selected =
            if *kind == KindFilter::All { dead_letters.count() } else { letters.len() as u64 };
        let (queue, count) = (&queue_args.queue, count(selected));
        return Err(UsageError(format!(
            "add --yes to delete all dead letters of queue `{queue}`: {count}"
        ))
        .into());
    }
    if selection == Selection::All && *kind == KindFilter::All {
        // Those that were counted: a letter that arrives now was not confirmed.
        let deleted = dead_letters.delete_up_to(dead_letters.last_sequence()).await?;
        return Ok(output::print(&format!("{} deleted\n", count(deleted)))?);
    }
    let deleted: Vec<bool> = stream::iter(&letters)
        .map(|letter| dead_letters.delete(letter))
        .buffer_unordered(MAX_CONCURRENT_DELETIONS)
        .try_collect()
        .await?;
    let deleted = deleted.iter().filter(|deleted| **deleted).count() as u64;
    output::print(&format!("{} deleted\n", count(deleted)))?;
    match print_missing(queue_args, &selection, &letters, *kind) {
        0 => Ok(()),
        missing => anyhow::bail!("failed to delete {}, see above", count(missing)),
    }
}
