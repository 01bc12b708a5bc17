//! What the operator does on NATS: its connections, what it receives from servers and workers, and
//! the queue that an `AsyncQueue` asks for.

use tokio::task::unconstrained;

pub(crate) mod advisories;
pub(crate) mod allowed_streams;
pub(crate) mod batches;
pub(crate) mod connections;
pub(crate) mod lanes;
pub(crate) mod queue_spec;
pub(crate) mod reserve;
pub(crate) mod secrets;
pub(crate) mod worker_stats;

/// Polls a listener, which takes messages from a subscription, so that it keeps up with its
/// connection.
///
/// Any client may publish, and what a listener has not taken waits in memory. In one turn a
/// connection reads up to 8 MB, of which tokio lets a task take only 128 messages: a flood would
/// fill each subscription with 65,536. Without that budget, a listener takes all that one turn has
/// brought. It must wait for nothing but messages. It ends its turn, because the operator runs on
/// one thread: no more messages arrive while it takes them.
pub(crate) async fn keep_up<L: Future>(listener: L) -> L::Output {
    unconstrained(listener).await
}
