//! Searches the model within bounds of one's own choice.
fn main() {}
