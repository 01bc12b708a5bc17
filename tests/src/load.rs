//! Calls of all kinds, submitted through the real gateway, and who answers them: the client, the function and the
//! receiver of callbacks, all of which take down what they see.

pub mod client;
pub mod function;
pub mod plan;
pub mod receiver;
