//! Prints to the standard output and error. `print!` and `eprintln!` panic if the reader has closed
//! the output, as `head` does.

use std::io::{self, Write};

/// Prints a text to the standard output.
pub fn print(text: &str) -> io::Result<()> {
    print_bytes(text.as_bytes())
}

/// Prints bytes as they are to the standard output.
pub fn print_bytes(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// Prints a line to the standard error. Does nothing if it is closed.
pub fn print_error(line: &str) {
    // There is no place left to report this failure.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Returns whether the output could not be written because its reader has closed it.
#[must_use]
pub fn is_closed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}
