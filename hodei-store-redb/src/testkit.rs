//! What the tests and the fuzz targets of this crate reach past its users. Nothing here is stable.

use hodei_core::Result;
pub use redb::StorageBackend;

use crate::codec;
use crate::config::RedbStoreBuilder;
use crate::inner::Inner;
use crate::store::RedbStore;

/// Opens a store on what stands in for a file; the path of the builder is not looked at.
///
/// # Errors
///
/// Those of [`RedbStoreBuilder::open`].
pub fn open_on(builder: RedbStoreBuilder, disk: impl StorageBackend) -> Result<RedbStore> {
    RedbStore::serve(Inner::open_on(builder, disk)?)
}

/// A row of one kind.
#[derive(Clone, Debug)]
pub struct Row {
    /// What it is a row of.
    pub name: &'static str,
    /// The row.
    pub bytes: Vec<u8>,
    /// Reads bytes as a row of this kind, and writes what was read.
    pub again: fn(&[u8]) -> Result<Vec<u8>>,
}

/// Returns rows of every kind and shape.
#[must_use]
pub fn rows() -> Vec<Row> {
    let row = |sample: codec::Sample| Row { name: sample.name, bytes: sample.row, again: sample.again };
    codec::samples().into_iter().map(row).collect()
}
