//! Calls of all kinds, submitted through the real gateway, and who answers them: the client, the
//! function and the receiver of callbacks, all of which record what they see.

pub mod batch;
pub mod body;
pub mod client;
pub mod function;
mod listener;
pub mod message;
pub mod plan;
pub mod receiver;
