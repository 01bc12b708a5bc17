//! Listeners that keep up with a flood of messages.

use tokio::task::unconstrained;

#[cfg(doc)]
use crate::program::RuntimeFlavor;

/// Polls a listener, which takes messages from a subscription, so that it keeps up with its
/// connection.
///
/// Any client may publish, and what a listener has not taken waits in memory. In one turn a
/// connection reads up to 8 MB, of which tokio lets a task take only 128 messages: a flood would
/// fill each subscription with 65,536. Without that budget, a listener takes all that one turn has
/// brought. It must wait for nothing but messages. It ends its turn in a program that runs
/// on one thread, [`RuntimeFlavor::CurrentThread`]: no more messages arrive while it takes them.
pub async fn keep_up<L: Future>(listener: L) -> L::Output {
    unconstrained(listener).await
}
