//! Results on their way to standard output.

use std::io::{ErrorKind, Write as _};

/// Writes a result. A reader that has seen enough, such as `head`, is no error.
pub fn print(text: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
