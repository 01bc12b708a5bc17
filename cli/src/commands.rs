//! The commands of `kubectl aq`, one module each.

pub(crate) mod batch;
pub(crate) mod cancel;
pub(crate) mod check;
pub(crate) mod completion;
pub(crate) mod dead;
pub(crate) mod drain;
pub(crate) mod fairness;
pub(crate) mod invoke;
pub(crate) mod logs;
pub(crate) mod purge;
pub(crate) mod queue;
mod queue_functions;
pub(crate) mod queues;
pub(crate) mod result;
pub(crate) mod status;
pub(crate) mod top;
