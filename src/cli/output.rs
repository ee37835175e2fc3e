//! The only place that writes to standard output and standard error.

use std::io::{self, ErrorKind, IsTerminal, Write};

use serde::Serialize;

use super::Failure;
pub(super) use domain::text::grouped;

/// Prints a result. A closed pipe (`headcount segments | head -1`) is not a failure: the reader has read enough, and the
/// exit code still reports how the command went.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    print_to(&mut io::stdout().lock(), text)
}

/// Prints one of many results. Returns false if standard output is a closed pipe.
pub(super) fn print_on(text: &str) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(unwritten(&error)),
    }
}

fn unwritten(error: &io::Error) -> Failure {
    Failure::failed(format!("can't write to standard output: {error}"))
}

/// Whether standard output is a terminal.
pub(super) fn is_on_screen() -> bool {
    io::stdout().is_terminal()
}

fn print_to(out: &mut dyn Write, text: &str) -> Result<(), Failure> {
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(unwritten(&error)),
        _ => Ok(()),
    }
}

/// Prints a result for scripts: one JSON document on one line.
pub(super) fn print_json(document: &impl Serialize) -> Result<(), Failure> {
    let mut text = serde_json::to_string(document)
        .map_err(|error| Failure::failed(format!("can't write the result as JSON: {error}")))?;
    text.push('\n');
    print(&text)
}

/// Prints CSV. Line ends are kept, other control characters are replaced as in [`sanitized`].
pub(super) fn print_csv(text: &str) -> Result<(), Failure> {
    let lines: Vec<_> = text.split("\r\n").map(sanitized).collect();
    print(&lines.join("\r\n"))
}

/// Prints a message to standard error. A closed standard error is ignored.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Whether standard error is a terminal.
pub(super) fn is_watched() -> bool {
    io::stderr().is_terminal()
}

/// Replaces the control characters of an untrusted string, which could contain escape sequences of the terminal.
pub(super) fn sanitized(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Broken(ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_left_is_no_failure_but_a_full_disk_is() {
        assert!(print_to(&mut Broken(ErrorKind::BrokenPipe), "x").is_ok());
        assert!(print_to(&mut Broken(ErrorKind::StorageFull), "x").is_err());
    }

    #[test]
    fn terminal_tricks_are_taken_out() {
        assert_eq!(sanitized("a\u{1b}[2Jb"), "a\u{fffd}[2Jb");
    }
}
