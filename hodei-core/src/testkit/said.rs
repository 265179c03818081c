//! What a process says to a test.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::mpsc;
use std::thread;

/// Hands on what is said, line by line, until the end or until nobody listens. What comes after the last end of a line was not
/// said: whoever says it may have been killed in the middle.
pub fn lines(said: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let mut said = BufReader::new(said);
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        let mut line = String::new();
        while said.read_line(&mut line).is_ok_and(|read| read > 0) {
            let Some(whole) = line.strip_suffix('\n') else { return };
            if sender.send(whole.to_owned()).is_err() {
                return;
            }
            line.clear();
        }
    });
    lines
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_line_without_an_end_was_not_said() {
        let said = super::lines(&b"one\n\ntwo words\nthr"[..]);
        assert_eq!(said.iter().collect::<Vec<_>>(), ["one", "", "two words"]);
    }
}
