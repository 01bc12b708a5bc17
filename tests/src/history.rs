//! What happened to the calls of a run, told by those who saw it: the client that submitted and cancelled them, the
//! function, the receiver of callbacks, and a last look at the streams.
//!
//! [`recorder`] takes down [`event`]s by one clock, and [`stalls`] when that stood still; [`checker`] holds them against what the system promises, as a pure
//! function; [`story`] tells a broken promise as what happened to one call, in order.

pub mod checker;
pub mod event;
pub mod recorder;
pub mod stalls;
pub mod story;
