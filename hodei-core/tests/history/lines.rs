//! Histories as lines of JSON: they come back as they were, also after a crash.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use hodei_core::testkit::history::{Entry, History, Recorder};
use hodei_core::{ErrorKind, JobId};

use crate::script::script;
use crate::walk::{Plan, run};

fn written(history: &History) -> Vec<u8> {
    let mut lines = Vec::new();
    history.write(&mut lines).expect("memory takes it");
    lines
}

#[test]
fn a_history_comes_back_from_its_lines() {
    for history in [History::of(script().entries), run(Plan::seeded(3))] {
        let lines = written(&history);
        assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count(), history.entries().len());
        assert_eq!(History::read(&lines[..]).unwrap(), history);
    }
}

#[test]
fn a_torn_last_line_is_left_out() {
    let history = History::of(script().entries);
    let lines = written(&history);
    let last = lines[..lines.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    for cut in last + 1..lines.len() - 1 {
        let read = History::read(&lines[..cut]).unwrap();
        assert!(read.is_torn());
        assert_eq!(read.entries(), &history.entries()[..history.entries().len() - 1], "cut at {cut}");
    }
    let whole = History::read(&lines[..lines.len() - 1]).unwrap();
    assert_eq!((whole.is_torn(), whole.entries().len()), (false, history.entries().len()));
}

#[test]
fn a_line_that_is_no_entry_is_named() {
    for (lines, number) in [("nonsense\n", "1"), ("\"restarted\"\n{\"held\":{}}\n\"restarted\"\n", "2")] {
        let error = History::read(lines.as_bytes()).unwrap_err();
        assert_eq!((error.kind(), error.context("line")), (ErrorKind::Corrupt, Some(number)), "{error}");
    }
    assert_eq!(History::read(&b"\"restarted\"\n"[..]).unwrap().entries(), [Entry::Restarted]);
}

/// A file that a test can look into, or that is full.
#[derive(Clone, Default)]
struct Paper {
    lines: Arc<Mutex<Vec<u8>>>,
    full: bool,
}

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.lines.lock().expect("no writer panics").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_writing_recorder_writes_each_entry_at_once() {
    let paper = Paper::default();
    let recorder = Recorder::writing(paper.clone());
    for n in 0..3 {
        recorder.acknowledged(JobId::from_bytes([n; 16]));
        let read = History::read(&paper.lines.lock().unwrap()[..]).unwrap();
        assert_eq!(read.entries().len(), usize::from(n) + 1);
    }
    assert_eq!(recorder.history(), History::new());
    recorder.written().unwrap();
}

#[test]
fn a_recorder_that_cannot_write_says_so() {
    let recorder = Recorder::writing(Paper { full: true, ..Paper::default() });
    recorder.restarted();
    assert_eq!(recorder.written().unwrap_err().kind(), ErrorKind::Io);
}
