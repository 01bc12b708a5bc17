//! `kubectl aq purge`

use asyncqueue::{FunctionName, QueueName, call::QueueLocation, cancel::StoredCalls};
use asyncqueue_runtime::program::UsageError;
use clap::Args;

use crate::{inventory, output, session::Session};

/// Removes all calls of a queue, or those of one function
///
/// Removed calls do not run, have no callback and no dead letter, and are not known any more. A
/// call that runs goes on, and is not repeated. `cancel --all` ends calls so that their clients get
/// the status 499. In a batch, removed calls count as cancelled.
///
/// Only what is stored when the command counts it is removed. Without `--yes` it says how many
/// calls that are. Without `--function`, messages that an OpenFaaS gateway stored are removed too.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kubectl aq purge slow-queue
  kubectl aq purge slow-queue --function figlet --yes")]
pub(crate) struct PurgeArgs {
    /// Name of the queue
    queue: QueueName,

    /// Only calls of this function, NAME or NAME.NAMESPACE
    #[arg(long, value_name = "NAME")]
    function: Option<String>,

    /// Namespace of functions that are named without one
    #[arg(long, env = "function_namespace", default_value = "openfaas-fn")]
    function_namespace: String,

    /// Confirm it
    #[arg(long)]
    yes: bool,
}

pub(crate) async fn run(session: &Session, arguments: &PurgeArgs) -> anyhow::Result<()> {
    let PurgeArgs { queue, function, function_namespace, yes } = arguments;
    let function = function
        .as_ref()
        .map(|name| FunctionName::parse(name, function_namespace))
        .transpose()
        .map_err(|error| UsageError(error.to_string()))?;
    let entry = inventory::queue_entry(&session.js, queue).await?;
    let location = QueueLocation { queue: queue.clone(), entry };
    let stored = StoredCalls::find(&session.js, location, function.as_ref()).await?;
    if !yes {
        let without_id = if function.is_none() { stored.without_id() } else { 0 };
        let of = function.map(|function| format!(" of function `{function}`")).unwrap_or_default();
        return Err(UsageError(format!(
            "add --yes to remove all calls{of} of queue `{queue}`: {}",
            stored.count() + without_id
        ))
        .into());
    }
    let removed = stored.purge(&session.js).await?;
    Ok(output::print(&format!("calls removed: {removed}\n"))?)
}
