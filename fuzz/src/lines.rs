//! Stores as text, which users hand in.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use hodei_core::store::{LineReader, LineRow, LineWriter};
use hodei_core::{Clock, ErrorKind, ManualClock, Result};
use hodei_store_redb::{RedbStore, RedbStoreBuilder};

/// Reads bytes as the lines of a store, and brings them into one.
///
/// What is refused is `Invalid`, or of another version, or a row that is too large. What the reader takes is written as lines
/// that are read as the same. What a store takes it exports as a text that another one takes, and exports the same.
///
/// # Panics
///
/// When it is otherwise.
pub fn lines(data: &[u8]) {
    let Some(text) = taken(rewritten(data), data) else { return };
    let again = taken(rewritten(&text), &text);
    assert!(again.as_deref() == Some(&text[..]), "{} is written again as it is", shown(&text));
    let Some(text) = taken(through_a_store(data), data) else { return };
    let again = taken(through_a_store(&text), &text);
    assert!(again.as_deref() == Some(&text[..]), "{} is exported again as it is", shown(&text));
}

/// Returns what was taken; nothing for what was refused as it is to be.
fn taken(done: Result<Vec<u8>>, of: &[u8]) -> Option<Vec<u8>> {
    let refused = [ErrorKind::Invalid, ErrorKind::SchemaTooNew, ErrorKind::LimitExceeded];
    done.map_err(|error| assert!(refused.contains(&error.kind()), "{}: {error:?}", shown(of))).ok()
}

fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

/// Reads lines, and writes them again.
fn rewritten(data: &[u8]) -> Result<Vec<u8>> {
    let mut lines = LineReader::new(data)?;
    let mut text = Vec::new();
    let mut again = LineWriter::new(&mut text)?;
    while let Some(row) = lines.next_row()? {
        match row {
            LineRow::Row(row) => again.row(&row)?,
            LineRow::Checkpoint(checkpoint) => again.checkpoint(&checkpoint)?,
        }
    }
    again.finish()?;
    Ok(text)
}

/// Makes a file of lines, and exports it.
fn through_a_store(data: &[u8]) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir().expect("a folder");
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(hodei_core::testkit::conformance::START));
    let builder = || -> RedbStoreBuilder {
        RedbStore::builder(folder.path().join("jobs.redb")).clock(Arc::clone(&clock)).cache_bytes(4 << 20)
    };
    builder().import(data)?;
    let store = builder().open().expect("what was imported opens");
    let text = Text::default();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(store.export(text.clone()))?;
    let text = std::mem::take(&mut *text.0.lock().expect("nobody panicked"));
    Ok(text)
}

/// A text that a store writes on another thread.
#[derive(Clone, Debug, Default)]
struct Text(Arc<Mutex<Vec<u8>>>);

impl Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().map_err(|_| io::ErrorKind::Other)?.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
