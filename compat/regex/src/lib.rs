//! `regex-lite`, of the same authors and with the same interface, by the name of `regex`.
//!
//! The client of NATS has three expressions: of a server's version, of a bucket's name and of a file of credentials, each
//! used once. For them the engines and Unicode tables of `regex` would be a tenth of the program, which is in memory all the
//! time.

pub use regex_lite::*;
