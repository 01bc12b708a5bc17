//! `regex-lite`, of the same authors and with the same interface, by the name of `regex`.
//!
//! The client of NATS has a few plain expressions: of a server's version, of the names of buckets and keys, and of a file of
//! credentials. For them the engines and Unicode tables of `regex` would be a tenth of the program, which is in memory all
//! the time.

pub use regex_lite::*;
