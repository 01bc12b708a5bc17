//! What a program prints to its standard output and error. `print!` and `eprintln!` panic where the reader has seen enough,
//! as `head` has.

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

/// Prints a line to the standard error, if somebody reads it.
pub fn print_error(line: &str) {
    // There is no place left to say that this failed.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Whether the output could not be written because its reader has closed it.
#[must_use]
pub fn is_closed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}
