//! What happened to the calls of a run, recorded by those who saw it: the client that submitted and
//! cancelled them, the function, the receiver of callbacks, and a last look at the streams.
//!
//! [`recorder`] records [`event`]s by one clock, and [`stalls`] when that stood still; [`checker`]
//! holds them against what the system promises, as a pure function, with [`faults`] as its only
//! excuses; [`story`] shows a broken promise as the events of one call, in order; [`trace`]
//! gives the same as plain values, for a model of the protocol.

pub mod call_ids;
pub mod checker;
pub mod event;
pub mod faults;
pub mod recorder;
pub mod stalls;
pub mod story;
pub mod trace;
